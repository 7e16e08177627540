"""Between `relayfile.v1` messages and the conflicts of a mirror."""

from relayfile.errors import FieldViolation, InvalidArgument
from relayfile.page_token import seal, unseal
from relayfile.syncd.rows import Conflict
from relayfile.syncd.wire import timestamp
from relayfile.syncd.wire_lists import remote_directory
from relayfile.v1 import mirror_pb2

_BETWEEN = "\0"
"""Between the parts of a page's position: stands in no path and no id."""


def conflicts_start(request: mirror_pb2.ListConflictsRequest) -> tuple[str, str]:
    """Path and id after which a page begins."""
    path, _, conflict_id = unseal(_binding(request), request.page_token).partition(_BETWEEN)
    return path, conflict_id


def conflicts_token(request: mirror_pb2.ListConflictsRequest, last: Conflict) -> str:
    """Continues a list after ``last``; good for the same other fields only."""
    return seal(_binding(request), f"{last.path}{_BETWEEN}{last.conflict_id}")


def _binding(request: mirror_pb2.ListConflictsRequest) -> tuple[str, ...]:
    return ("ListConflicts", request.mirror_id, remote_directory(request.remote_path))


def conflict_message(conflict: Conflict) -> mirror_pb2.MirrorConflict:
    """A conflict."""
    return mirror_pb2.MirrorConflict(
        conflict_id=conflict.conflict_id,
        kind=mirror_pb2.ConflictKind.ValueType(int(conflict.kind)),
        remote_path=conflict.path,
        local_path=conflict.disk_path,
        kept_path=f".relayfile/conflicts/{conflict.kept_name}" if conflict.kept_name else "",
        base_revision=conflict.base_revision,
        remote_revision=conflict.remote_revision,
        remote_sha256=conflict.remote_hash,
        remote_size_bytes=conflict.remote_size,
        local_sha256=conflict.local_hash,
        local_size_bytes=conflict.local_size,
        create_time=timestamp(conflict.create_time_us),
    )


def check_resolve(request: mirror_pb2.ResolveConflictRequest) -> list[FieldViolation]:
    """What is wrong with what is to be resolved, if anything is."""
    wrong: list[FieldViolation] = []
    if not request.conflict_id and not request.all_in_remote_path:
        wrong.append(FieldViolation("conflict_id", "or all_in_remote_path is required"))
    if request.choice not in (mirror_pb2.CONFLICT_CHOICE_MINE, mirror_pb2.CONFLICT_CHOICE_THEIRS):
        wrong.append(FieldViolation("choice", "is required"))
    if request.all_in_remote_path:
        try:
            remote_directory(request.all_in_remote_path)
        except InvalidArgument as error:
            wrong += [FieldViolation("all_in_remote_path", each.description) for each in error.violations]
    return wrong
