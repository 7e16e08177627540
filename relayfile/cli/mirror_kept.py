"""`relayfile mirror problems | trash | approve | wait | rm`: what a mirror could not do, what it keeps, and its end."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.mirror_calls import DIRECTORY, IN_JSON, WHOLE_DIRECTORY, find, find_root, with_mirrors
from relayfile.cli.mirror_shown import verdict
from relayfile.cli.running_system import DATA_DIR, JSON_LINES
from relayfile.cli.shown import as_json, moment
from relayfile.cli.table import table

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.mirror_pb2 import DeletePlan, ListTrashRequest, MirrorProblem, TrashEntry
    from relayfile.v1.mirror_pb2_grpc import MirrorServiceAsyncStub

_TRASH = ("ID", "SINCE", "WHY", "BYTES", "PATH")


def problems(
    directory: Path = DIRECTORY,
    reason: str = typer.Option("", "--reason", help="Only with this reason, for example DISK_FULL."),
    path: str = typer.Option("", "--path", help="Only in this directory of the workspace."),
    in_json: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List paths that are not as they should be, with the reason and what helps."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        request = mirror_pb2.ListProblemsRequest(mirror_id=mirror.mirror_id, reason=reason, remote_path=path)
        found: list[MirrorProblem] = []
        while True:
            page = await stub.ListProblems(request, metadata=shown)
            found += page.problems
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token
        if in_json:
            for each in found:
                print(as_json(each))
        elif found:
            print(table(("SINCE", "TRIES", "REASON", "PATH", "WHAT"), [_problem_row(each) for each in found]))
        else:
            print("no problems")

    with_mirrors(data_dir, work)


def trash(
    directory: Path = DIRECTORY,
    restore: list[str] = typer.Option((), "--restore", metavar="ID", help="Put this back; may be repeated."),
    into: str = typer.Option("", "--into", help="Restore into this directory of the mirror, with their paths."),
    overwrite: bool = typer.Option(False, "--overwrite", help="What is in the way goes to the trash."),
    path: str = typer.Option("", "--path", help="Only what was in this directory of the mirror."),
    in_json: bool = JSON_LINES,
    data_dir: Path = DATA_DIR,
) -> None:
    """List what was replaced or deleted and is still kept, newest first; with --restore put it back.

    Exit code 1 when something could not be restored.
    """

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        if restore:
            await _restore(stub, shown, mirror.mirror_id)
            return
        request = mirror_pb2.ListTrashRequest(mirror_id=mirror.mirror_id, local_path=path, page_size=1_000)
        found = await _all_trash(stub, shown, request)
        if in_json:
            for each in found:
                print(as_json(each))
            return
        print(table(_TRASH, [_trash_row(each) for each in found]) if found else "the trash is empty")

    async def _restore(stub: "MirrorServiceAsyncStub", shown: "Credentials", mirror_id: str) -> None:
        from relayfile.v1 import mirror_pb2

        request = mirror_pb2.RestoreTrashRequest(
            mirror_id=mirror_id, trash_ids=restore, local_directory=into, overwrite=overwrite
        )
        answer = await stub.RestoreTrash(request, metadata=shown)
        failed = False
        for each in answer.results:
            failed = failed or each.HasField("failure")
            if in_json:
                print(as_json(each))
            elif each.HasField("failure"):
                print(f"{each.trash_id} stays in the trash: {each.failure.reason}: {each.failure.message}")
            else:
                print(f"{each.local_path} is back")
        if failed:
            raise typer.Exit(1)

    with_mirrors(data_dir, work)


def approve(
    directory: Path = DIRECTORY,
    plan_id: str = typer.Argument("", metavar="[PLAN]", help="The plan, as it was shown; none: show it."),
    restore: bool = typer.Option(False, "--restore", help="Of files deleted here: fetch them again instead."),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Show the plan of many deletes that halted a mirror; with its id, carry it out.

    Files that the store deleted go to the mirror's trash; files that were deleted here are deleted in the store, or
    with --restore come back. Exit code 1 when a plan waits and was only shown.
    """
    if restore and not plan_id:
        raise typer.BadParameter("name the plan whose files come back", param_hint="--restore")

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        if not plan_id:
            waits = mirror.HasField("halt") and mirror.halt.HasField("delete_plan")
            if in_json:
                print(as_json(mirror.halt.delete_plan, zeros=True) if waits else "{}")
            elif waits:
                print(_plan_text(mirror.halt.delete_plan))
                print(_ways_on(directory, mirror.halt.delete_plan))
            else:
                print("no deletes wait for a decision")
            raise typer.Exit(1 if waits else 0)
        request = mirror_pb2.ApproveDeletesRequest(
            mirror_id=mirror.mirror_id,
            plan_id=plan_id,
            decision=mirror_pb2.DELETE_DECISION_RESTORE if restore else mirror_pb2.DELETE_DECISION_APPROVE,
        )
        answer = await stub.ApproveDeletes(request, metadata=shown)
        print(as_json(answer.mirror) if in_json else f"{mirror.directory} goes on")

    with_mirrors(data_dir, work)


def wait(
    directory: Path = DIRECTORY,
    revision: int = typer.Option(0, "--revision", min=0, help="This one; 0: the one that the store has now."),
    timeout_s: float = typer.Option(60.0, "--timeout", min=0.0, help="Seconds to wait at most; 0: for ever."),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Wait until a revision is on disk. Exit code 1 when it is not in time."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find(stub, shown, directory)
        request = mirror_pb2.WaitMirrorRequest(mirror_id=mirror.mirror_id, revision=revision)
        answer = await stub.WaitMirror(request, metadata=shown, timeout=timeout_s or None)
        if in_json:
            print(as_json(answer))
            return
        counts = answer.file_counts
        listed = counts.conflict_count + counts.problem_count
        print(f"revision {answer.revision} is on disk; {verdict(answer.verdict)}; {listed} files are listed")

    with_mirrors(data_dir, work)


def rm(
    directory: Path = WHOLE_DIRECTORY,
    force: bool = typer.Option(False, "--force", help="Although edits were not sent, or conflicts are open."),
    in_json: bool = IN_JSON,
    data_dir: Path = DATA_DIR,
) -> None:
    """Forget a mirror. Its files, its trash and its kept versions stay in the directory."""

    async def work(stub: "MirrorServiceAsyncStub", shown: "Credentials") -> None:
        from relayfile.v1 import mirror_pb2

        mirror = await find_root(stub, shown, directory)
        request = mirror_pb2.DeleteMirrorRequest(mirror_id=mirror.mirror_id, force=force)
        answer = await stub.DeleteMirror(request, metadata=shown)
        if in_json:
            print(as_json(answer, zeros=True))
            return
        print(f"{answer.directory} is no mirror any more; its files stay")
        if answer.unsent_edit_count:
            print(f"{answer.unsent_edit_count} edits were never sent")

    with_mirrors(data_dir, work)


async def _all_trash(
    stub: "MirrorServiceAsyncStub", shown: "Credentials", request: "ListTrashRequest"
) -> "list[TrashEntry]":
    found: list[TrashEntry] = []
    while True:
        page = await stub.ListTrash(request, metadata=shown)
        found += page.entries
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _problem_row(problem: "MirrorProblem") -> tuple[object, ...]:
    return (
        moment(problem.create_time.ToMicroseconds()),
        problem.attempt_count,
        problem.reason,
        problem.remote_path or problem.local_path or "(the mirror)",
        problem.message,
    )


def _trash_row(entry: "TrashEntry") -> tuple[object, ...]:
    from relayfile.v1 import mirror_pb2

    why = mirror_pb2.TrashReason.Name(entry.reason).removeprefix("TRASH_REASON_").lower().replace("_", " ")
    since = moment(entry.create_time.ToMicroseconds())
    return entry.trash_id, since, why, entry.size_bytes, entry.local_path or entry.kept_path


def _ways_on(directory: Path, plan: "DeletePlan") -> str:
    from relayfile.v1 import mirror_pb2

    command = f"relayfile mirror approve {directory} {plan.plan_id}"
    text = f"`{command}` carries it out"
    return text + "; with --restore the files come back" if plan.source == mirror_pb2.DELETE_SOURCE_DIRECTORY else text


def _plan_text(plan: "DeletePlan") -> str:
    from relayfile.v1 import mirror_pb2

    where = "in the store" if plan.source == mirror_pb2.DELETE_SOURCE_DIRECTORY else "on disk"
    head = (
        f"{plan.delete_count} of {plan.tracked_count} files ({plan.delete_bytes:,} bytes) would be deleted {where} "
        f"({plan.rule.lower().replace('_', ' ')}), since {moment(plan.create_time.ToMicroseconds())}:"
    )
    lines = [head]
    lines += [f"  {path}" for path in plan.sample_remote_paths]
    if plan.delete_count > len(plan.sample_remote_paths):
        lines.append(f"  and {plan.delete_count - len(plan.sample_remote_paths)} more")
    return "\n".join(lines)
