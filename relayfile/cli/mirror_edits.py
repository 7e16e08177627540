"""`relayfile mirror conflicts | flush`: local edits that collided with the store's, and those on their way to it."""

from collections.abc import AsyncIterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.mirror_calls import DIRECTORY, IN_JSON, find, with_mirrors
from relayfile.cli.mirror_shown import conflict_text
from relayfile.cli.running_system import DATA_DIR, JSON_LINES
from relayfile.cli.shown import as_json

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.mirror_pb2 import FlushMirrorResponse, Mirror, MirrorConflict, ResolveConflictRequest
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceAsyncStub

_WAYS_OUT = "`--take mine` keeps your version, `--take theirs` the store's: with --path, --id or --all"


class Take(StrEnum):
    """Which version of a conflict stays."""

    MINE = "mine"
    THEIRS = "theirs"


def conflicts(
    directory: Path = DIRECTORY,
    take: Take | None = typer.Option(None, "--take", help="End conflicts: your version stays, or the store's."),
    conflict_id: list[str] = typer.Option((), "--id", metavar="ID", help="With --take: this one; may be repeated."),
    path: str = typer.Option("", "--path", help="Only of this file of the workspace, or of what is in this directory."),
    everything: bool = typer.Option(False, "--all", help="With --take: every one."),
    in_json: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List files that were changed here and in the store; with --take end conflicts, one by one or all at once.

    The version that does not stay goes to the mirror's trash. Exit code 1 when one could not be ended, because a side
    changed since it was listed: it is shown as it is now.
    """
    _check_choice(take, conflict_id, path, everything=everything)

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        mirror = await find(stub, shown, directory)
        if take is not None:
            await _end(stub, shown, mirror, _requests(mirror.mirror_id, take, conflict_id, path), in_json=in_json)
            return
        none = True
        async for each in _listed(stub, shown, mirror.mirror_id, path):
            none = False
            print(as_json(each) if in_json else conflict_text(each))
        if not in_json:
            print("no conflicts" if none else _WAYS_OUT)

    with_mirrors(data_dir, work)


def flush(
    directory: Path = DIRECTORY,
    timeout_s: float = typer.Option(60.0, "--timeout", min=0.0, help="Seconds to wait at most; 0: for ever."),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Wait until the store has every edit made in the directory so far.

    Exit code 1 when it does not take one (each is a conflict or a listed problem), or not in time.
    """

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        request = mirror_pb2.FlushMirrorRequest(mirror_id=mirror.mirror_id, sweep=True)
        answer = await stub.FlushMirror(request, metadata=shown, timeout=timeout_s or None)
        if in_json:
            print(as_json(answer, zeros=True))
        else:
            print(_flushed(answer))
            if answer.refused_count:
                print(f"`relayfile mirror problems {directory}` and `relayfile mirror conflicts {directory}` say why")
        if answer.refused_count:
            raise typer.Exit(1)

    with_mirrors(data_dir, work)


async def _listed(
    stub: "MirrorServiceAsyncStub", shown: "Credentials", mirror_id: str, path: str
) -> "AsyncIterator[MirrorConflict]":
    from relayfile.v1 import mirror_pb2

    request = mirror_pb2.ListConflictsRequest(mirror_id=mirror_id, remote_path=path, page_size=1_000)
    while True:
        page = await stub.ListConflicts(request, metadata=shown)
        for each in page.conflicts:
            yield each
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


def _flushed(answer: "FlushMirrorResponse") -> str:
    if not answer.acknowledged_count and not answer.refused_count:
        return "no edit waits: the store has them all"
    at = f"; revision {answer.revision}" if answer.revision else ""
    return f"edits: {answer.acknowledged_count} arrived, {answer.refused_count} not taken{at}"


def _requests(mirror_id: str, take: Take, conflict_ids: Sequence[str], path: str) -> "list[ResolveConflictRequest]":
    """One for each id, or one for all at and below ``path``; empty: every conflict."""
    from relayfile.v1 import mirror_pb2

    choice = mirror_pb2.ConflictChoice.Value(f"CONFLICT_CHOICE_{take.name}")
    if conflict_ids:
        return [
            mirror_pb2.ResolveConflictRequest(mirror_id=mirror_id, choice=choice, conflict_id=each)
            for each in conflict_ids
        ]
    return [mirror_pb2.ResolveConflictRequest(mirror_id=mirror_id, choice=choice, all_in_remote_path=path or "/")]


async def _end(
    stub: "MirrorServiceAsyncStub",
    shown: "Credentials",
    mirror: "Mirror",
    requests: "Sequence[ResolveConflictRequest]",
    *,
    in_json: bool,
) -> None:
    from relayfile.v1 import mirror_pb2

    ended = still_open = 0
    changed: list[MirrorConflict] = []
    for request in requests:
        answer = await stub.ResolveConflict(request, metadata=shown)
        ended, still_open = ended + answer.resolved_count, answer.open_count
        changed += answer.changed_conflicts
        if in_json:
            print(as_json(answer, zeros=True))
    if not in_json:
        mine = requests[0].choice == mirror_pb2.CONFLICT_CHOICE_MINE
        for each in changed:
            print(f"not ended, a side has changed:\n{conflict_text(each)}")
        whose = "your" if mine else "the store's"
        print(f"{ended} ended with {whose} version, {still_open} still open")
        if mine and ended and not mirror.follow:
            print(f"`relayfile mirror flush {mirror.directory}` sends your version")
    if changed:
        raise typer.Exit(1)


def _check_choice(take: Take | None, conflict_ids: Sequence[str], path: str, *, everything: bool) -> None:
    """``BadParameter``, unless it is said which conflicts end and with which version, or neither."""
    if take is None and (conflict_ids or everything):
        raise typer.BadParameter("say which version stays: mine or theirs", param_hint="--take")
    if take is not None and sum((bool(conflict_ids), bool(path), everything)) != 1:
        raise typer.BadParameter("say which conflicts: one of --id, --path and --all", param_hint="--take")
