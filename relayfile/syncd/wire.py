"""Between `relayfile.v1` messages of `MirrorService` and syncd's values: validated here and nowhere else."""

import os

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from relayfile.errors import FieldViolation, InvalidArgument
from relayfile.page_token import seal, unseal
from relayfile.paths import ROOT, check_write_path, contains, normalise
from relayfile.placement import check_any_workspace_id
from relayfile.syncd.answers import check_request_id
from relayfile.syncd.audits import policy_of
from relayfile.syncd.cadence import OFF, Cadence, full_pull_in
from relayfile.syncd.digest import TreeSum
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.rows import FileState
from relayfile.syncd.shown import Audited, Halt, MirrorRecord
from relayfile.v1 import mirror_pb2, types_pb2

REMOTE_PATHS_MAX = 64
_MESSAGE_CHARACTERS_MAX = 1_000


def wanted_mirror(request: mirror_pb2.CreateMirrorRequest) -> MirrorRecord:
    """The mirror that is asked for, without id and time. ``InvalidArgument`` names every field at fault."""
    violations: list[FieldViolation] = []
    why = check_any_workspace_id(request.workspace_id)
    if why is not None:
        violations.append(FieldViolation("workspace_id", why))
    directory = request.directory
    if not os.path.isabs(directory) or "\0" in directory:
        violations.append(FieldViolation("directory", "must be an absolute path"))
    paths = sorted({normalise(path) for path in request.remote_paths}) or [ROOT]
    if len(paths) > REMOTE_PATHS_MAX:
        violations.append(FieldViolation("remote_paths", f"has more than {REMOTE_PATHS_MAX} entries"))
    for index, path in enumerate(paths[:REMOTE_PATHS_MAX]):
        refused = None if path == "/" else check_write_path(path)
        if refused is not None:
            violations.append(FieldViolation(f"remote_paths[{index}]", refused))
        if any(other != path and contains(other, path) for other in paths):
            violations.append(FieldViolation(f"remote_paths[{index}]", f"{path!r} is inside another one"))
    if request.token_file and not os.path.isabs(request.token_file):
        violations.append(FieldViolation("token_file", "must be an absolute path"))
    violations += check_request_id(request.request_id)
    if violations:
        raise InvalidArgument(violations)
    return MirrorRecord(
        "",
        request.workspace_id,
        os.path.normpath(directory),
        tuple(paths),
        request.follow,
        request.read_only,
        request.token_file,
        0,
    )


def page_token(request: mirror_pb2.ListMirrorsRequest, last_id: str) -> str:
    """Continues a list after ``last_id``; good for the same other fields only."""
    return seal(_list_binding(request), last_id)


def page_start(request: mirror_pb2.ListMirrorsRequest) -> str:
    """The id after which a page begins; ``PageTokenInvalid`` for a token of another request."""
    return unseal(_list_binding(request), request.page_token)


def _list_binding(request: mirror_pb2.ListMirrorsRequest) -> tuple[str, ...]:
    return ("ListMirrors", request.workspace_id, request.directory)


def via_of(value: int) -> Via:
    """How content is to come; ``InvalidArgument`` for a number that this version does not know."""
    try:
        return Via(value)
    except ValueError:
        raise InvalidArgument.of("via", f"is {value}, which is not known") from None


def mirror_message(mirror: Mirror) -> mirror_pb2.Mirror:
    """A mirror as it is now."""
    record, seen = mirror.record, mirror.seen
    message = mirror_pb2.Mirror(
        mirror_id=record.mirror_id,
        workspace_id=record.workspace_id,
        directory=record.directory,
        remote_paths=record.remote_paths,
        follow=record.follow,
        read_only=record.read_only or (mirror.opened is not None and mirror.opened.rights.refused),
        token_file=record.token_file,
        state=mirror_pb2.MirrorState.ValueType(int(seen.state)),
        remote_revision=seen.remote_revision,
        create_time=timestamp(record.create_time_us),
        full_pull_due_cycles=OFF,
    )
    if seen.fresh_time_us:
        message.fresh_time.CopyFrom(timestamp(seen.fresh_time_us))
    if mirror.progress is not None:
        message.pull_progress.CopyFrom(progress_message(mirror.progress, mirror.progress.last, 0))
    if seen.halt is not None:
        message.halt.CopyFrom(_halt_message(seen.halt))
    if seen.error is not None:
        message.error.CopyFrom(
            types_pb2.Failure(reason=seen.error.reason, message=str(seen.error)[:_MESSAGE_CHARACTERS_MAX])
        )
    if seen.audited is not None:
        message.verdict = mirror_pb2.MirrorVerdict.ValueType(int(seen.audited.result.verdict))
        message.last_audit.CopyFrom(audit_message(seen.audited, seen.sweep_time_us))
    if mirror.opened is not None:
        _fill_from_journal(message, mirror.opened, mirror.cadence)
    return message


def _fill_from_journal(message: mirror_pb2.Mirror, mirror: OpenMirror, cadence: Cadence) -> None:
    journal = mirror.journal
    message.revision = journal.cursor.revision
    message.history_id = journal.cursor.history_id
    message.file_counts.CopyFrom(file_counts(mirror))
    message.problem_count = journal.problems.total()
    message.trash_count, message.trash_bytes = journal.trash.totals()
    if mirror.token is not None and (expires_us := mirror.token.expire_time_us()):
        message.token_expire_time.CopyFrom(timestamp(expires_us))
    message.full_pull_due_cycles = full_pull_in(policy_of(mirror.settings), cadence)
    message.conflict_count = journal.conflicts.count()
    message.outbox.CopyFrom(_outbox_message(mirror))
    last_us, full_us = journal.last_pulls_us()
    if last_us:
        message.last_pull_time.CopyFrom(timestamp(last_us))
    if full_us:
        message.last_full_pull_time.CopyFrom(timestamp(full_us))


def _outbox_message(mirror: OpenMirror) -> mirror_pb2.MirrorOutbox:
    totals = mirror.journal.outbox.totals()
    message = mirror_pb2.MirrorOutbox(pending_count=totals.pending_count, pending_bytes=totals.pending_bytes)
    if totals.oldest_us:
        message.oldest_time.CopyFrom(timestamp(totals.oldest_us))
    if totals.last_acknowledged_us:
        message.last_acknowledged_time.CopyFrom(timestamp(totals.last_acknowledged_us))
    return message


def file_counts(mirror: OpenMirror) -> mirror_pb2.MirrorFileCounts:
    """Files by how they are on disk."""
    unsettled = mirror.journal.unsettled()
    files = unsettled.files
    in_conflict = mirror.journal.conflicts.files()
    tracked = sum(total.file_count for total in mirror.journal.sums.values())
    size = sum(total.total_bytes for total in mirror.journal.sums.values())
    return mirror_pb2.MirrorFileCounts(
        tracked_count=tracked,
        materialised_count=tracked - sum(files.values()) - in_conflict,
        pending_count=files.get(FileState.PENDING, 0) + files.get(FileState.OUTGOING, 0),
        conflict_count=in_conflict,
        ignored_count=files.get(FileState.IGNORED, 0),
        problem_count=files.get(FileState.PROBLEM, 0),
        materialised_bytes=size - unsettled.total_bytes,
    )


def progress_message(progress: Progress, now: float, problem_count: int) -> mirror_pb2.PullProgress:
    """How far a pull is at ``now`` (monotonic seconds)."""
    files_per_second, bytes_per_second = progress.rate()
    return mirror_pb2.PullProgress(
        phase=mirror_pb2.PullPhase.ValueType(int(progress.phase)),
        via=mirror_pb2.PullVia.ValueType(int(progress.via)),
        files_done_count=progress.done[0],
        files_total_count=progress.total[0],
        done_bytes=progress.done[1],
        total_bytes=progress.total[1],
        files_per_second=files_per_second,
        bytes_per_second=bytes_per_second,
        elapsed=duration(now - progress.started),
        files_reused_count=progress.reused_count,
        problem_count=problem_count,
        start_revision=progress.start_revision,
        resumed=progress.resumed,
    )


def result_message(mirror: Mirror, progress: Progress, now: float) -> mirror_pb2.PullResult:
    """What a pull that ended well did."""
    message = mirror_pb2.PullResult(
        via=mirror_pb2.PullVia.ValueType(int(progress.via)),
        fallback_reason=progress.fallback_reason[:_MESSAGE_CHARACTERS_MAX],
        written_count=progress.written[0],
        written_bytes=progress.written[1],
        deleted_count=progress.deleted_count,
        wire_bytes=progress.wire_bytes,
        duration=duration(now - progress.started),
    )
    if mirror.seen.audited is not None:
        message.audit.CopyFrom(audit_message(mirror.seen.audited, mirror.seen.sweep_time_us))
    if mirror.opened is not None:
        journal = mirror.opened.journal
        message.revision = journal.cursor.revision
        message.history_id = journal.cursor.history_id
        message.problem_count = journal.problems.count()
        counts = file_counts(mirror.opened)
        message.unchanged_count = max(0, counts.materialised_count - progress.written[0])
    return message


def audit_message(audited: Audited, sweep_time_us: int) -> mirror_pb2.MirrorAudit:
    """A comparison."""
    result = audited.result
    message = mirror_pb2.MirrorAudit(
        verdict=mirror_pb2.MirrorVerdict.ValueType(int(result.verdict)),
        equal=result.equal,
        differing_count=result.differing_count,
        listed_count=result.listed_count,
        revision=result.at.revision,
        history_id=result.at.history_id,
        roots=[
            mirror_pb2.MirrorAuditRoot(
                remote_path=root.path,
                remote_totals=_totals(root.remote),
                local_totals=_totals(root.local),
                equal=root.remote == root.local,
                partial=root.partial,
            )
            for root in result.roots
        ],
        wire_bytes=audited.wire_bytes,
        start_time=timestamp(audited.start_us),
        duration=duration(audited.duration_s),
    )
    if sweep_time_us:
        message.sweep_time.CopyFrom(timestamp(sweep_time_us))
    if audited.swept is not None:
        message.verified_count = audited.swept.verified_count
        message.sweep_changed_count = result.unsent_count
    if audited.differing is not None:
        message.differing_count = audited.differing.count
        message.repaired_count = audited.differing.repaired_count
    return message


def timestamp(us: int) -> Timestamp:
    """Unix microseconds as a message."""
    message = Timestamp()
    message.FromMicroseconds(us)
    return message


def duration(seconds: float) -> Duration:
    """Seconds as a message; never negative."""
    message = Duration()
    message.FromMicroseconds(max(0, round(seconds * 1e6)))
    return message


def _totals(total: TreeSum) -> types_pb2.TreeTotals:
    return types_pb2.TreeTotals(file_count=total.file_count, total_bytes=total.total_bytes, digest=total.digest_bytes())


def _halt_message(halt: Halt) -> mirror_pb2.MirrorHalt:
    message = mirror_pb2.MirrorHalt(
        reason=halt.reason, message=halt.message[:_MESSAGE_CHARACTERS_MAX], halt_time=timestamp(halt.time_us)
    )
    if halt.plan is not None:
        message.delete_plan.CopyFrom(
            mirror_pb2.DeletePlan(
                plan_id=halt.plan.plan_id,
                source=mirror_pb2.DELETE_SOURCE_DIRECTORY
                if halt.plan.from_directory
                else mirror_pb2.DELETE_SOURCE_STORE,
                delete_count=halt.plan.delete_count,
                delete_bytes=halt.plan.delete_bytes,
                tracked_count=halt.plan.tracked_count,
                rule=halt.plan.rule,
                sample_remote_paths=halt.plan.sample_paths,
                create_time=timestamp(halt.time_us),
            )
        )
    return message
