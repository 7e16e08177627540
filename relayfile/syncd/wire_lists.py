"""Between `relayfile.v1` messages and what a mirror lists: its problems, and its trash."""

import hashlib

from relayfile.errors import FieldViolation, InvalidArgument
from relayfile.page_token import seal, unseal
from relayfile.paths import ROOT, check_write_path, normalise
from relayfile.syncd import names
from relayfile.syncd.journal_outbox import NEVER_US
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.restore import Restored
from relayfile.syncd.rows import FileRow, FileState, Problem, TrashReason
from relayfile.syncd.trash import TrashEntry
from relayfile.syncd.wire import timestamp
from relayfile.v1 import mirror_pb2, types_pb2

REASON_CHARACTERS_MAX = 64
RESTORE_MAX = 1_000
_MESSAGE_CHARACTERS_MAX = 1_000
_ID_HEX = 32
_ENDED_BY_OTHERS = frozenset({"WRITEBACK_FAILED"})
_BETWEEN = "\0"
"""Between the parts of a page's position: stands in no path and no reason."""


def remote_directory(raw: str) -> str:
    """A filter by remote directory; empty is all. ``InvalidArgument`` for what names none."""
    path = normalise(raw)
    why = None if path == ROOT else check_write_path(path)
    if why is not None:
        raise InvalidArgument.of("remote_path", why)
    return path


def local_directory(raw: str, field: str) -> str:
    """A directory of the mirror, relative to it and without slashes around; empty: the mirror's own.

    ``InvalidArgument`` for what names none, or leads out of it.
    """
    relative = raw.strip("/")
    why = check_write_path("/" + relative) if relative else None
    if raw.startswith("/"):
        why = "is absolute; name it as seen from the mirror's directory"
    if why is not None:
        raise InvalidArgument.of(field, why)
    return relative


def problems_start(request: mirror_pb2.ListProblemsRequest) -> tuple[str, str] | None:
    """Path and reason after which a page begins."""
    position = unseal(_problems_binding(request), request.page_token)
    if not position:
        return None
    path, _, reason = position.partition(_BETWEEN)
    return path, reason


def problems_token(request: mirror_pb2.ListProblemsRequest, last: Problem) -> str:
    """Continues a list after ``last``; good for the same other fields only."""
    return seal(_problems_binding(request), f"{last.path}{_BETWEEN}{last.reason}")


def _problems_binding(request: mirror_pb2.ListProblemsRequest) -> tuple[str, ...]:
    return ("ListProblems", request.mirror_id, request.reason, remote_directory(request.remote_path))


def next_attempt_us(problem: Problem, row: FileRow | None, send_us: int | None, cycle_us: int) -> int:
    """When a problem may end by itself; 0: something else must happen first.

    ``row`` is the file's, ``send_us`` when its edit is sent again, ``cycle_us`` the next cycle of the mirror, 0: it has
    none.
    """
    if not cycle_us or problem.reason in _ENDED_BY_OTHERS:
        return 0
    if send_us is not None:
        return send_us if send_us < NEVER_US else 0
    tried = row is not None and row.state is FileState.PROBLEM and names.refusal(row.path) is None
    return cycle_us if tried or not problem.path else 0


def problem_message(problem: Problem, disk_path: str, next_us: int = 0) -> mirror_pb2.MirrorProblem:
    """A problem. ``disk_path`` where that differs; a problem of what only the disk has names its place as its path."""
    is_remote = problem.path.startswith("/")
    identity = f"{problem.path}{_BETWEEN}{problem.reason}".encode()
    message = mirror_pb2.MirrorProblem(
        problem_id=hashlib.sha256(identity).hexdigest()[:_ID_HEX],
        reason=problem.reason,
        message=problem.message[:_MESSAGE_CHARACTERS_MAX],
        remote_path=problem.path if is_remote else "",
        local_path=disk_path or problem.path.removeprefix("/"),
        revision=problem.revision,
        create_time=timestamp(problem.create_time_us),
        last_attempt_time=timestamp(problem.attempt_time_us or problem.create_time_us),
        attempt_count=problem.attempt_count,
    )
    if next_us:
        message.next_attempt_time.CopyFrom(timestamp(next_us))
    return message


def trash_start(request: mirror_pb2.ListTrashRequest) -> tuple[int, str] | None:
    """Time and id before which a page begins."""
    position = unseal(_trash_binding(request), request.page_token)
    if not position:
        return None
    create_us, _, trash_id = position.partition(_BETWEEN)
    return int(create_us), trash_id


def trash_token(request: mirror_pb2.ListTrashRequest, last: TrashEntry) -> str:
    """Continues a list after ``last``; good for the same other fields only."""
    return seal(_trash_binding(request), f"{last.create_time_us}{_BETWEEN}{last.trash_id}")


def _trash_binding(request: mirror_pb2.ListTrashRequest) -> tuple[str, ...]:
    directory = local_directory(request.local_path, "local_path")
    return ("ListTrash", request.mirror_id, directory, str(request.reason))


def trash_reason(value: int) -> TrashReason | None:
    """A filter by reason; None is any. ``InvalidArgument`` for a number that this version does not know."""
    try:
        return TrashReason(value) if value else None
    except ValueError:
        raise InvalidArgument.of("reason", f"is {value}, which is not known") from None


def trash_message(entry: TrashEntry, mirror: OpenMirror) -> mirror_pb2.TrashEntry:
    """A file in the trash."""
    message = mirror_pb2.TrashEntry(
        trash_id=entry.trash_id,
        reason=mirror_pb2.TrashReason.ValueType(int(entry.reason)),
        remote_path=entry.path,
        local_path=entry.disk_path,
        kept_path=f".relayfile/trash/{entry.name}",
        content_sha256=entry.content_hash,
        size_bytes=entry.size,
        revision=entry.revision,
        acknowledged=entry.acknowledged,
        create_time=timestamp(entry.create_time_us),
    )
    if entry.acknowledged:
        kept_us = round(mirror.settings.trash_retention_s * 1_000_000)
        message.expire_time.CopyFrom(timestamp(entry.create_time_us + kept_us))
    return message


def check_reason(reason: str) -> list[FieldViolation]:
    """What is wrong with a problem's reason as a filter, if anything is."""
    if len(reason) > REASON_CHARACTERS_MAX:
        return [FieldViolation("reason", f"has more than {REASON_CHARACTERS_MAX} characters")]
    return []


def check_decision(request: mirror_pb2.ApproveDeletesRequest) -> list[FieldViolation]:
    """What is wrong with a decision about deletes, if anything is."""
    wrong: list[FieldViolation] = []
    if not request.plan_id:
        wrong.append(FieldViolation("plan_id", "is required"))
    if request.decision not in (mirror_pb2.DELETE_DECISION_APPROVE, mirror_pb2.DELETE_DECISION_RESTORE):
        wrong.append(FieldViolation("decision", "is required"))
    return wrong


def check_restore(request: mirror_pb2.RestoreTrashRequest) -> list[FieldViolation]:
    """What is wrong with what is to be restored, if anything is."""
    wrong: list[FieldViolation] = []
    if not request.trash_ids:
        wrong.append(FieldViolation("trash_ids", "is required"))
    if len(request.trash_ids) > RESTORE_MAX:
        wrong.append(FieldViolation("trash_ids", f"has more than {RESTORE_MAX} entries"))
    try:
        local_directory(request.local_directory, "local_directory")
    except InvalidArgument as error:
        wrong += error.violations
    return wrong


def restored_message(restored: Restored) -> mirror_pb2.RestoreResult:
    """How restoring one entry ended."""
    message = mirror_pb2.RestoreResult(trash_id=restored.trash_id, local_path=restored.disk_path)
    if restored.failure is not None:
        reason, text = restored.failure
        message.failure.CopyFrom(types_pb2.Failure(reason=reason, message=text))
    return message
