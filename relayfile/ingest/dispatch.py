"""From durable rows to lanes, and from answers back to the spool.

Each change of a row that became durable, or was read back, goes out at once or is held by the coalescer; folds whose
window closed follow. What the shard answered is settled in the ledger; what it asks for again goes back to the front.

Owns what becomes of each row of the spool; lanes and their counts are `traffic`'s. Everything happens in the event
loop, in plain calls: no task and no future for a change. Refuses to wait: the pipeline around it has the timers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from sys import intern

from relayfile.clock import Clock
from relayfile.errors import DataCorrupted
from relayfile.ingest.coalesce import NOTE_OVERHEAD_BYTES, Change, Coalescer, Fold, ObjectKey
from relayfile.ingest.flight import SentBatch
from relayfile.ingest.fold_wire import kind_of, member_of, spool_ref
from relayfile.ingest.lane import Lane
from relayfile.ingest.ledger import RowLedger
from relayfile.ingest.node_stream import NodeStream
from relayfile.ingest.parcel import LoneChanges, Parcel, RecentPayloads, parcels_of
from relayfile.ingest.payload import PayloadBuilder, Placed, parse_charges, read_row
from relayfile.ingest.router import Router
from relayfile.ingest.spool_file import StoredRow
from relayfile.ingest.traffic import Outcomes, Traffic
from relayfile.model import change_key
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import to_us

_log = get_logger(__name__)
NOTES_BYTES_MAX = 16 << 20
"""Encoded ids of held changes that are kept in memory; beyond, they are read back when their fold leaves."""
STEP_CHANGES = 500
"""Changes of a row that are worked on in one go."""
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
        self._coalescer = coalescer
        self._recent = recent
        self._limits = limits
        self._ports = ports
        self._notes_bytes = 0

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
        lane = self.lanes[row.workspace_id]
        if row.row_id <= lane.last_row_id:
            return
        if lane.has_unread or not self.has_room(lane) or row.member_count > STEP_CHANGES:
            self.leave(row)
            return
        lane.newest_row_id = row.row_id
        for _ in self._place(lane, row.row_id, row.member_count, 0, row.charges, row.placed, row.stored):
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
        try:
            placed = read_row(row.row_id, lane.workspace_id, row.member_count, row.payload)
        except DataCorrupted as error:
            lane.last_row_id = row.row_id
            lost = row.member_count - row.bits.bit_count()
            self.counters.unreadable += lost
            _log.error("a row of the spool is damaged and set aside", changes=lost, why=error.what)
        else:
            charges = parse_charges(row.providers, len(row.payload))
            yield from self._place(lane, row.row_id, row.member_count, row.bits, charges, placed, row.payload)

    @property
    def held_total(self) -> int:
        """Changes that were held for a window so far."""
        return self._coalescer.held_total

    def has_room(self, lane: Lane) -> bool:
        """Whether a lane may take one more row into memory."""
        return (
            lane.queued_bytes < LANE_BYTES_MAX and self.stream(lane).queued_bytes < self._limits.stream_queue_bytes_max
        )

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
        """See `Traffic.take`; the backlog may fill the lane again."""
        parcels = super().take(stream, lane, bytes_max)
        if lane.has_unread:
            self._ports.hungry(lane)
        self._ports.has_room()
        return parcels

    def answered(self, batch: SentBatch, ack: shard_pb2.SubBatchAck) -> None:
        """See `Traffic.answered`; rows that are finished leave the spool."""
        super().answered(batch, ack)
        finished = self.ledger.take_finished()
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

    def _place(
        self,
        lane: Lane,
        row_id: int,
        member_count: int,
        bits: int,
        charges: Mapping[str, int],
        placed: Iterable[Placed],
        payload: bytes,
    ) -> Iterator[None]:
        """Send or hold the changes of a row, in order. Until its end it counts as unread, so that later ones wait."""
        self.ledger.load(row_id, lane.workspace_id, member_count, bits, charges)
        coalescer, workspace_id = self._coalescer, lane.workspace_id
        now_s = self._ports.clock.monotonic()
        lone = LoneChanges(lambda parcel: self.push(lane, parcel))
        has_held = False
        ordinal = -1
        for envelope, offset, length in placed:
            changes = envelope.changes
            if not changes:
                ordinal += 1
                if not bits >> ordinal & 1:
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
                if bits and bits >> ordinal & 1:
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
                    note = None
                    if self._notes_bytes < NOTES_BYTES_MAX:
                        note = member_of(envelope, envelope.traceparent, change, index, ref, b"")
                        self._notes_bytes += len(note) + NOTE_OVERHEAD_BYTES
                    facts = _facts(envelope, change, (row_id, ordinal, offset, length, index))
                    coalescer.hold(window, facts, note)
        lone.close()
        if has_held:
            self._recent.put(row_id, payload)
            self._send_flushed()
        lane.last_row_id = row_id
        self.stream(lane).enqueue(lane)

    def _send_flushed(self) -> None:
        for fold in self._coalescer.take_flushed():
            self.counters.folds += 1
            lane = self.lanes[fold.key.workspace_id]
            self.push(lane, fold)
            self.stream(lane).enqueue(lane)


def _facts(envelope: types_pb2.Envelope, change: types_pb2.FileChange, place: tuple[int, int, int, int, int]) -> Change:
    occurred_us = to_us(change.occurred_at) if change.HasField("occurred_at") else None
    return Change(*place, kind_of(change), occurred_us, to_us(envelope.received_at), len(change.content))
