"""From accepted envelopes to the bytes of `ApplyEnvelopes`: the only place of ingest that knows these messages' form.

A change is encoded once, without its content, as a *note*; content, or the mark that it was elided, is appended when
the fold is packed. Messages are put together from such pieces by their framing, because building them as objects would
copy every content three times. `tests/unit/ingest/sending/test_fold_wire.py` holds the bytes to the generated classes.
"""

import struct
from collections.abc import Iterable, Iterator

from relayfile.ingest.spool.payload import varint
from relayfile.model import MemberKind
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import to_us

CHUNK_BYTES_MAX = 1 << 20
"""Longer bodies follow their member in chunks."""
REF_BYTES = 12

_REF = struct.Struct(">QI")
_ELIDED = b"\x58\x01"  # FoldMember.content_elided = true
_CONTENT = b"\x52"  # FoldMember.content
_FOLLOWS = b"\x88\x01"  # FoldMember.content_follows_bytes
_RAW = b"\x92\x01"  # FoldMember.raw; merges with an earlier one
_RAW_BODY = b"\x0a"  # RawDelivery.body
_FOLD_PROVIDER = b"\x0a"
_FOLD_KEY = b"\x12"
_FOLD_MEMBER = b"\x1a"
_WORKSPACE_ID = b"\x0a"
_WORKSPACE_FOLD = b"\x12"
_SUB_BATCH_WORKSPACE = b"\x22"
_MESSAGE_SUB_BATCH = b"\x12"

_UPSERT, _DELETE, _PATCH, _SIGNAL, _IGNORED, _FAILED = (
    MemberKind.UPSERT,
    MemberKind.DELETE,
    MemberKind.PATCH,
    MemberKind.SIGNAL,
    MemberKind.IGNORED,
    MemberKind.FAILED,
)
_KINDS = {1: _UPSERT, 2: _DELETE, 3: _PATCH, 4: _SIGNAL}


def spool_ref(row_id: int, ordinal: int) -> bytes:
    """The 12 bytes by which an answer names a change: row id (8 bytes, big-endian) and its place in the row (4)."""
    return _REF.pack(row_id, ordinal)


def read_refs(refs: bytes) -> Iterator[tuple[int, int]]:
    """(row id, place) of each reference; `struct.error` when the length is not a multiple of 12."""
    return _REF.iter_unpack(refs)


def kind_without_change(envelope: types_pb2.Envelope) -> MemberKind:
    """What an envelope without changes is: one member that failed, or is ignored."""
    return _FAILED if envelope.HasField("failure") else _IGNORED


def kind_of(change: types_pb2.FileChange) -> MemberKind:
    """What a change asks for."""
    return _KINDS[change.kind]


def delivery_id_of(envelope: types_pb2.Envelope, change: types_pb2.FileChange) -> str:
    """What the shard knows a change by, with its object: of several changes of one object each has its own."""
    return f"{envelope.delivery_id}#{change.repetition + 1}" if change.repetition else envelope.delivery_id


def member_of(
    envelope: types_pb2.Envelope, traceparent: str, change: types_pb2.FileChange, index: int, ref: bytes, content: bytes
) -> bytes:
    """A serialised `FoldMember`: with `content`, or, when that is empty, a note to which it can be added.

    `traceparent` is the envelope's.
    """
    member = shard_pb2.FoldMember(
        spool_ref=ref,
        envelope_id=envelope.envelope_id,
        delivery_id=delivery_id_of(envelope, change),
        change_index=index,
        kind=change.kind,  # type: ignore[arg-type]  # the numbers of the two enums agree
        path=change.path,
        provider_object_id=change.provider_object_id,
        received_unix_us=to_us(envelope.received_at),
        content=content,
        content_type=change.content_type,
        correlation_id=envelope.correlation_id,
        traceparent=traceparent,
        operation_id=change.operation_id,
        adapter_version=envelope.adapter_version,
        event_name=envelope.event_name,
    )
    if change.HasField("occurred_at"):
        member.occurred_unix_us = to_us(change.occurred_at)
    if change.HasField("semantics"):
        member.semantics.CopyFrom(change.semantics)
    return member.SerializeToString()


def member_without_change(envelope: types_pb2.Envelope, ref: bytes) -> bytes:
    """A serialised `FoldMember` of an envelope without changes, without its raw body."""
    member = shard_pb2.FoldMember(
        spool_ref=ref,
        envelope_id=envelope.envelope_id,
        delivery_id=envelope.delivery_id,
        kind=kind_without_change(envelope).value,  # type: ignore[arg-type]  # as above
        received_unix_us=to_us(envelope.received_at),
        correlation_id=envelope.correlation_id,
        traceparent=envelope.traceparent,
        adapter_version=envelope.adapter_version,
        event_name=envelope.event_name,
    )
    if envelope.HasField("failure"):
        member.failure.CopyFrom(envelope.failure)
        member.raw.headers.update(envelope.raw.headers)
    return member.SerializeToString()


def with_content(note: bytes, content: bytes) -> bytes:
    """The member with its content inline."""
    return b"".join((note, _CONTENT, varint(len(content)), content)) if content else note


def with_raw_body(note: bytes, body: bytes) -> bytes:
    """The member of a failed delivery with the raw body inline."""
    if not body:
        return note
    raw = _field(_RAW_BODY, body)
    return b"".join((note, _RAW, varint(len(raw)), raw))


def with_body_following(note: bytes, size_bytes: int) -> bytes:
    """The member whose body follows in chunks."""
    return note + _FOLLOWS + varint(size_bytes)


def without_body(note: bytes) -> bytes:
    """The member with its content elided."""
    return note + _ELIDED


def fold_head(provider: str, key: str) -> bytes:
    """The start of a `Fold`; members follow, each through `fold_member`."""
    return _field(_FOLD_PROVIDER, provider.encode()) + _field(_FOLD_KEY, key.encode())


def fold_member(member: bytes) -> bytes:
    """A member as a fold's field."""
    return b"".join((_FOLD_MEMBER, varint(len(member)), member))


def workspace_fold(fold: bytes) -> bytes:
    """A fold as a workspace's field."""
    return b"".join((_WORKSPACE_FOLD, varint(len(fold)), fold))


def lone_fold_head(provider: str) -> bytes:
    """What all folds of a provider start with; for `lone_fold`."""
    return _field(_FOLD_PROVIDER, provider.encode()) + _FOLD_KEY


def lone_fold(head: bytes, key: str, member: bytes) -> bytes:
    """`workspace_fold` of a fold with one member, with `head` of `lone_fold_head`."""
    name = key.encode()
    name_length, member_length = varint(len(name)), varint(len(member))
    size = len(head) + len(name_length) + len(name) + 1 + len(member_length) + len(member)
    return b"".join((_WORKSPACE_FOLD, varint(size), head, name_length, name, _FOLD_MEMBER, member_length, member))


def sub_batch(shard_id: int, epoch: int, sequence: int, workspace_id: str, folds: Iterable[bytes]) -> bytes:
    """A `SubBatch` of one workspace as a message's field. `folds` are fields already (`workspace_fold`)."""
    workspace = _field(_WORKSPACE_ID, workspace_id.encode()) + b"".join(folds)
    head = shard_pb2.SubBatch(shard_id=shard_id, epoch=epoch, sequence=sequence).SerializeToString()
    size = len(head) + 1 + len(varint(len(workspace))) + len(workspace)
    return b"".join((_MESSAGE_SUB_BATCH, varint(size), head, _SUB_BATCH_WORKSPACE, varint(len(workspace)), workspace))


def chunk_messages(body: bytes) -> Iterator[bytes]:
    """The messages that carry a body after its member."""
    for start in range(0, len(body), CHUNK_BYTES_MAX):
        last = start + CHUNK_BYTES_MAX >= len(body)
        chunk = types_pb2.ContentChunk(data=body[start : start + CHUNK_BYTES_MAX], last=last)
        yield shard_pb2.ApplyEnvelopesRequest(chunk=chunk).SerializeToString()


def hello_message(session_id: str, ingest_id: str, redos_max: int) -> bytes:
    """The first message of a stream."""
    hello = shard_pb2.StreamHello(session_id=session_id, ingest_id=ingest_id, redos_max=redos_max)
    return shard_pb2.ApplyEnvelopesRequest(hello=hello).SerializeToString()


def report_message(reports: Iterable[shard_pb2.PendingReport]) -> bytes:
    """What this process holds."""
    return shard_pb2.ApplyEnvelopesRequest(reports=reports).SerializeToString()


def _field(tag: bytes, value: bytes) -> bytes:
    return b"".join((tag, varint(len(value)), value))
