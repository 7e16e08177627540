"""Folds that are ready to travel: a parcel is encoded `Fold` messages with the references that its answer will name.

Owns the building of parcels from the compact facts that the coalescer holds, and the reading back of contents. Refuses
to decide order or time.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from relayfile.ingest.sending.coalesce import Change, Fold
from relayfile.ingest.sending.fold_wire import (
    CHUNK_BYTES_MAX,
    fold_head,
    fold_member,
    lone_fold,
    lone_fold_head,
    member_of,
    member_without_change,
    spool_ref,
    with_body_following,
    with_content,
    with_raw_body,
    without_body,
    workspace_fold,
)
from relayfile.ingest.spool.payload import read_envelope
from relayfile.model import MemberKind, change_key
from relayfile.telemetry.traceparent import is_sampled
from relayfile.v1 import types_pb2

PARCEL_BYTES_MAX = 2 << 20
"""A fold with more to send is cut into several parcels, which are applied one after the other."""


GATHERED_BYTES_MAX = 64 << 10
"""Changes that go out alone are gathered up to so much."""


class Parcel(NamedTuple):
    """One fold on its way, or several of one provider with one member each."""

    provider: str
    refs: bytes
    """12 bytes for each member, in order."""
    wire: bytes
    """The folds as fields of `WorkspaceFolds`."""
    body: bytes
    """What follows the last member in chunks; usually empty."""
    source: Fold | None
    """Where the contents that were elided can be found again; None when nothing was elided."""
    traceparents: Sequence[str]
    """Of its changes that are sampled, each once, as far as was looked at: of what a fold elides, the store tells."""

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

    def forget(self, row_ids: Iterable[int]) -> None:
        """These rows have left the spool: nobody asks for them again."""
        for row_id in row_ids:
            payload = self._payloads.pop(row_id, None)
            if payload is not None:
                self._size_bytes -= len(payload)

    @property
    def size_bytes(self) -> int:
        """What is remembered."""
        return self._size_bytes

    def envelope(self, workspace_id: str, change: Change) -> types_pb2.Envelope:
        """The envelope of a change. `DataCorrupted` when it is no longer in the spool as it was."""
        payload = self._payloads.get(change.row_id)
        if payload is None:
            raw = self._read(change.row_id, change.offset, change.length)
        else:
            raw = payload[change.offset : change.offset + change.length]
        return read_envelope(change.row_id, workspace_id, change.change_index, raw)


class LoneChanges:
    """Changes of one workspace that go out at once, each a fold of its own, gathered into few parcels."""

    def __init__(self, push: Callable[[Parcel], None]) -> None:
        """`push` gets each parcel that is complete."""
        self._push = push
        self._provider = ""
        self._head = b""
        self._refs: list[bytes] = []
        self._wires: list[bytes] = []
        self._size_bytes = 0
        self._traced: dict[str, None] = {}

    def add(
        self,
        envelope: types_pb2.Envelope,
        provider: str,
        change: types_pb2.FileChange,
        index: int,
        ref: bytes,
        key: str,
    ) -> None:
        """One change of an envelope of `provider`."""
        content = change.content
        traceparent = envelope.traceparent
        if len(content) <= CHUNK_BYTES_MAX:
            member = member_of(envelope, traceparent, change, index, ref, content)
            self._add(provider, traceparent, key, ref, member)
        else:
            self.close()
            note = member_of(envelope, traceparent, change, index, ref, b"")
            self._add(provider, traceparent, key, ref, with_body_following(note, len(content)))
            self.close(content)

    def add_without_change(self, envelope: types_pb2.Envelope, ref: bytes) -> None:
        """An envelope that failed, or is ignored."""
        note = member_without_change(envelope, ref)
        body = envelope.raw.body
        key = change_key("", "", 0)
        if len(body) <= CHUNK_BYTES_MAX:
            self._add(envelope.provider, envelope.traceparent, key, ref, with_raw_body(note, body))
        else:
            self.close()
            self._add(envelope.provider, envelope.traceparent, key, ref, with_body_following(note, len(body)))
            self.close(body)

    def _add(self, provider: str, traceparent: str, key: str, ref: bytes, member: bytes) -> None:
        if provider != self._provider or self._size_bytes > GATHERED_BYTES_MAX:
            self.close()
            self._provider, self._head = provider, lone_fold_head(provider)
        if is_sampled(traceparent):
            self._traced[traceparent] = None
        self._refs.append(ref)
        self._wires.append(lone_fold(self._head, key, member))
        self._size_bytes += len(member)

    def close(self, following: bytes = b"") -> None:
        """Push what was gathered."""
        if self._refs:
            refs, wires = b"".join(self._refs), b"".join(self._wires)
            self._push(Parcel(self._provider, refs, wires, following, None, tuple(self._traced)))
            self._refs, self._wires, self._size_bytes, self._traced = [], [], 0, {}


def parcels_of(fold: Fold, recent: RecentPayloads, complete: AbstractSet[bytes] = frozenset()) -> Iterator[Parcel]:
    """The parcels of a fold, in order; usually one. Contents are read when their parcel is asked for.

    With `complete`, only the members with these references, all with their contents.
    """
    builder = _ParcelBuilder(fold)
    for change, note, is_elided in fold.members():
        ref = spool_ref(change.row_id, change.ordinal)
        if complete and ref not in complete:
            continue
        elided = is_elided and not complete and change.kind in (MemberKind.UPSERT, MemberKind.PATCH)
        if note is not None and (elided or not change.size_bytes):
            yield from builder.add(ref, without_body(note) if elided else note, b"", elided=elided)
            continue
        envelope = recent.envelope(fold.key.workspace_id, change)
        if is_sampled(envelope.traceparent):
            builder.traced[envelope.traceparent] = None
        source = envelope.changes[change.change_index]
        if note is None:
            note = member_of(envelope, envelope.traceparent, source, change.change_index, ref, b"")
        content = source.content
        if elided:
            yield from builder.add(ref, without_body(note), b"", elided=True)
        elif len(content) <= CHUNK_BYTES_MAX:
            yield from builder.add(ref, with_content(note, content), b"", elided=False)
        else:
            yield from builder.add(ref, with_body_following(note, len(content)), content, elided=False)
    yield from builder.close()


class _ParcelBuilder:
    """Members of one fold, cut where a message would become too large or a body must follow."""

    def __init__(self, fold: Fold) -> None:
        self.traced: dict[str, None] = {}
        self._fold = fold
        self._head = fold_head(fold.key.provider, fold.key.change_key)
        self._members: list[bytes] = []
        self._refs: list[bytes] = []
        self._size_bytes = 0
        self._has_elided = False

    def add(self, ref: bytes, member: bytes, following: bytes, *, elided: bool) -> Iterable[Parcel]:
        """Returns what became complete."""
        full: Iterable[Parcel] = ()
        if self._members and self._size_bytes + len(member) > PARCEL_BYTES_MAX:
            full = self.close()
        self._members.append(fold_member(member))
        self._refs.append(ref)
        self._size_bytes += len(member)
        self._has_elided = self._has_elided or elided
        return (*full, *self.close(following)) if following else full

    def close(self, following: bytes = b"") -> Iterable[Parcel]:
        if not self._members:
            return ()
        wire = workspace_fold(self._head + b"".join(self._members))
        source = self._fold if self._has_elided else None
        refs = b"".join(self._refs)
        self._members, self._refs, self._size_bytes, self._has_elided = [], [], 0, False
        return (Parcel(self._fold.key.provider, refs, wire, following, source, tuple(self.traced)),)
