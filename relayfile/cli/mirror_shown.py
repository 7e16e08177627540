"""How mirrors look: a line, a description, a table that changes while one looks at it."""

import sys
from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any

from relayfile.cli.shown import as_json, moment
from relayfile.cli.table import table

if TYPE_CHECKING:
    from rich.table import Table

    from relayfile.v1.mirror_pb2 import Mirror, MirrorAudit, MirrorConflict, PullResult, WatchMirrorsResponse

_HEADINGS = ("MIRROR", "WORKSPACE", "STATE", "REVISION", "FILES", "PENDING", "PROBLEMS", "CONFLICTS", "VERDICT")
_COLLIDED = {
    "BOTH_MODIFIED": "changed here and there",
    "BOTH_CREATED": "made here and there",
    "DELETED_REMOTELY": "changed here, deleted there",
    "DELETED_LOCALLY": "deleted here, changed there",
}


def verdict(value: Any) -> str:
    """A verdict in words."""
    from relayfile.v1 import mirror_pb2

    name: str = mirror_pb2.MirrorVerdict.Name(value).removeprefix("MIRROR_VERDICT_").lower().replace("_", " ")
    return "not audited" if name == "unspecified" else name


def state(mirror: "Mirror") -> str:
    """What it is doing, in a word."""
    from relayfile.v1 import mirror_pb2

    return mirror_pb2.MirrorState.Name(mirror.state).removeprefix("MIRROR_STATE_").lower()


def is_stuck(mirror: "Mirror") -> bool:
    """It waits for somebody."""
    from relayfile.v1 import mirror_pb2

    return mirror.state in (mirror_pb2.MIRROR_STATE_HALTED, mirror_pb2.MIRROR_STATE_ERROR)


def one_line(mirror: "Mirror") -> str:
    paths = " ".join(path for path in mirror.remote_paths if path != "/")
    return f"{mirror.mirror_id}  {mirror.workspace_id}{paths and ' ' + paths}  {mirror.directory}  {state(mirror)}"


def described(mirror: "Mirror") -> str:
    """A mirror in a few lines."""
    counts = mirror.file_counts
    files = (
        f"  files {counts.materialised_count} on disk, {counts.pending_count} pending, "
        f"{counts.conflict_count} in conflict, {counts.ignored_count} ignored, {counts.problem_count} problems"
    )
    newest = max(mirror.remote_revision, mirror.revision)  # who sends knows of a revision before events tell of it
    revision = f"  revision {mirror.revision} of {newest}; {verdict(mirror.verdict)}"
    lines = [one_line(mirror), revision, files]
    if mirror.HasField("token_expire_time"):
        lines.append(f"  the token expires {moment(mirror.token_expire_time.ToMicroseconds())}")
    if mirror.outbox.pending_count:
        size = f"{mirror.outbox.pending_bytes:,} bytes"
        lines.append(f"  {mirror.outbox.pending_count} edits ({size}) that the store does not have yet")
    if mirror.conflict_count:
        lines.append(f"  `relayfile mirror conflicts {mirror.directory}` lists {mirror.conflict_count} to decide about")
    if mirror.problem_count:
        lines.append(f"  `relayfile mirror problems {mirror.directory}` says what is wrong with {mirror.problem_count}")
    if mirror.trash_count:
        lines.append(f"  {mirror.trash_count} files in the trash ({mirror.trash_bytes:,} bytes)")
    if mirror.HasField("halt"):
        lines.append(f"  halted: {mirror.halt.reason}: {mirror.halt.message}")
        if mirror.halt.HasField("delete_plan"):
            lines.append(f"  `relayfile mirror approve {mirror.directory}` shows what would be deleted")
    if mirror.HasField("error"):
        lines.append(f"  error: {mirror.error.reason}: {mirror.error.message}")
    return "\n".join(lines)


def audit_line(audit: "MirrorAudit") -> str:
    line = (
        f"{verdict(audit.verdict)} at revision {audit.revision}: {audit.differing_count} differ, "
        f"{audit.listed_count} listed, {audit.sweep_changed_count} changed on disk"
    )
    if audit.verified_count:
        line += f", {audit.verified_count} read and hashed again"
    return f"{line}; {audit.wire_bytes:,} bytes on the wire"


def result_line(result: "PullResult") -> str:
    seconds = result.duration.seconds + result.duration.nanos / 1e9
    return (
        f"{result.written_count} files written ({result.written_bytes:,} bytes) in {seconds:.2f} s, "
        f"{result.unchanged_count} unchanged, {result.deleted_count} deleted, {result.problem_count} problems; "
        f"revision {result.revision}; {verdict(result.audit.verdict)}"
    )


def conflict_text(conflict: "MirrorConflict") -> str:
    """A conflict in a few lines: what collided, where either version is, and its id."""
    from relayfile.v1 import mirror_pb2

    kind = mirror_pb2.ConflictKind.Name(conflict.kind).removeprefix("CONFLICT_KIND_")
    since = moment(conflict.create_time.ToMicroseconds())
    here, there = f"{conflict.local_size_bytes:,} bytes", f"{conflict.remote_size_bytes:,} bytes"
    mine = f"{here}, {conflict.kept_path or conflict.local_path}" if conflict.local_sha256 else "deleted"
    theirs = f"{there}, {conflict.local_path}" if conflict.remote_sha256 else "deleted"
    before = f", before {conflict.base_revision}" if conflict.base_revision else ""
    return "\n".join(
        (
            f"{conflict.remote_path}  {_COLLIDED.get(kind, 'not known')}, {since}",
            f"  mine:   {mine}",
            f"  theirs: {theirs}, revision {conflict.remote_revision}{before}",
            f"  id:     {conflict.conflict_id}",
        )
    )


async def watch(messages: "AsyncIterable[WatchMirrorsResponse]", *, in_json: bool) -> None:
    """Show mirrors until the stream ends: a live table on a terminal, else a line for each change."""
    shown: dict[str, Mirror] = {}
    if in_json or not sys.stdout.isatty():
        async for message in messages:
            for mirror in message.mirrors:
                print(as_json(mirror) if in_json else _change(mirror), flush=True)
            for mirror_id in message.deleted_mirror_ids:
                print(f'{{"deleted_mirror_id": "{mirror_id}"}}' if in_json else f"{mirror_id}  forgotten", flush=True)
        return
    from rich.live import Live

    with Live(_table(()), auto_refresh=False) as live:
        async for message in messages:
            shown.update({mirror.mirror_id: mirror for mirror in message.mirrors})
            for mirror_id in message.deleted_mirror_ids:
                shown.pop(mirror_id, None)
            live.update(_table(shown.values()), refresh=True)


def plain_table(mirrors: "Iterable[Mirror]") -> str:
    """One line for each, for scripts and for people."""
    return table(_HEADINGS, [_row(mirror) for mirror in mirrors])


def _table(mirrors: "Iterable[Mirror]") -> "Table":
    from rich.table import Table

    live = Table(*_HEADINGS, box=None)
    for mirror in sorted(mirrors, key=lambda each: each.directory):
        style = "red" if is_stuck(mirror) else "yellow" if mirror.problem_count else ""
        live.add_row(*map(str, _row(mirror)), style=style)
    return live


def _change(mirror: "Mirror") -> str:
    return "  ".join(str(cell) for cell in _row(mirror))


def _row(mirror: "Mirror") -> tuple[object, ...]:
    revision = f"{mirror.revision}/{max(mirror.remote_revision, mirror.revision)}"
    files = str(mirror.file_counts.materialised_count)
    if mirror.HasField("pull_progress") and mirror.pull_progress.files_total_count:
        files = f"{mirror.pull_progress.files_done_count}/{mirror.pull_progress.files_total_count}"
    return (
        mirror.directory,
        mirror.workspace_id,
        mirror.halt.reason.lower() if mirror.HasField("halt") else state(mirror),
        revision,
        files,
        mirror.file_counts.pending_count,
        mirror.problem_count,
        mirror.file_counts.conflict_count,
        verdict(mirror.verdict),
    )
