"""From durable rows to lanes, and from answers back to the spool.

Each change of a row that became durable, or was read back, goes out at once or is held by the coalescer; folds whose
window closed follow. What the shard answered is settled in the ledger; what it asks for again goes back to the front.

Owns what becomes of each row of the spool; lanes and their counts are `traffic`'s. Everything happens in the event
loop, in plain calls: no task and no future for a change. Refuses to wait: the pipeline around it has the timers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from sys import intern
from typing import NamedTuple

from relayfile.clock import Clock
from relayfile.errors import DataCorrupted
from relayfile.ingest.sending.coalesce import NOTE_OVERHEAD_BYTES, Change, Coalescer, Fold, ObjectKey
from relayfile.ingest.sending.flight import SentBatch
from relayfile.ingest.sending.fold_wire import kind_of, member_of, read_refs, spool_ref
from relayfile.ingest.sending.lane import Lane, LeftRows
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.parcel import LoneChanges, Parcel, RecentPayloads, parcels_of
from relayfile.ingest.sending.pauses import WHOLE_WORKSPACE, Pauses
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.traffic import Outcomes, Traffic
from relayfile.ingest.spool.ledger import RowLedger
from relayfile.ingest.spool.open_counts import open_counts
from relayfile.ingest.spool.payload import PayloadBuilder, Placed, parse_changes, parse_charges, read_row
from relayfile.ingest.spool.spool import GONE
from relayfile.ingest.spool.spool_file import RowHead, StoredRow
from relayfile.model import change_key
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import to_us

_log = get_logger(__name__)
NOTES_BYTES_MAX = 16 << 20
"""Encoded ids of held changes that are kept in memory; beyond, they are read back when their fold leaves."""
STEP_CHANGES = 60
"""Changes of a row that is read back that are worked on in one go."""
ARRIVED_CHANGES_MAX = 500
"""A row that arrives with more is read back."""
LANE_BYTES_MAX = 2 << 20
"""A lane with as much waiting takes no more arrivals: they stay in the spool and are read when there is room."""


@dataclass(frozen=True, slots=True)
class DispatchLimits:
    """Bounds of what waits in memory."""

    batch_changes_max: int
    stream_queue_bytes_max: int
    """What all lanes of one node may have waiting; the last row that is taken may exceed it."""


@dataclass(frozen=True, slots=True)
class DispatchPorts:
    """What the dispatcher calls."""

    stream_of: Callable[[str], NodeStream]
    """The stream to an address."""
    hungry: Callable[[Lane], None]
    """Told of lanes whose unread rows could be read now."""
    has_room: Callable[[], None]
    """Told when less waits than before, so that lanes without anything in memory may have room now."""
    finished: Callable[[list[int]], None]
    """Gets the rows that may leave the spool."""
    clock: Clock
    bits_of: Callable[[StoredRow], int] = lambda row: row.bits
    """See `Spool.bits_of`."""
    remember: Callable[[Pauses], None] = lambda pauses: None
    """Told when what is paused has changed."""


class _Row(NamedTuple):
    """A row of the spool that can be worked on."""

    row_id: int
    member_count: int
    bits: int
    charges: Mapping[str, int]
    placed: Sequence[Placed]
    payload: bytes


class Dispatcher(Traffic):
    """See the module."""

    def __init__(
        self,
        coalescer: Coalescer,
        recent: RecentPayloads,
        router: Router,
        limits: DispatchLimits,
        ports: DispatchPorts,
    ) -> None:
        super().__init__(router, limits.batch_changes_max, ports.stream_of)
        self.ledger = RowLedger()
        self.is_silent = False
        """Nothing more is sent: what is left is handed over."""
        self._coalescer = coalescer
        self._recent = recent
        self._limits = limits
        self._ports = ports
        self._notes_bytes = 0
        self._set_aside: set[int] = set()
        """Damaged rows."""

    # ... in

    def stored(self, row: PayloadBuilder) -> None:
        """A row became durable: its changes count as accepted and pending from now on."""
        self.counters.accepted += row.member_count
        self._accepted(row.workspace_id, row.row_id, row.providers, row.received_us)

    def arrived(self, row: PayloadBuilder) -> None:
        """A row that was stored is to be worked on. Rows of one workspace come in their order.

        But for one that was read back already, behind an earlier one that had no room; and one with very many changes
        is read back later, where there is time for it.
        """
        lane = self.lanes.get(row.workspace_id)
        if lane is None or row.row_id <= lane.last_row_id:
            return  # a lane is forgotten when everything in it has its outcome
        if lane.has_unread or not self.has_room(lane) or row.member_count > ARRIVED_CHANGES_MAX:
            self.leave(row)
            return
        lane.newest_row_id = row.row_id
        for _ in self._read(lane, _Row(row.row_id, row.member_count, 0, row.charges, row.placed, row.stored)):
            pass

    def leave(self, row: PayloadBuilder) -> None:
        """A row that was stored is to be read back when there is room."""
        lane = self.lanes[row.workspace_id]
        lane.newest_row_id = max(lane.newest_row_id, row.row_id)
        self._ports.hungry(lane)

    def left(self, row_id: int, workspace_id: str, providers: dict[str, int], received_us: int) -> None:
        """A row was in the spool at the start; it is read when its lane has room. Rows come in their order."""
        lane = self._accepted(workspace_id, row_id, providers, received_us)
        lane.newest_row_id = row_id
        self._ports.hungry(lane)

    def read_back(self, lane: Lane, row: StoredRow) -> Iterator[None]:
        """An unread row was read from the spool. It is worked on step by step; others may have their turn after each.

        One that is damaged is set aside: it stays in the spool and is said to be there, and the others go on. What was
        acknowledged must not vanish (D1), and nobody can tell any more what it was.
        """
        readable = self._decode(lane, row)
        if readable is None:
            lane.last_row_id = row.row_id
        else:
            yield from self._read(lane, readable)

    # ... what waits in the spool, because it is paused or was

    def pass_over(self, lane: Lane, row: RowHead) -> bool:
        """Whether all of an unread row waits, so that it need not be read; its place is noted then."""
        waits = self._waits(lane)
        providers = parse_changes(row.providers)
        if waits is None or not all(map(waits, providers)):
            return False
        for provider in providers:
            lane.leave(provider, row.row_id)
        lane.last_row_id = row.row_id
        return True

    def read_again(self, lane: Lane, row: StoredRow, providers: AbstractSet[str]) -> Iterator[None]:
        """A row was read for what was left in it of these providers."""
        readable = self._decode(lane, row)
        if readable is not None:
            yield from self._place(
                lane, readable, _ordinals(readable.placed, lambda provider: provider not in providers)
            )

    def resumed(self, lane: Lane) -> Mapping[str, LeftRows]:
        """The providers of which something was left in the spool and may go now."""
        is_paused = self.pauses.is_paused
        return {name: each for name, each in lane.left_rows.items() if not is_paused(lane.workspace_id, name)}

    def pauses_changed(self, workspace_ids: Sequence[str]) -> None:
        """What waits of a paused provider leaves memory; what was left of others may be read."""
        self._ports.remember(self.pauses)
        if not self.pauses.table.keys().isdisjoint(workspace_ids):
            # Also what windows hold: an earlier change of the same object may be read back before they close.
            self._coalescer.close(lambda key: self.pauses.is_paused(key.workspace_id, key.provider))
            self._send_flushed()
        for workspace_id in workspace_ids:
            lane = self.lanes.get(workspace_id)
            if lane is None:
                continue
            before = lane.queued_bytes
            for item in lane.take_out(partial(self.pauses.is_paused, workspace_id)):
                if isinstance(item, Fold):
                    self._leave_fold(lane, item)
                else:
                    self._leave(lane, item.provider, item.refs)
            self.stream(lane).queued_bytes += lane.queued_bytes - before
            self._ports.hungry(lane)

    @property
    def held_total(self) -> int:
        """Changes that were held for a window so far."""
        return self._coalescer.held_total

    def has_room(self, lane: Lane) -> bool:
        """Whether a lane may take one more row into memory."""
        return (
            lane.queued_bytes < LANE_BYTES_MAX and self.stream(lane).queued_bytes < self._limits.stream_queue_bytes_max
        )

    # ... what goes to other processes

    @property
    def paused_pending(self) -> int:
        """Changes that are pending because they are paused."""
        lanes = [lane for workspace_id in self.pauses.table if (lane := self.lanes.get(workspace_id)) is not None]
        is_paused = self.pauses.is_paused
        return sum(
            count
            for lane in lanes
            for provider, count in lane.pending.items()
            if is_paused(lane.workspace_id, provider)
        )

    def handed_over(self, workspace_id: str, row: StoredRow, charges: Mapping[str, int]) -> None:
        """Another process has a row, durably: it leaves the spool, and its changes are not pending here any more."""
        lane = self.lanes[workspace_id]
        bits = row.bits | self.ledger.bits_of(row.row_id)
        for provider, count in open_counts(row._replace(bits=bits), workspace_id).items():
            self.ended(lane, provider, count)
        self.ledger.remove(row.row_id, workspace_id, charges)
        self._ports.finished(self.take_finished())

    def take_finished(self) -> list[int]:
        """Rows that may leave the spool, each once."""
        finished = self.ledger.take_finished()
        self._recent.forget(finished)
        return finished

    # ... held changes

    def expire(self) -> None:
        """Send what windows held that have closed."""
        self._coalescer.expire(self._ports.clock.monotonic())
        self._send_flushed()

    def release(self) -> None:
        """Send everything that is held, and hold nothing from now on."""
        self._coalescer.close_all()
        self._send_flushed()

    # ... out: what streams call

    def take(self, stream: NodeStream, lane: Lane, bytes_max: int) -> list[Parcel]:
        """See `Traffic.take`; the backlog may fill the lane again. What is paused by now is left in the spool."""
        if self.is_silent:
            return []
        parcels = super().take(stream, lane, bytes_max)
        if lane.workspace_id in self.pauses.table:
            while parcels and not (going := [parcel for parcel in parcels if not self._left_if_paused(lane, parcel)]):
                parcels = super().take(stream, lane, bytes_max)
            parcels = going if parcels else []
        if lane.has_unread or lane.left_rows:
            self._ports.hungry(lane)
        self._ports.has_room()
        return parcels

    def answered(self, batch: SentBatch, ack: shard_pb2.SubBatchAck) -> None:
        """See `Traffic.answered`; rows that are finished leave the spool."""
        super().answered(batch, ack)
        finished = self.take_finished()
        if finished:
            self._ports.finished(finished)

    def settled(self, refs: bytes, outcomes: Outcomes) -> int:
        """See `Traffic.settled`."""
        return self.ledger.settle(refs)

    def unfold(self, fold: Fold, complete: AbstractSet[bytes] = frozenset()) -> Iterator[Parcel]:
        """See `Traffic.unfold`."""
        if not complete:
            self._notes_bytes -= fold.note_bytes
        return parcels_of(fold, self._recent, complete)

    # ... inside

    def _accepted(self, workspace_id: str, row_id: int, providers: dict[str, int], received_us: int) -> Lane:
        is_new = workspace_id not in self.lanes
        lane = self.lane_of(workspace_id)
        if is_new:
            lane.last_row_id = lane.newest_row_id = row_id - 1
        for provider, count in providers.items():
            self.accepted(lane, provider, count, received_us)
        return lane

    def _decode(self, lane: Lane, row: StoredRow) -> "_Row | None":
        """A row that was read, if anything can and must be done with it."""
        bits = self._ports.bits_of(row)
        if bits == GONE:
            return None
        try:
            placed = read_row(row.row_id, lane.workspace_id, row.member_count, row.payload)
        except DataCorrupted as error:
            if row.row_id not in self._set_aside:
                self._set_aside.add(row.row_id)
                lost = row.member_count - bits.bit_count()
                self.counters.unreadable += lost
                _log.error("a row of the spool is damaged and set aside", changes=lost, why=error.what)
            return None
        charges = parse_charges(row.providers, len(row.payload))
        return _Row(row.row_id, row.member_count, bits, charges, placed, row.payload)

    def _waits(self, lane: Lane) -> Callable[[str], bool] | None:
        """Tells which providers' changes are to be left in the spool: they are paused, or some are there before them.
        None: no provider's."""
        paused = self.pauses.table.get(lane.workspace_id)
        if not paused and not lane.left_rows:
            return None
        known, waiting = paused or (), lane.left_rows
        return lambda provider: provider in waiting or provider in known or WHOLE_WORKSPACE in known

    def _leave(self, lane: Lane, provider: str, refs: bytes) -> None:
        """Changes of a provider leave memory without an outcome."""
        self.ledger.put_back(refs)
        for row_id in {row_id for row_id, _ in read_refs(refs)}:
            lane.leave(provider, row_id)

    def _leave_fold(self, lane: Lane, fold: Fold) -> None:
        self._notes_bytes -= fold.note_bytes
        refs = [spool_ref(member.change.row_id, member.change.ordinal) for member in fold.members()]
        self._leave(lane, fold.key.provider, b"".join(refs))

    def _left_if_paused(self, lane: Lane, parcel: Parcel) -> bool:
        is_paused = self.pauses.is_paused(lane.workspace_id, parcel.provider)
        if is_paused:
            self._leave(lane, parcel.provider, parcel.refs)
        return is_paused

    def _has_paused(self, lane: Lane, provider: str, row_id: int, ordinal: int) -> bool:
        """Whether a change is to be left because it was paused since its row was begun."""
        is_paused = self.pauses.is_paused(lane.workspace_id, provider)
        if is_paused:
            self._leave(lane, provider, spool_ref(row_id, ordinal))
        return is_paused

    def _read(self, lane: Lane, row: "_Row") -> Iterator[None]:
        """A row whose turn it is. Until its end it counts as unread, so that later ones wait."""
        waits = self._waits(lane)
        left = 0
        if waits is not None:
            left = _ordinals(row.placed, waits)
            for provider in filter(waits, row.charges):
                lane.leave(provider, row.row_id)
        yield from self._place(lane, row, left)
        lane.last_row_id = row.row_id

    def _place(self, lane: Lane, row: "_Row", left: int) -> Iterator[None]:
        """Send or hold the changes of a row, in order, but for those that are `left` in the spool (bits)."""
        row_id, member_count, bits, charges, placed, payload = row
        bits = self.ledger.load(row_id, lane.workspace_id, member_count, bits, charges, left)
        if bits and bits.bit_count() == member_count:
            return
        coalescer, workspace_id, table = self._coalescer, lane.workspace_id, self.pauses.table
        now_s = self._ports.clock.monotonic()
        lone = LoneChanges(lambda parcel: self.push(lane, parcel))
        has_held = False
        ordinal = -1
        for envelope, offset, length in placed:
            changes = envelope.changes
            if not changes:
                ordinal += 1
                if not (bits and bits >> ordinal & 1):
                    lone.add_without_change(envelope, spool_ref(row_id, ordinal))
                continue
            provider = intern(envelope.provider)  # every window keeps it
            gone: set[str] = set()
            for index, change in enumerate(changes):
                ordinal += 1
                if ordinal and not ordinal % STEP_CHANGES:
                    lone.close()
                    self.stream(lane).enqueue(lane)
                    yield
                is_out = bits and bits >> ordinal & 1
                if is_out or (self.pauses.table is not table and self._has_paused(lane, provider, row_id, ordinal)):
                    continue
                path = change.path
                key = change_key(change.provider_object_id, path, index)
                window = coalescer.offer(ObjectKey(workspace_id, provider, key), path, now_s)
                if coalescer.has_flushed:
                    lone.close()
                    self._send_flushed()
                ref = spool_ref(row_id, ordinal)
                # What one delivery says of one object goes together: nobody shall see the half of it for a window long.
                if window is None or key in gone:
                    lone.add(envelope, provider, change, index, ref, key)
                    if len(changes) > 1:
                        gone.add(key)
                else:
                    has_held = True
                    note = self._note(envelope, change, index, ref)
                    facts = _facts(envelope, change, (row_id, ordinal, offset, length, index))
                    coalescer.hold(window, facts, note)
        lone.close()
        if has_held:
            self._recent.put(row_id, payload)
            self._send_flushed()
        self.stream(lane).enqueue(lane)

    def _note(self, envelope: types_pb2.Envelope, change: types_pb2.FileChange, index: int, ref: bytes) -> bytes | None:
        """What a held change says beside its content, while there is room for it in memory."""
        if self._notes_bytes >= NOTES_BYTES_MAX:
            return None
        note = member_of(envelope, envelope.traceparent, change, index, ref, b"")
        self._notes_bytes += len(note) + NOTE_OVERHEAD_BYTES
        return note

    def _send_flushed(self) -> None:
        for fold in self._coalescer.take_flushed():
            lane = self.lanes[fold.key.workspace_id]
            if self.pauses.is_paused(lane.workspace_id, fold.key.provider):
                self._leave_fold(lane, fold)
                continue
            self.counters.folds += 1
            self.push(lane, fold)
            self.stream(lane).enqueue(lane)


def _ordinals(placed: Iterable[Placed], is_meant: Callable[[str], bool]) -> int:
    """The bits of the changes of these providers."""
    bits = ordinal = 0
    for envelope, _, _ in placed:
        count = len(envelope.changes) or 1
        if is_meant(envelope.provider):
            bits |= (1 << count) - 1 << ordinal
        ordinal += count
    return bits


def _facts(envelope: types_pb2.Envelope, change: types_pb2.FileChange, place: tuple[int, int, int, int, int]) -> Change:
    occurred_us = to_us(change.occurred_at) if change.HasField("occurred_at") else None
    return Change(*place, kind_of(change), occurred_us, to_us(envelope.received_at), len(change.content))
