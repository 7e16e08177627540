"""`relayfile mirror add | pull | list | status | audit | verify`: directories that are kept equal to workspaces."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli import mirror_edits, mirror_kept
from relayfile.cli.mirror_calls import DIRECTORY, IN_JSON, find, with_mirrors
from relayfile.cli.mirror_shown import audit_line, described, is_stuck, one_line, plain_table, result_line, watch
from relayfile.cli.running_system import DATA_DIR, JSON_LINES
from relayfile.cli.shown import as_json

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.mirror_pb2 import Mirror, PullResult
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceAsyncStub

app = typer.Typer(help="Directories that are kept equal to workspaces.", no_args_is_help=True)


@app.command()
def add(
    workspace: str = typer.Argument(help="The workspace."),
    directory: Path = typer.Argument(help="The directory; made when it is missing.", file_okay=False),
    path: list[str] = typer.Option([], "--path", help="Only this part of the workspace; may be repeated; /: all."),
    follow: bool = typer.Option(False, "--follow", help="Apply changes as they come, over restarts."),
    read_only: bool = typer.Option(False, "--read-only", help="Send no local edits; restore what is edited here."),
    token_file: Path | None = typer.Option(
        None, "--token-file", help="The mirror's own token; read again when it changes.", dir_okay=False
    ),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Make a mirror, pull it, and with --follow keep it current.

    A mirror that is there already is pulled, and with --follow kept current from now on. With --path it has these
    paths from now on: files of others go to its trash, and no other file moves.

    Nothing is pulled over a directory that holds other files. Edits go both ways: a file written here is sent to the
    store, and where both sides changed a file the store's version gets its name, the local one is kept in
    .relayfile/conflicts/ until `relayfile mirror conflicts` ends that. With --read-only nothing is sent: what is edited
    here moves to .relayfile/trash/, and the store's version comes back.

    Digests prove a mirror as it follows. A full pull, which lists everything, is due every 100 cycles of 30 s
    (RELAYFILE_MOUNT_FULL_PULL_EVERY) only where the store gives no digest or an audit could not repair, and never by
    itself above 10,000 files; `relayfile mirror pull --full` does it at once.
    """

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        asked = mirror_pb2.ListMirrorsRequest(directory=str(directory.resolve()))
        present = [
            each.remote_paths
            for each in (await stub.ListMirrors(asked, metadata=shown)).mirrors
            if each.directory == asked.directory and not path
        ]
        request = mirror_pb2.CreateMirrorRequest(
            workspace_id=workspace,
            directory=asked.directory,
            remote_paths=present[0] if present else path,
            follow=follow,
            read_only=read_only,
            token_file=str(token_file.resolve()) if token_file is not None else "",
            update_existing=True,
        )
        mirror = (await stub.CreateMirror(request, metadata=shown)).mirror
        result = await _pull(stub, shown, mirror.mirror_id)
        if in_json:
            request_now = mirror_pb2.GetMirrorRequest(mirror_id=mirror.mirror_id)
            print(as_json((await stub.GetMirror(request_now, metadata=shown)).mirror))
            return
        print(result_line(result))
        print(
            f"{mirror.directory} mirrors {workspace} as {mirror.mirror_id}" + (", following" if mirror.follow else "")
        )

    with_mirrors(data_dir, work)


@app.command()
def pull(
    directory: Path = DIRECTORY,
    full: bool = typer.Option(False, "--full", help="Compare every file, not only digests."),
    tree: bool = typer.Option(False, "--tree", help="List and read instead of the packed export."),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Bring a mirror up to the store's revision. Exit code 1 when it differs all the same."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        result = await _pull(stub, shown, mirror.mirror_id, full=full, tree=tree)
        print(as_json(result) if in_json else result_line(result))
        if result.audit.verdict == mirror_pb2.MIRROR_VERDICT_DIFFERENT:
            raise typer.Exit(1)

    with_mirrors(data_dir, work)


@app.command("list")
def list_mirrors(in_json: bool = JSON_LINES, data_dir: Path = DATA_DIR) -> None:
    """List the mirrors of the running syncd."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        for mirror in await _all(stub, shown):
            print(as_json(mirror) if in_json else one_line(mirror))

    with_mirrors(data_dir, work)


@app.command()
def status(
    directory: Path | None = typer.Argument(None, help="The mirror's directory; none: all mirrors.", file_okay=False),
    live: bool = typer.Option(False, "--watch", help="Show changes as they come, until Ctrl-C."),
    in_json: bool = typer.Option(False, "--json", help="One JSON object for each mirror, for machines."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Say how fresh and how exact a mirror is. Exit code 1 when one waits for somebody (halted, error)."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        found = await _all(stub, shown) if directory is None else [await find(stub, shown, directory)]
        if live:
            request = mirror_pb2.WatchMirrorsRequest(mirror_ids=[] if directory is None else [found[0].mirror_id])
            await watch(stub.WatchMirrors(request, metadata=shown), in_json=in_json)
            return
        if in_json:
            for mirror in found:
                print(as_json(mirror))
        elif directory is not None:
            print(described(found[0]))
        else:
            print(plain_table(found))
        if any(is_stuck(mirror) for mirror in found):
            raise typer.Exit(1)

    with_mirrors(data_dir, work)


@app.command()
def audit(directory: Path = DIRECTORY, in_json: bool = IN_JSON, data_dir: Path = DATA_DIR) -> None:
    """Compare a mirror with the store by digest, at one revision. Exit code 1 when they differ."""
    _audit(directory, data_dir, in_json=in_json, verify=False)


@app.command()
def verify(directory: Path = DIRECTORY, in_json: bool = IN_JSON, data_dir: Path = DATA_DIR) -> None:
    """Audit a mirror, and read and hash every file on disk again. Exit code 1 when they differ."""
    _audit(directory, data_dir, in_json=in_json, verify=True)


app.command()(mirror_edits.flush)
app.command()(mirror_edits.conflicts)
app.command()(mirror_kept.problems)
app.command()(mirror_kept.trash)
app.command()(mirror_kept.approve)
app.command()(mirror_kept.wait)
app.command()(mirror_kept.rm)


def _audit(directory: Path, data_dir: Path, *, in_json: bool, verify: bool) -> None:
    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        request = mirror_pb2.AuditMirrorRequest(mirror_id=mirror.mirror_id, sweep=True, verify_content=verify)
        answer = await stub.AuditMirror(request, metadata=shown)
        if in_json:
            print(as_json(answer))
        else:
            print(audit_line(answer.audit))
            for path in answer.differing_remote_paths:
                print(f"  differs: {path}")
        if answer.audit.verdict == mirror_pb2.MIRROR_VERDICT_DIFFERENT:
            raise typer.Exit(1)

    with_mirrors(data_dir, work)


async def _all(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> "list[Mirror]":
    from relayfile.v1 import mirror_pb2

    found: list[Mirror] = []
    token = ""
    while True:
        page = await stub.ListMirrors(mirror_pb2.ListMirrorsRequest(page_token=token), metadata=shown)
        found += page.mirrors
        if not (token := page.next_page_token):
            return found


async def _pull(
    stub: "MirrorServiceAsyncStub", shown: "Credentials", mirror_id: str, *, full: bool = False, tree: bool = False
) -> "PullResult":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from relayfile.v1 import mirror_pb2

    via = mirror_pb2.PULL_VIA_TREE if tree else mirror_pb2.PULL_VIA_UNSPECIFIED
    request = mirror_pb2.PullMirrorRequest(mirror_id=mirror_id, full=full, via=via)
    counted = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("files"))
    columns = (*counted, TextColumn("{task.fields[rate]}"), TimeElapsedColumn())
    result = mirror_pb2.PullResult()
    # Where nobody watches, as in a script, rich would leave an empty line in place of the bar.
    with Progress(*columns, transient=True, disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("starting", total=None, rate="")
        async for step in stub.PullMirror(request, metadata=shown):
            if step.HasField("progress"):
                progress = step.progress
                bar.update(
                    task,
                    description=mirror_pb2.PullPhase.Name(progress.phase).removeprefix("PULL_PHASE_").lower(),
                    completed=progress.files_done_count,
                    total=progress.files_total_count or None,
                    rate=f"{progress.files_per_second:,.0f}/s" if progress.files_per_second else "",
                )
            else:
                result = step.result
    return result
