"""`relayfile mirror add | pull | list | status | audit`: directories that are kept equal to workspaces."""

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from relayfile.cli.running_system import DATA_DIR, JSON_LINES, ask
from relayfile.cli.shown import as_json
from relayfile.errors import MirrorNotFound

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.mirror_pb2 import Mirror, MirrorAudit
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceAsyncStub

app = typer.Typer(help="Directories that are kept equal to workspaces.", no_args_is_help=True)


@app.command()
def add(
    workspace: str = typer.Argument(help="The workspace."),
    directory: Path = typer.Argument(help="The directory; made when it is missing."),
    path: list[str] = typer.Option([], "--path", help="Only this part of the workspace; may be repeated."),
    follow: bool = typer.Option(False, "--follow", help="Apply changes as they come, over restarts."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Make a mirror, pull it, and with --follow keep it current.

    A mirror that is there already is pulled, and with --follow kept current from now on.

    Nothing is pulled over a directory that holds other files. A mirror is read-only: a file edited in it is never
    overwritten, but listed as a problem. Digests prove a mirror as it follows; `relayfile mirror pull --full` lists
    the whole workspace anew.
    """

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        request = mirror_pb2.CreateMirrorRequest(
            workspace_id=workspace,
            directory=str(directory.resolve()),
            remote_paths=path,
            follow=follow,
            read_only=True,
            update_existing=True,
        )
        mirror = (await stub.CreateMirror(request, metadata=shown)).mirror
        await _pull(stub, shown, mirror.mirror_id)
        print(
            f"{mirror.directory} mirrors {workspace} as {mirror.mirror_id}" + (", following" if mirror.follow else "")
        )

    _run(data_dir, work)


@app.command()
def pull(
    directory: Path = typer.Argument(help="The mirror's directory."),
    full: bool = typer.Option(False, "--full", help="Compare every file, not only digests."),
    tree: bool = typer.Option(False, "--tree", help="List and read instead of the packed export."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Bring a mirror up to the store's revision."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        await _pull(stub, shown, (await _find(stub, shown, directory)).mirror_id, full=full, tree=tree)

    _run(data_dir, work)


@app.command("list")
def list_mirrors(in_json: bool = JSON_LINES, data_dir: Path = DATA_DIR) -> None:
    """List the mirrors of the running syncd."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        token = ""
        while True:
            page = await stub.ListMirrors(mirror_pb2.ListMirrorsRequest(page_token=token), metadata=shown)
            for mirror in page.mirrors:
                print(as_json(mirror) if in_json else _one_line(mirror))
            if not (token := page.next_page_token):
                return

    _run(data_dir, work)


@app.command()
def status(
    directory: Path = typer.Argument(help="The mirror's directory."),
    in_json: bool = typer.Option(False, "--json", help="One JSON object, for machines."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Say how fresh and how exact a mirror is."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        mirror = await _find(stub, shown, directory)
        if in_json:
            print(as_json(mirror))
            return
        counts = mirror.file_counts
        print(_one_line(mirror))
        print(f"  revision {mirror.revision} of {mirror.remote_revision}; {_verdict(mirror.verdict)}")
        print(
            f"  files {counts.materialised_count} on disk, {counts.pending_count} pending, "
            f"{counts.conflict_count} in conflict, {counts.ignored_count} ignored, {counts.problem_count} problems"
        )
        if mirror.problem_count:
            print(f"  problems are listed in {mirror.directory}/.relayfile/status.json")
        if mirror.HasField("halt"):
            print(f"  halted: {mirror.halt.reason}: {mirror.halt.message}")
        if mirror.HasField("error"):
            print(f"  error: {mirror.error.reason}: {mirror.error.message}")

    _run(data_dir, work)


@app.command()
def audit(directory: Path = typer.Argument(help="The mirror's directory."), data_dir: Path = DATA_DIR) -> None:
    """Compare a mirror with the store by digest, at one revision. Exit code 1 when they differ."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await _find(stub, shown, directory)
        answer = await stub.AuditMirror(
            mirror_pb2.AuditMirrorRequest(mirror_id=mirror.mirror_id, sweep=True), metadata=shown
        )
        print(_audit_line(answer.audit))
        for path in answer.differing_remote_paths:
            print(f"  differs: {path}")
        if answer.audit.verdict == mirror_pb2.MIRROR_VERDICT_DIFFERENT:
            raise typer.Exit(1)

    _run(data_dir, work)


async def _pull(
    stub: "MirrorServiceAsyncStub", shown: "Credentials", mirror_id: str, *, full: bool = False, tree: bool = False
) -> None:
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
    seconds = result.duration.seconds + result.duration.nanos / 1e9
    print(
        f"{result.written_count} files written ({result.written_bytes:,} bytes) in {seconds:.2f} s, "
        f"{result.unchanged_count} unchanged, {result.deleted_count} deleted, {result.problem_count} problems; "
        f"revision {result.revision}; {_verdict(result.audit.verdict)}"
    )


async def _find(stub: "MirrorServiceAsyncStub", shown: "Credentials", directory: Path) -> "Mirror":
    from relayfile.v1 import mirror_pb2

    wanted = str(directory.resolve())
    page = await stub.ListMirrors(mirror_pb2.ListMirrorsRequest(directory=wanted), metadata=shown)
    if not page.mirrors:
        raise MirrorNotFound(mirror=wanted)
    return page.mirrors[0]


def _run(data_dir: Path, work: Callable[["MirrorServiceAsyncStub", "Credentials"], Awaitable[None]]) -> None:
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceStub

    ask(data_dir, lambda system: system.syncd, lambda channel, shown: work(MirrorServiceStub(channel), shown))


def _verdict(verdict: Any) -> str:
    from relayfile.v1 import mirror_pb2

    name: str = mirror_pb2.MirrorVerdict.Name(verdict).removeprefix("MIRROR_VERDICT_").lower().replace("_", " ")
    return "not audited" if name == "unspecified" else name


def _one_line(mirror: "Mirror") -> str:
    from relayfile.v1 import mirror_pb2

    state = mirror_pb2.MirrorState.Name(mirror.state).removeprefix("MIRROR_STATE_").lower()
    paths = " ".join(path for path in mirror.remote_paths if path != "/")
    return f"{mirror.mirror_id}  {mirror.workspace_id}{paths and ' ' + paths}  {mirror.directory}  {state}"


def _audit_line(audit: "MirrorAudit") -> str:
    return (
        f"{_verdict(audit.verdict)} at revision {audit.revision}: {audit.differing_count} differ, "
        f"{audit.listed_count} listed, {audit.sweep_changed_count} changed on disk; "
        f"{audit.wire_bytes:,} bytes on the wire"
    )
