"""Folds that are ready to travel: a parcel is one `Fold` message with the references that its answer will name.

Owns the building of parcels from the compact facts that the coalescer holds, and the reading back of contents. Refuses
to decide order or time.
"""

from collections import OrderedDict
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from relayfile.ingest.coalesce import Change, Fold
from relayfile.ingest.fold_wire import (
    CHUNK_BYTES_MAX,
    body_of,
    fold_head,
    fold_member,
    member_kind,
    note_of,
    spool_ref,
    with_body,
    with_body_following,
    without_body,
    workspace_fold,
)
from relayfile.model import MemberKind
from relayfile.v1 import types_pb2

PARCEL_BYTES_MAX = 2 << 20
"""A fold with more to send is cut into several parcels, which are applied one after the other."""


class Parcel(NamedTuple):
    """One fold on its way."""

    provider: str
    refs: bytes
    """12 bytes for each member, in order."""
    wire: bytes
    """The fold as a field of `WorkspaceFolds`."""
    body: bytes
    """What follows the last member in chunks; usually empty."""
    source: Fold | None
    """Where the contents that were elided can be found again; None when nothing was elided."""

    @property
    def size_bytes(self) -> int:
        """What it costs on the wire."""
        return len(self.wire) + len(self.body)


class RecentPayloads:
    """Payloads of the newest rows, so that most folds are built without reading the disk. Bounded in bytes."""

    def __init__(self, read: Callable[[int, int, int], bytes], bytes_max: int) -> None:
        """`read(row_id, offset, length)` reads a piece of a row from the spool."""
        self._read = read
        self._bytes_max = bytes_max
        self._payloads: OrderedDict[int, bytes] = OrderedDict()
        self._size_bytes = 0

    def put(self, row_id: int, payload: bytes) -> None:
        """Remember a payload and forget the oldest."""
        self._payloads[row_id] = payload
        self._size_bytes += len(payload)
        while self._size_bytes > self._bytes_max:
            _, oldest = self._payloads.popitem(last=False)
            self._size_bytes -= len(oldest)

    def envelope(self, change: Change) -> types_pb2.Envelope:
        """The envelope of a change. `DataCorrupted` when it is no longer in the spool."""
        payload = self._payloads.get(change.row_id)
        if payload is None:
            raw = self._read(change.row_id, change.offset, change.length)
        else:
            raw = payload[change.offset : change.offset + change.length]
        return types_pb2.Envelope.FromString(raw)


def parcel_of(envelope: types_pb2.Envelope, index: int, ref: bytes, key: str) -> Parcel:
    """A change that goes out alone, from the envelope in memory."""
    note = note_of(envelope, index, ref)
    body = body_of(envelope, index)
    head = fold_head(envelope.provider, key)
    if len(body) > CHUNK_BYTES_MAX:
        member = with_body_following(note, len(body))
        return Parcel(envelope.provider, ref, workspace_fold(head + fold_member(member)), body, None)
    member = with_body(note, member_kind(envelope, index), body)
    return Parcel(envelope.provider, ref, workspace_fold(head + fold_member(member)), b"", None)


def parcels_of(fold: Fold, recent: RecentPayloads, complete: AbstractSet[bytes] = frozenset()) -> list[Parcel]:
    """The parcels of a fold, in order; usually one.

    With `complete`, only the members with these references, all with their contents.
    """
    builder = _ParcelBuilder(fold)
    for change, note, elided in fold.members():
        ref = spool_ref(change.row_id, change.ordinal)
        if complete and ref not in complete:
            continue
        must_read = note is None or (change.size_bytes > 0 and (not elided or bool(complete)))
        if not must_read:
            assert note is not None
            has_content = elided and change.kind in (MemberKind.UPSERT, MemberKind.PATCH)
            builder.add(ref, without_body(note) if has_content else note, b"", elided=has_content)
            continue
        envelope = recent.envelope(change)
        note = note_of(envelope, change.change_index, ref) if note is None else note
        if elided and not complete and change.kind in (MemberKind.UPSERT, MemberKind.PATCH):
            builder.add(ref, without_body(note), b"", elided=True)
            continue
        body = body_of(envelope, change.change_index)
        if len(body) > CHUNK_BYTES_MAX:
            builder.add(ref, with_body_following(note, len(body)), body, elided=False)
        else:
            builder.add(ref, with_body(note, change.kind, body), b"", elided=False)
    builder.close()
    return builder.parcels


class _ParcelBuilder:
    """Members of one fold, cut where a message would become too large or a body must follow."""

    def __init__(self, fold: Fold) -> None:
        self.parcels: list[Parcel] = []
        self._fold = fold
        self._head = fold_head(fold.key.provider, fold.key.change_key)
        self._members: list[bytes] = []
        self._refs: list[bytes] = []
        self._size_bytes = 0
        self._has_elided = False

    def add(self, ref: bytes, member: bytes, following: bytes, *, elided: bool) -> None:
        if self._members and self._size_bytes + len(member) > PARCEL_BYTES_MAX:
            self.close()
        self._members.append(fold_member(member))
        self._refs.append(ref)
        self._size_bytes += len(member)
        self._has_elided = self._has_elided or elided
        if following:
            self.close(following)

    def close(self, following: bytes = b"") -> None:
        if not self._members:
            return
        wire = workspace_fold(self._head + b"".join(self._members))
        source = self._fold if self._has_elided else None
        self.parcels.append(Parcel(self._fold.key.provider, b"".join(self._refs), wire, following, source))
        self._members, self._refs, self._size_bytes, self._has_elided = [], [], 0, False
