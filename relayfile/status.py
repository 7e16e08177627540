"""Errors to gRPC status and back: one table, one stage. Nothing else ends a call with a status.

Every status that we make carries one ``google.rpc.ErrorInfo`` (domain ``relayfile.dev``, its reason and fields),
``BadRequest`` for invalid fields, and ``RetryInfo`` whenever the code invites another attempt. The whole stays small,
because trailers above 8 KiB break. A failure that is not one of ours becomes ``INTERNAL`` with its text hidden, and is
logged with its correlation id.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import grpc
import grpc.aio
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from relayfile import errors
from relayfile.errors import ERRORS, FieldViolation, InvalidArgument, InvalidPath, PeerFailed, RelayfileError
from relayfile.interception import Call

DOMAIN = "relayfile.dev"
DETAILS_KEY = "grpc-status-details-bin"
RETRY_AFTER_DEFAULT_S = 1.0
STATUS_BYTES_MAX = 5_000
"""Size of a serialised status; base64 makes a third more of it, and a trailer must stay under 8 KiB."""
_MESSAGE_BYTES_MAX = 300
_VALUE_BYTES_MAX = 512
_PREVIEW_KEY = "preview"
_PREVIEW_BYTES_MAX = 1_000
_VIOLATIONS_BYTES_MAX = 3_000

_Code = grpc.StatusCode
CODES: Mapping[type[RelayfileError], grpc.StatusCode] = {
    errors.InvalidArgument: _Code.INVALID_ARGUMENT,
    errors.InvalidPath: _Code.INVALID_ARGUMENT,
    errors.PageTokenInvalid: _Code.INVALID_ARGUMENT,
    errors.TooLarge: _Code.INVALID_ARGUMENT,
    errors.WorkspaceNotFound: _Code.NOT_FOUND,
    errors.WorkspaceAlreadyExists: _Code.ALREADY_EXISTS,
    errors.BackupExists: _Code.ALREADY_EXISTS,
    errors.ConflictNotFound: _Code.NOT_FOUND,
    errors.WorkspaceDeleted: _Code.FAILED_PRECONDITION,
    errors.FileNotFound: _Code.NOT_FOUND,
    errors.ProviderNotFound: _Code.NOT_FOUND,
    errors.AppNotFound: _Code.NOT_FOUND,
    errors.DeadLetterNotFound: _Code.NOT_FOUND,
    errors.OperationNotFound: _Code.NOT_FOUND,
    errors.RouteNotFound: _Code.NOT_FOUND,
    errors.MirrorNotFound: _Code.NOT_FOUND,
    errors.MirrorAlreadyExists: _Code.ALREADY_EXISTS,
    errors.RequestIdReused: _Code.ALREADY_EXISTS,
    errors.RevisionConflict: _Code.ABORTED,
    errors.PreconditionRequired: _Code.FAILED_PRECONDITION,
    errors.HistoryMismatch: _Code.FAILED_PRECONDITION,
    errors.DeadLetterReplaying: _Code.FAILED_PRECONDITION,
    errors.MirrorRefused: _Code.FAILED_PRECONDITION,
    errors.UnsentEdits: _Code.FAILED_PRECONDITION,
    errors.PlanChanged: _Code.ABORTED,
    errors.NotOwner: _Code.FAILED_PRECONDITION,
    errors.PlacementStatic: _Code.FAILED_PRECONDITION,
    errors.ProxyLoop: _Code.UNAVAILABLE,
    errors.ClaimExpired: _Code.FAILED_PRECONDITION,
    errors.OperationNotDeadLettered: _Code.FAILED_PRECONDITION,
    errors.OperationContentGone: _Code.FAILED_PRECONDITION,
    errors.CursorExpired: _Code.OUT_OF_RANGE,
    errors.Unauthenticated: _Code.UNAUTHENTICATED,
    errors.PermissionDenied: _Code.PERMISSION_DENIED,
    errors.Overloaded: _Code.RESOURCE_EXHAUSTED,
    errors.DeadLettersFull: _Code.RESOURCE_EXHAUSTED,
    errors.QuotaExceeded: _Code.RESOURCE_EXHAUSTED,
    errors.RateLimited: _Code.RESOURCE_EXHAUSTED,
    errors.ExportRefused: _Code.RESOURCE_EXHAUSTED,
    errors.Unavailable: _Code.UNAVAILABLE,
    errors.PullStalled: _Code.UNAVAILABLE,
    errors.Draining: _Code.UNAVAILABLE,
    errors.Paused: _Code.UNAVAILABLE,
    errors.DeadlineExpired: _Code.DEADLINE_EXCEEDED,
    errors.ServedLater: _Code.UNIMPLEMENTED,
    errors.DataCorrupted: _Code.DATA_LOSS,
    errors.StorageFailed: _Code.UNAVAILABLE,
    errors.StartRefused: _Code.FAILED_PRECONDITION,
    errors.SettingError: _Code.FAILED_PRECONDITION,
    errors.PeerFailed: _Code.INTERNAL,
}
RETRYABLE = frozenset({_Code.UNAVAILABLE, _Code.RESOURCE_EXHAUSTED})
_BY_REASON: Mapping[str, type[RelayfileError]] = {kind.reason: kind for kind in ERRORS}
_log = logging.getLogger(__name__)


def code_of(error: RelayfileError) -> grpc.StatusCode:
    """The gRPC code of an error; that of a peer's failure is the peer's own. A class outside the table is INTERNAL."""
    if isinstance(error, PeerFailed):
        return getattr(_Code, error.code, _Code.INTERNAL)
    return next((CODES[kind] for kind in type(error).__mro__ if kind in CODES), _Code.INTERNAL)


def to_status(error: RelayfileError) -> status_pb2.Status:
    """The rich status of ``error``, at most ``STATUS_BYTES_MAX`` bytes when serialised."""
    code = code_of(error)
    status = status_pb2.Status(code=code.value[0], message=_clip(str(error), _MESSAGE_BYTES_MAX))
    metadata = {
        key: _clip(value, _PREVIEW_BYTES_MAX if key == _PREVIEW_KEY else _VALUE_BYTES_MAX)
        for key, value in error.metadata().items()
    }
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, InvalidArgument):
        status.details.add().Pack(_bad_request(error.violations))
    elif isinstance(error, InvalidPath):
        status.details.add().Pack(_bad_request([FieldViolation(error.field, f"{error.path!r} {error.why}")]))
    if code in RETRYABLE:
        seconds = getattr(error, "retry_after_s", RETRY_AFTER_DEFAULT_S)
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(max(1, round(seconds * 1000)))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def internal_status(correlation_id: str) -> status_pb2.Status:
    """What a caller learns of a failure that is not one of ours: where to look for it, and nothing else."""
    status = status_pb2.Status(
        code=_Code.INTERNAL.value[0], message=f"internal error (correlation id {correlation_id})"
    )
    info = error_details_pb2.ErrorInfo(
        reason=RelayfileError.reason, domain=DOMAIN, metadata={"correlation_id": correlation_id}
    )
    status.details.add().Pack(info)
    return status


ANSWER_LOST = "Internal error from Core"
"""What grpc.aio puts in the place of a peer's status that comes while a message is being sent (grpc/grpc#36066)."""


def from_rpc_error(error: grpc.aio.AioRpcError) -> RelayfileError:
    """The error that a peer of ours described; otherwise what gRPC says about reaching it, as an error of ours."""
    status = _rich_status(error)
    if status is not None:
        info = error_details_pb2.ErrorInfo()
        for detail in status.details:
            if detail.Unpack(info) and info.domain == DOMAIN and info.reason in _BY_REASON:
                return _rebuild(_BY_REASON[info.reason], dict(info.metadata), status)
    text = error.details() or ""
    if error.code() is _Code.UNAVAILABLE:
        return errors.Unavailable(what=f"peer ({text})", retry_after_s=RETRY_AFTER_DEFAULT_S)
    if error.code() is _Code.DEADLINE_EXCEEDED:
        return errors.DeadlineExpired(what="the peer's answer")
    if error.code() is _Code.INTERNAL and text == ANSWER_LOST:
        return errors.Unavailable(
            what="peer (it ended the call while a message was being sent to it; its answer is lost)",
            retry_after_s=RETRY_AFTER_DEFAULT_S,
        )
    return PeerFailed(code=error.code().name, detail=text)


@asynccontextmanager
async def error_stage(call: Call) -> AsyncIterator[None]:
    """The stage that turns what a handler raises into the call's status. Cancellation passes."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except grpc.aio.InternalError as lost:
        # gRPC could not carry a message of this call: its client has gone, and nobody is there to be answered.
        raise asyncio.CancelledError from lost
    except Exception as raised:  # noqa: BLE001 - the one place where every failure of a call ends
        status = _ended_as(call, raised)
    else:
        return
    # Out of there: with a failure in a variable, all that its traceback leads to would wait for the cyclic collector.
    await _abort(call, status)


def _ended_as(call: Call, raised: Exception) -> status_pb2.Status:
    error = leading_error(raised)
    if error is not None:
        return to_status(error)
    _log.error("call failed: %s", call.method, exc_info=raised, extra={"correlation_id": call.correlation_id})
    return internal_status(call.correlation_id)


def leading_error(raised: BaseException) -> RelayfileError | None:
    """The error of ours that ``raised`` is or, from a TaskGroup, contains first; a peer's status is read. Else None."""
    if isinstance(raised, RelayfileError):
        return raised
    if isinstance(raised, grpc.aio.AioRpcError):
        return from_rpc_error(raised)
    if isinstance(raised, BaseExceptionGroup):
        return next((found for each in raised.exceptions if (found := leading_error(each)) is not None), None)
    return None


async def _abort(call: Call, status: status_pb2.Status) -> None:
    code = next(code for code in _Code if code.value[0] == status.code)
    trailing = (*(call.context.trailing_metadata() or ()), (DETAILS_KEY, status.SerializeToString()))
    await call.context.abort(code, status.message, trailing)


def _bad_request(violations: Iterable[FieldViolation]) -> error_details_pb2.BadRequest:
    request = error_details_pb2.BadRequest()
    for violation in violations:
        request.field_violations.add(
            field=_clip(violation.field, _VALUE_BYTES_MAX), description=_clip(violation.description, _VALUE_BYTES_MAX)
        )
        if request.ByteSize() > _VIOLATIONS_BYTES_MAX:
            del request.field_violations[-1]
            break
    return request


def _rebuild(kind: type[RelayfileError], metadata: Mapping[str, str], status: status_pb2.Status) -> RelayfileError:
    if kind is not InvalidArgument:
        return kind.from_metadata(metadata)
    request = error_details_pb2.BadRequest()
    found = any(detail.Unpack(request) for detail in status.details)
    violations = [FieldViolation(each.field, each.description) for each in request.field_violations] if found else []
    total = metadata.get("violations", "")
    return InvalidArgument(
        violations or [FieldViolation("request", status.message)], total=int(total) if total.isdigit() else None
    )


def _rich_status(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    try:
        found: status_pb2.Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # what it reads, it has
        return found
    except ValueError:
        return None  # details that contradict the status: what gRPC says is what counts


def _clip(text: str, bytes_max: int) -> str:
    raw = text.encode(errors="replace")
    return raw.decode() if len(raw) <= bytes_max else raw[: bytes_max - 3].decode(errors="ignore") + "..."
