"""`FoldMember` <-> `Member`: the hot path of a store node, a few microseconds for each change.

Converts here and nowhere else. What the planner cannot be told (an unknown kind) becomes a member that failed, so that
it ends in the dead letters and holds up nobody; paths are the planner's to refuse in the same way. What breaks the
framing (no members, a `spool_ref` of another length) is the sender's fault and ends its stream.
"""

from collections.abc import Generator, Iterable
from typing import Final, TypeAlias, cast

from relayfile.errors import InvalidArgument
from relayfile.model import NO_SEMANTICS, Failure, MemberKind, RawDelivery
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.rows import made
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import semantics_message, semantics_of

SPOOL_REF_BYTES: Final = 12
MEMBERS_MAX: Final = 4_096
STEP_MEMBERS: Final = 125
"""Read before others have their turn in the loop: 1 ms or so."""
STEP_BYTES: Final = 256 << 10
"""Likewise, of contents; a larger one is read at once."""
INVALID_MEMBER: Final = "INVALID_MEMBER"

_KINDS: Final = {int(kind): kind for kind in MemberKind}


FoldsRead: TypeAlias = tuple[list[Fold], int]
"""The folds of one workspace, and about how many bytes they hold."""


def read_folds(messages: Iterable[shard_pb2.Fold], ingest_id: str, refs: list[bytes]) -> FoldsRead:
    """Appends each member's `spool_ref` to `refs`."""
    reading = reading_folds(messages, ingest_id, refs)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return cast(FoldsRead, end.value)


def reading_folds(
    messages: Iterable[shard_pb2.Fold], ingest_id: str, refs: list[bytes]
) -> Generator[None, None, FoldsRead]:
    """As `read_folds`, with a stop after every `STEP_MEMBERS` changes or `STEP_BYTES` of their contents."""
    folds = []
    byte_count = 0
    left, until_bytes = STEP_MEMBERS, STEP_BYTES
    for message in messages:
        members = message.members
        if not 0 < len(members) <= MEMBERS_MAX:
            raise InvalidArgument.of("folds.members", f"has {len(members)} entries; 1 to {MEMBERS_MAX} are accepted")
        read = []
        for member in members:
            if not left or byte_count >= until_bytes:
                yield
                left, until_bytes = STEP_MEMBERS, byte_count + STEP_BYTES
            left -= 1
            ref = member.spool_ref
            if len(ref) != SPOOL_REF_BYTES:
                raise InvalidArgument.of("folds.members.spool_ref", f"has {len(ref)} bytes, not {SPOOL_REF_BYTES}")
            if member.content_follows_bytes:
                why = "is only for the last member of a message, with its chunks behind it"
                raise InvalidArgument.of("folds.members.content_follows_bytes", why)
            refs.append(ref)
            read.append(read_member(member))
            byte_count += len(read[-1].content or b"")
        folds.append(made(Fold, (message.provider, message.change_key, tuple(read), ingest_id, False)))
    return folds, byte_count


def read_member(message: shard_pb2.FoldMember) -> Member:
    """A change as the planner takes it; one that is not valid becomes a failed one."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        return _failed(message, f"its kind is {message.kind}, which is not known")
    if message.content_elided:
        content = None
    else:
        content = message.content
    failure = raw = None
    if kind is MemberKind.FAILED:
        failure = Failure(message.failure.reason, message.failure.message)
        raw = RawDelivery(message.raw.body, dict(message.raw.headers))
    fields = (
        kind,
        message.envelope_id,
        message.delivery_id,
        message.change_index,
        message.path,
        message.provider_object_id,
        message.received_unix_us,
        message.occurred_unix_us if message.HasField("occurred_unix_us") else None,
        content,
        message.content_type,
        semantics_of(message.semantics) if message.HasField("semantics") else NO_SEMANTICS,
        message.correlation_id,
        message.traceparent,
        message.operation_id,
        raw,
        failure,
        message.adapter_version,
        message.event_name,
    )
    return made(Member, fields)


def member_message(member: Member) -> shard_pb2.FoldMember:
    """The message that `read_member` turns into `member`, without a `spool_ref`: what a dead letter keeps."""
    return shard_pb2.FoldMember(
        envelope_id=member.envelope_id,
        delivery_id=member.delivery_id,
        change_index=member.change_index,
        kind=shard_pb2.MemberKind.ValueType(member.kind),
        path=member.path,
        provider_object_id=member.provider_object_id,
        received_unix_us=member.received_us,
        occurred_unix_us=member.occurred_us,
        content=member.content or b"",
        content_elided=member.content is None,
        content_type=member.content_type,
        semantics=semantics_message(member.semantics) if member.semantics else None,
        correlation_id=member.correlation_id,
        traceparent=member.traceparent,
        operation_id=member.operation_id,
        raw=None if member.raw is None else types_pb2.RawDelivery(body=member.raw.body, headers=member.raw.headers),
        failure=None if member.failure is None else failure_message(member.failure),
        adapter_version=member.adapter_version,
        event_name=member.event_name,
    )


def failure_message(failure: Failure) -> types_pb2.Failure:
    """Why, on the wire."""
    return types_pb2.Failure(reason=failure.reason, message=failure.message)


def _failed(message: shard_pb2.FoldMember, why: str) -> Member:
    return Member(
        MemberKind.FAILED,
        message.envelope_id,
        message.delivery_id,
        message.change_index,
        "",
        message.provider_object_id,
        message.received_unix_us,
        None,
        b"",
        message.content_type,
        NO_SEMANTICS,
        message.correlation_id,
        message.traceparent,
        message.operation_id,
        RawDelivery(message.SerializeToString(), {}),
        Failure(INVALID_MEMBER, f"The change is not valid: {why}."),
        message.adapter_version,
        message.event_name,
    )
