"""`relayfile workspaces create | show`: where deliveries and files belong."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR, ask
from relayfile.cli.shown import as_json, moment

if TYPE_CHECKING:
    import grpc.aio

    from relayfile.cli.connection import Credentials
    from relayfile.v1.workspace_pb2 import Workspace

app = typer.Typer(help="Where deliveries and files belong: make one, look at one.", no_args_is_help=True)
WORKSPACE = typer.Argument(help="The workspace.")
AS_JSON = typer.Option(False, "--json", help="One JSON object, for machines.")


@app.command()
def create(workspace: str = WORKSPACE, data_dir: Path = DATA_DIR) -> None:
    """Make a workspace, where the first delivery does not (RELAYFILE_CREATE_WORKSPACES)."""

    async def work(channel: "grpc.aio.Channel", shown: "Credentials") -> None:
        from relayfile.v1 import workspace_pb2
        from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub

        request = workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace)
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


def _text(found: "Workspace") -> str:
    rows = (
        ("revision", found.revision),
        ("files", found.totals.file_count),
        ("bytes", found.totals.total_bytes),
        ("made", moment(found.create_time.ToMicroseconds())),
        ("changed", moment(found.modify_time.ToMicroseconds())),
    )
    return "\n".join([found.workspace_id, *(f"  {name:<9}{value}" for name, value in rows)])
