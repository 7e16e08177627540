"""`relayfile workspaces create | show | list | delete`: where deliveries and files belong."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, ask, with_client
from relayfile.cli.shown import as_json, moment, value_json
from relayfile.cli.table import table
from relayfile.settings.definition import parse_size

if TYPE_CHECKING:
    import grpc.aio

    from relayfile.cli.connection import Credentials
    from relayfile.client import Client, WorkspaceInfo
    from relayfile.v1.workspace_pb2 import Workspace

app = typer.Typer(help="Where deliveries and files belong: make one, look at one.", no_args_is_help=True)
WORKSPACE = typer.Argument(help="The workspace.")
AS_JSON = typer.Option(False, "--json", help="One JSON object, for machines.")


@app.command()
def create(
    workspace: str = WORKSPACE,
    files_max: int = typer.Option(0, "--files-max", min=0, max=2**63 - 1, help="Files that it may hold."),
    bytes_max: str = typer.Option("0", "--bytes-max", help="Their content together, for example 10GiB."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Make a workspace, where the first delivery does not (RELAYFILE_CREATE_WORKSPACES).

    Without limits of its own it has those of the node (RELAYFILE_WORKSPACE_FILES_MAX, RELAYFILE_WORKSPACE_BYTES_MAX).
    """
    try:
        total_bytes_max = parse_size(bytes_max)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; write 500MiB or 10GiB", param_hint="--bytes-max") from None
    if total_bytes_max > 2**63 - 1:
        raise typer.BadParameter("is more than any disk holds", param_hint="--bytes-max")

    async def work(channel: "grpc.aio.Channel", shown: "Credentials") -> None:
        from relayfile.v1 import workspace_pb2
        from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

        request = workspace_pb2.CreateWorkspaceRequest(
            workspace_id=workspace,
            quota=workspace_pb2.WorkspaceQuota(files_max=files_max, total_bytes_max=total_bytes_max),
        )
        await WorkspaceServiceStub(channel).CreateWorkspace(request, metadata=shown)
        print(f"{workspace} is made; deliveries go to /v1/workspaces/{workspace}/webhooks/PROVIDER")

    ask(data_dir, lambda system: system.store, work)


@app.command()
def show(workspace: str = WORKSPACE, in_json: bool = AS_JSON, data_dir: Path = DATA_DIR) -> None:
    """Say how many files a workspace has, and when it changed."""

    async def work(channel: "grpc.aio.Channel", shown: "Credentials") -> None:
        from relayfile.v1 import workspace_pb2
        from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

        request = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace)
        found = (await WorkspaceServiceStub(channel).GetWorkspace(request, metadata=shown)).workspace
        print(as_json(found, zeros=True) if in_json else _text(found))

    ask(data_dir, lambda system: system.store, work)


@app.command("list")
def list_workspaces(
    prefix: str = typer.Argument("", help="Only names that start with this."),
    deleted: bool = typer.Option(False, "--deleted", help="Also deleted ones, while their names cannot be used again."),
    json_lines: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List the workspaces of all nodes."""

    async def work(client: "Client") -> None:
        found = [each async for each in client.workspaces.list(prefix, show_deleted=deleted)]
        if json_lines:
            for each in found:
                print(value_json(each))
        else:
            print(table(("WORKSPACE", "REVISION", "FILES", "BYTES", "CHANGED"), [*map(_row, found)]))

    with_client(data_dir, work)


@app.command()
def delete(
    workspace: str = WORKSPACE,
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    reason: str = typer.Option("", "--reason", help="Why, for the record of administrative actions."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Remove a workspace with its files, events, operations and dead letters. It cannot be undone."""

    async def work(client: "Client") -> None:
        info = await client.workspaces.get(workspace)
        if not yes:
            typer.confirm(f"{workspace} has {info.totals.file_count} files. Remove it for good?", abort=True, err=True)
        usable = await client.workspaces.delete(workspace, history_id=info.at.history_id, reason=reason)
        print(f"{workspace} is removed; the name may be used again from {usable:%Y-%m-%d} on")

    with_client(data_dir, work)


def _row(found: "WorkspaceInfo") -> tuple[object, ...]:
    changed = found.modify_time.strftime("%Y-%m-%d %H:%M:%SZ") if found.modify_time else "-"
    name = found.workspace_id if found.delete_time is None else f"{found.workspace_id} (deleted)"
    return name, found.at.revision, found.totals.file_count, found.totals.total_bytes, changed


def _text(found: "Workspace") -> str:
    rows = (
        ("revision", found.revision),
        ("files", found.totals.file_count),
        ("bytes", found.totals.total_bytes),
        ("made", moment(found.create_time.ToMicroseconds())),
        ("changed", moment(found.modify_time.ToMicroseconds())),
    )
    return "\n".join([found.workspace_id, *(f"  {name:<9}{value}" for name, value in rows)])
