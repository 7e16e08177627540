"""Operations as messages of `relayfile.v1`, and requests about them as values.

Owns the way from a row to its message, the checks of what a request says, and how a worker's answer is read. Refuses to
decide anything.
"""

from typing import Final

from google.protobuf.duration_pb2 import Duration

from relayfile.model import NO_SEMANTICS, MemberKind
from relayfile.paths import check_write_path, normalise
from relayfile.store.operation_view import OperationFilter
from relayfile.store.plan.answers import Success
from relayfile.store.plan.entry import Member
from relayfile.store.plan.writeback.rows import HeldChange, OperationFault, OperationKind, OperationRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.wire import OBJECT_PREFIX
from relayfile.v1 import types_pb2, writeback_pb2
from relayfile.wire import (
    OBJECT_ID_BYTES_MAX,
    content_type_refusal,
    is_object_id,
    semantics_message,
    semantics_of,
    semantics_refusal,
    set_us,
    to_us,
)

ID_BYTES_MAX: Final = 64
IDS_MAX: Final = 1_000
VALUES_MAX: Final = 64
WORKER_ID_BYTES_MAX: Final = 128
REASON_BYTES_MAX: Final = 64
MESSAGE_BYTES_MAX: Final = 1_000
LEASE_MIN_US: Final = 1_000_000
LEASE_MAX_US: Final = 600_000_000
LEASE_DEFAULT_US: Final = 30_000_000
RETRY_AFTER_MAX_US: Final = 7 * 86_400_000_000
"""Longer ones are taken as this long."""
RELEASE_MAX_US: Final = 86_400_000_000
INLINE_BYTES_MAX: Final = 1 << 20
_DURATION_SECONDS_MAX: Final = 315_576_000_000


def fill_operation(
    into: writeback_pb2.Operation, workspace_id: str, row: OperationRow, held: HeldChange | None = None
) -> None:
    """Fill an empty message; `held` is what is held of the object while the operation has not ended."""
    into.operation_id = row.operation_id
    into.workspace_id = workspace_id
    into.provider = row.provider
    if row.object_key.startswith(OBJECT_PREFIX):
        into.provider_object_id = row.object_key[2:]
    into.kind = row.kind  # type: ignore[assignment]  # the numbers of the two enums are the same
    into.state = row.state  # type: ignore[assignment]  # as above
    into.path = row.path
    into.moved_from = row.moved_from
    into.draft = row.is_draft
    into.revision = row.revision
    into.base_revision = row.base_revision
    into.folded_count = row.folded_count
    into.content_sha256 = row.content_sha256
    into.size_bytes = row.size_bytes
    into.content_type = row.content_type
    if row.semantics:
        into.semantics.CopyFrom(semantics_message(row.semantics))
    _fill_base(into, row, held)
    into.claim_number = row.claim_number
    into.claimed_by = row.claimed_by
    if row.claim_expire_us is not None:
        set_us(into.claim_expire_time, row.claim_expire_us)
    into.attempt_count = row.attempt_count
    set_us(into.claimable_time, row.claimable_us)
    if row.fault is not None:
        fill_failure(into.last_failure, row.fault)
    into.superseded_by = row.superseded_by
    into.quarantine_id = row.quarantine_id
    if row.result:
        into.result.ParseFromString(row.result)
    into.actor = row.actor
    into.correlation_id = row.correlation_id
    into.traceparent = row.traceparent
    set_us(into.create_time, row.created_us)
    set_us(into.modify_time, row.modified_us)
    if row.ended_us is not None:
        set_us(into.end_time, row.ended_us)
    into.version = row.version


def _fill_base(into: writeback_pb2.Operation, row: OperationRow, held: HeldChange | None) -> None:
    if held is not None and row.ended_us is None and row.kind is not OperationKind.FETCH:
        member, base = held.member, into.provider_base
        base.held = True
        base.deleted = member.kind is MemberKind.DELETE
        if not base.deleted:
            content = member.content or b""
            base.content_sha256 = held.content_sha256
            base.size_bytes = len(content)
            base.content_type = member.content_type
        if member.occurred_us is not None:
            set_us(base.occurred_at, member.occurred_us)
        set_us(base.received_at, member.received_us)
    elif row.known is not None:
        base = into.provider_base
        base.deleted = row.known.deleted
        base.content_sha256 = row.known.content_sha256
        base.size_bytes = row.known.size_bytes
        base.content_type = row.known.content_type


def fill_failure(into: writeback_pb2.OperationFailure, fault: OperationFault) -> None:
    """How a try failed."""
    into.reason = fault.reason
    into.message = fault.message
    into.retryable = fault.retryable
    if fault.retry_after_us is not None:
        into.retry_after.FromMicroseconds(fault.retry_after_us)
    into.provider_status = fault.provider_status


def check_operation_id(checks: Checks, value: str, field: str = "operation_id") -> None:
    """An operation must be named."""
    checks.require(bool(value), field, "is required")
    checks.require(len(value.encode()) <= ID_BYTES_MAX, field, f"is longer than {ID_BYTES_MAX} bytes")


def duration_us(checks: Checks, message: Duration, field: str) -> int:
    """Microseconds of a duration that is not negative."""
    good = 0 <= message.seconds <= _DURATION_SECONDS_MAX and 0 <= message.nanos < 1_000_000_000
    checks.require(good, field, "must be a duration that is not negative")
    return message.ToMicroseconds() if good else 0


def lease_us(checks: Checks, request: writeback_pb2.ClaimOperationsRequest | writeback_pb2.RenewClaimRequest) -> int:
    """How long a claim lasts."""
    if not request.HasField("lease"):
        return LEASE_DEFAULT_US
    lease = request.lease
    asked = lease.seconds * 1_000_000 + lease.nanos // 1000  # also of one that is none
    good = 0 <= lease.nanos < 1_000_000_000 and LEASE_MIN_US <= asked <= LEASE_MAX_US
    checks.require(good, "lease", f"is {asked / 1e6:g} s, and must be 1 s to 10 min")
    return asked


def check_kinds(checks: Checks, kinds: "list[int]", field: str) -> frozenset[int]:
    """Kinds of operations."""
    known = writeback_pb2.OperationKind.values()
    for index, kind in enumerate(kinds[:VALUES_MAX]):
        checks.require(kind in known and kind != 0, f"{field}[{index}]", f"is {kind}, which is not a kind")
    checks.at_most(len(kinds), VALUES_MAX, field, "values")
    return frozenset(kinds)


def check_providers(checks: Checks, providers: "list[str]", field: str) -> frozenset[str]:
    """Names of providers."""
    checks.at_most(len(providers), VALUES_MAX, field, "values")
    for index, provider in enumerate(providers[:VALUES_MAX]):
        checks.require(bool(provider), f"{field}[{index}]", "is empty")
    return frozenset(providers)


def read_filter(checks: Checks, asked: writeback_pb2.OperationFilter) -> OperationFilter:
    """What a filter selects."""
    known = writeback_pb2.OperationState.values()
    checks.at_most(len(asked.states), VALUES_MAX, "filter.states", "values")
    for index, state in enumerate(asked.states[:VALUES_MAX]):
        checks.require(state in known and state != 0, f"filter.states[{index}]", f"is {state}, which is not a state")
    path = checks.directory_path(asked.path, "filter.path") if asked.path else ""
    create_from = asked.create_from if asked.HasField("create_from") else None
    create_before = asked.create_before if asked.HasField("create_before") else None
    return OperationFilter(
        providers=check_providers(checks, list(asked.providers), "filter.providers"),
        kinds=check_kinds(checks, list(map(int, asked.kinds)), "filter.kinds"),
        states=frozenset(map(int, asked.states)),
        path="" if path == "/" else path,
        object_id=asked.provider_object_id,
        quarantine_id=asked.quarantine_id,
        created_from_us=checks.time_us(create_from, "filter.create_from"),
        created_before_us=checks.time_us(create_before, "filter.create_before"),
    )


def read_fault(checks: Checks, failure: writeback_pb2.OperationFailure) -> OperationFault:
    """A failure that a worker tells."""
    field = "head.failure"
    checks.require(bool(failure.reason), f"{field}.reason", "is required")
    _check_length(checks, failure.reason, REASON_BYTES_MAX, f"{field}.reason")
    _check_length(checks, failure.message, MESSAGE_BYTES_MAX, f"{field}.message")
    checks.not_negative(failure.provider_status, f"{field}.provider_status")
    retry_after_us = None
    if failure.HasField("retry_after"):
        retry_after_us = min(duration_us(checks, failure.retry_after, f"{field}.retry_after"), RETRY_AFTER_MAX_US)
    return OperationFault(failure.reason, failure.message, failure.retryable, retry_after_us, failure.provider_status)


def check_success(checks: Checks, success: writeback_pb2.OperationSuccess, content_bytes_max: int) -> None:
    """What a worker says that it did; its content may follow."""
    field = "head.success"
    _check_object_id(checks, success.provider_object_id, f"{field}.provider_object_id")
    checks.not_negative(success.provider_status, f"{field}.provider_status")
    if success.canonical_path:
        checks.file_path(success.canonical_path, f"{field}.canonical_path")
    checks.time_us(success.occurred_at, f"{field}.occurred_at")
    if not success.HasField("change"):
        return
    change, field = success.change, f"{field}.change"
    kinds = (types_pb2.CHANGE_KIND_UPSERT, types_pb2.CHANGE_KIND_DELETE)
    checks.require(change.kind in kinds, f"{field}.kind", "must be an upsert or a delete")
    is_upsert = change.kind == types_pb2.CHANGE_KIND_UPSERT
    size = change.content_follows_bytes
    checks.not_negative(size, f"{field}.content_follows_bytes")
    checks.require(not (size and change.content), f"{field}.content", "must be empty where its length is announced")
    checks.require(is_upsert or not (size or change.content), f"{field}.content", "belongs to an upsert only")
    checks.require(
        len(change.content) <= INLINE_BYTES_MAX, f"{field}.content", "has more than 1 MiB, which goes in chunks"
    )
    checks.require(
        size <= content_bytes_max, f"{field}.content_follows_bytes", f"is {size}; at most {content_bytes_max}"
    )
    if change.path and (why := check_write_path(normalise(change.path))) is not None:
        checks.refuse(f"{field}.path", why)
    _check_object_id(checks, change.provider_object_id, f"{field}.provider_object_id")
    if (why := content_type_refusal(change.content_type)) is not None:
        checks.refuse(f"{field}.content_type", why)
    checks.time_us(change.occurred_at, f"{field}.occurred_at")
    if (why := semantics_refusal(change.semantics)) is not None:
        checks.refuse(f"{field}.semantics", why)


def read_success(
    success: writeback_pb2.OperationSuccess, content: bytes, content_sha256: bytes, now_us: int, correlation_id: str
) -> Success:
    """A checked one, with the content of its change."""
    kept = writeback_pb2.OperationSuccess()
    kept.CopyFrom(success)
    member = None
    if success.HasField("change"):
        kept.change.ClearField("content")
        kept.change.ClearField("content_follows_bytes")
        member = _member(success.change, content, now_us, correlation_id)
    return Success(
        result=kept.SerializeToString(),
        object_id=success.provider_object_id,
        canonical_path=normalise(success.canonical_path) if success.canonical_path else "",
        occurred_us=to_us(success.occurred_at) if success.HasField("occurred_at") else None,
        change=member,
        change_sha256=content_sha256 if member is not None and member.kind is MemberKind.UPSERT else b"",
    )


def _member(change: types_pb2.FileChange, content: bytes, now_us: int, correlation_id: str) -> Member:
    is_upsert = change.kind == types_pb2.CHANGE_KIND_UPSERT
    return Member(
        kind=MemberKind.UPSERT if is_upsert else MemberKind.DELETE,
        envelope_id="",
        delivery_id="",
        change_index=0,
        path=normalise(change.path) if change.path else "",
        provider_object_id=change.provider_object_id,
        received_us=now_us,
        occurred_us=to_us(change.occurred_at) if change.HasField("occurred_at") else None,
        content=content,
        content_type=change.content_type,
        semantics=semantics_of(change.semantics) if change.HasField("semantics") else NO_SEMANTICS,
        correlation_id=correlation_id,
        traceparent="",
    )


def _check_length(checks: Checks, value: str, limit: int, field: str) -> None:
    checks.require(len(value.encode()) <= limit, field, f"is longer than {limit} bytes")


def _check_object_id(checks: Checks, value: str, field: str) -> None:
    if value:
        good = len(value.encode()) <= OBJECT_ID_BYTES_MAX and is_object_id(value)
        checks.require(good, field, "must be <type>/<id>, for example issue/42")
