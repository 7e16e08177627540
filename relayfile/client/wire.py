"""Messages of `relayfile.v1` to the client's values, and the way back."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2

from relayfile import errors
from relayfile.client import values
from relayfile.errors import RelayfileError
from relayfile.model import EventType, Origin
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2, writeback_pb2
from relayfile.wire import semantics_message, semantics_of


def moment(time: Timestamp) -> datetime:
    """As an aware datetime in UTC."""
    return time.ToDatetime(UTC)


def file_of(message: types_pb2.FileMeta) -> values.File:
    return values.File(
        message.path,
        message.revision,
        message.content_sha256,
        message.size_bytes,
        message.content_type,
        message.provider,
        message.provider_object_id,
        moment(message.modify_time),
        moment(message.stale_since) if message.HasField("stale_since") else None,
        Origin(message.origin),
        semantics_of(message.semantics),
    )


def totals_of(message: types_pb2.TreeTotals) -> values.Totals:
    return values.Totals(message.file_count, message.total_bytes, message.digest)


def directory_of(message: file_pb2.DirectoryMeta) -> values.Directory:
    return values.Directory(message.path, totals_of(message.totals), message.revision, message.entry_count)


def entry_of(message: file_pb2.TreeEntry) -> values.File | values.Directory:
    return directory_of(message.directory) if message.HasField("directory") else file_of(message.file)


def event_of(message: event_pb2.Event) -> values.Event:
    return values.Event(
        message.revision,
        EventType(message.type),
        message.path,
        message.moved_to,
        message.moved_from,
        message.content_sha256,
        message.size_bytes,
        Origin(message.origin),
        message.provider,
        message.correlation_id,
        message.traceparent,
        moment(message.event_time),
        message.operation_id,
    )


def event_filter(chosen: values.EventFilter) -> event_pb2.EventFilter:
    return event_pb2.EventFilter(
        path_globs=chosen.path_globs,
        providers=chosen.providers,
        types=[event_pb2.EventType.ValueType(each) for each in chosen.types],
        origins=[types_pb2.Origin.ValueType(each) for each in chosen.origins],
    )


def workspace_of(message: workspace_pb2.Workspace) -> values.WorkspaceInfo:
    return values.WorkspaceInfo(
        message.workspace_id,
        values.Cursor(message.revision, message.history_id),
        totals_of(message.totals),
        values.Quota(message.quota.files_max, message.quota.total_bytes_max),
        moment(message.create_time),
        moment(message.modify_time) if message.HasField("modify_time") else None,
        moment(message.delete_time) if message.HasField("delete_time") else None,
    )


def sendable(path: str, field: str = "path") -> str:
    """`path`, which a message can carry; `InvalidPath` when UTF-8 cannot write it. The rest the node checks."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise errors.InvalidPath(path=path, why="is not valid UTF-8 (a lone surrogate)", field=field) from None
    return path


def item_message(item: values.Write | values.Delete | values.Move) -> file_pb2.WriteFilesItem:
    message = file_pb2.WriteFilesItem(if_revision=item.if_revision)
    match item:
        case values.Write():
            semantics = None if item.semantics is None else semantics_message(item.semantics)
            message.write.CopyFrom(
                file_pb2.WriteItem(
                    path=sendable(item.path), content=item.content, content_type=item.content_type, semantics=semantics
                )
            )
        case values.Delete():
            message.delete.path = sendable(item.path)
        case values.Move():
            message.move.CopyFrom(
                file_pb2.MoveItem(path=sendable(item.path), to_path=sendable(item.to_path, "to_path"))
            )
    return message


def item_result(
    item: values.Write | values.Delete | values.Move, message: file_pb2.WriteFilesResult
) -> values.ItemResult:
    error = None if message.code == code_pb2.OK else _item_error(item, message)
    file = file_of(message.file) if message.HasField("file") else None
    return values.ItemResult(error, file, message.changed, message.operation_id)


def _item_error(item: values.Write | values.Delete | values.Move, message: file_pb2.WriteFilesResult) -> RelayfileError:
    kind = next((each for each in errors.ERRORS if each.reason == message.reason), None)
    if kind is errors.RevisionConflict:
        return errors.RevisionConflict(expected=item.if_revision or 0, current=message.current_revision)
    if kind is not None:
        rebuilt = kind.from_metadata({"path": item.path})
        rebuilt.args = (message.message,)
        return rebuilt
    return errors.PeerFailed(code=code_pb2.Code.Name(code_pb2.Code.ValueType(message.code)), detail=message.message)


def operation_of(message: writeback_pb2.Operation) -> values.Operation:
    failed = message.last_failure
    return values.Operation(
        message.operation_id,
        message.workspace_id,
        message.provider,
        message.provider_object_id,
        values.OperationKind(message.kind),
        values.OperationState(message.state),
        message.path,
        message.moved_from,
        message.draft,
        message.revision,
        message.content_sha256,
        message.size_bytes,
        message.content_type,
        semantics_of(message.semantics),
        message.claim_number,
        message.claimed_by,
        message.attempt_count,
        f"{failed.reason}: {failed.message}" if message.HasField("last_failure") else "",
        message.actor,
        message.correlation_id,
        moment(message.create_time),
        moment(message.claimable_time) if message.HasField("claimable_time") else None,
        moment(message.end_time) if message.HasField("end_time") else None,
    )


def claim_of(message: writeback_pb2.ClaimedOperation) -> values.Claim:
    return values.Claim(
        operation_of(message.operation),
        message.claim_number,
        message.idempotency_key,
        moment(message.expire_time),
        message.content,
        message.content_omitted,
    )
