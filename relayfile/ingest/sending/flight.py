"""What was sent to a node and has no answer yet, and how many workspaces may be on their way at once. No I/O."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from relayfile.ingest.sending.fold_wire import sub_batch
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.parcel import Parcel

HEAD_BYTES = 64
"""Of a sub-batch around its parcels, about."""
STALL_S = 1.0
"""A node that answers nothing for so long does not keep other nodes' workspaces waiting for a worker."""


class SentBatch:
    """One sub-batch on its way, kept until its answer: its parcels, and not their copy in the message."""

    __slots__ = ("body", "lane", "parcels", "parked", "sequence", "size_bytes", "wire_bytes")

    def __init__(self, lane: Lane, parcels: list[Parcel], sequence: int) -> None:
        self.lane = lane
        self.parcels = parcels
        self.sequence = sequence
        self.wire_bytes = sum([len(parcel.wire) for parcel in parcels]) + HEAD_BYTES
        self.body = parcels[-1].body
        self.size_bytes = self.wire_bytes + len(self.body)
        self.parked = False
        """It was refused and waits for its time to be sent again."""

    def wire(self) -> bytes:
        """What is sent."""
        lane = self.lane
        return sub_batch(lane.shard_id, 0, self.sequence, lane.workspace_id, [parcel.wire for parcel in self.parcels])


class Workers:
    """How many workspaces may have a batch in flight at once, over all nodes."""

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._freed: list[Callable[[], None]] = []

    def on_free(self, wake: Callable[[], None]) -> None:
        """Call `wake` when a worker becomes free."""
        self._freed.append(wake)

    @property
    def any_free(self) -> bool:
        """Whether a batch may be sent."""
        return self._free > 0

    def take(self, count: int = 1) -> None:
        """Use workers. What is sent again after a cut does not wait: the number may go below zero for a while."""
        self._free -= count

    def give(self, count: int = 1) -> None:
        """Workers are free again."""
        was_full = self._free <= 0
        self._free += count
        if was_full and self._free > 0:
            for wake in self._freed:
                wake()


class Flight:
    """Batches without an answer, in the order of their sequences."""

    def __init__(self, bytes_max: int, workers: Workers) -> None:
        self.credit_bytes = 0
        self.size_bytes = 0
        self._bytes_max = bytes_max
        self._workers = workers
        self._workers_used = 0
        self._batches: dict[tuple[int, int], SentBatch] = {}
        self._sequences: dict[int, int] = {}
        self._progress_s = 0.0

    @property
    def may_depart(self) -> bool:
        """Whether one more batch may leave, whatever its size: there is credit, and a worker."""
        return self.size_bytes < min(self.credit_bytes, self._bytes_max) and self._workers.any_free

    def depart(self, lane: Lane, parcels: list[Parcel], now_s: float) -> SentBatch:
        """Number a new batch; it is in flight from now on."""
        if not self._batches:
            self._progress_s = now_s
        sequence = self._sequences.get(lane.shard_id, 0) + 1
        self._sequences[lane.shard_id] = sequence
        batch = SentBatch(lane, parcels, sequence)
        lane.in_flight = True
        self._batches[(lane.shard_id, sequence)] = batch
        self.size_bytes += batch.size_bytes
        self._use_workers(1)
        return batch

    def landed(self, batch: SentBatch, now_s: float) -> None:
        """The batch has its answer, or goes elsewhere."""
        if batch.parked:
            self.unpark(batch)
        del self._batches[(batch.lane.shard_id, batch.sequence)]
        self.size_bytes -= batch.size_bytes
        self._progress_s = now_s
        if self._workers_used > 0:
            self._use_workers(-1)

    def park(self, batch: SentBatch) -> None:
        """The node refused it for now. Until it is sent again it takes neither credit nor a worker: workspaces that
        cannot go on, however many, do not hold up the others."""
        batch.parked = True
        self.size_bytes -= batch.size_bytes
        if self._workers_used > 0:
            self._use_workers(-1)

    def unpark(self, batch: SentBatch) -> None:
        """It is sent again."""
        batch.parked = False
        self.size_bytes += batch.size_bytes
        self._use_workers(1)

    def find(self, shard_id: int, sequence: int) -> SentBatch | None:
        """The batch with this number, unless it was answered."""
        return self._batches.get((shard_id, sequence))

    def batches(self) -> Iterable[SentBatch]:
        """Everything without an answer, in order."""
        return list(self._batches.values())

    def since(self, shard_id: int, sequence: int) -> Iterable[SentBatch]:
        """What a node asks for again."""
        return [batch for (shard, number), batch in self._batches.items() if shard == shard_id and number >= sequence]

    def connected(self, now_s: float) -> None:
        """A stream is open; everything without an answer will be sent again on it."""
        self._progress_s = now_s
        self._use_workers(len(self._batches))
        for batch in self._batches.values():
            if batch.parked:
                batch.parked = False
                self.size_bytes += batch.size_bytes

    def disconnected(self) -> None:
        """The stream ended. Nobody waits for a worker because of a node that is away."""
        self._use_workers(-self._workers_used)

    def give_up_stalled(self, now_s: float) -> None:
        """Free the workers when nothing was answered for a while; the batches stay in flight."""
        if now_s - self._progress_s > STALL_S:
            self._use_workers(-self._workers_used)

    def _use_workers(self, count: int) -> None:
        self._workers_used += count
        if count > 0:
            self._workers.take(count)
        elif count < 0:
            self._workers.give(-count)


class Outbox:
    """What waits to be put into messages: batches that must be sent again, then lanes with something to send."""

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self.was_held_up = False
        """Lanes had something to send, and the node's credits or workers forbade it; whoever looks sets it back."""
        self._again: deque[SentBatch] = deque()
        self._lanes: deque[Lane] = deque()

    def add(self, lane: Lane) -> None:
        """A lane joins the queue, unless it stands there, waits for an answer, or has nothing."""
        if not lane.in_flight and not lane.is_queued and lane.has_queued:
            lane.is_queued = True
            self._lanes.append(lane)

    def send_again(self, batches: Iterable[SentBatch]) -> None:
        """Send these behind what is to be sent again already."""
        self._again.extend(batches)

    def put_back(self, batch: SentBatch) -> None:
        """It did not fit: it comes first next time."""
        self._again.appendleft(batch)

    def forget_again(self) -> None:
        """The stream ended: what must be sent again is asked of the flight when there is a new one."""
        self._again.clear()

    def candidates(self, make: Callable[[Lane, bool], SentBatch | None]) -> Iterator[SentBatch]:
        """In turn, as far as credits and workers go. `make` makes a lane's batch; the flag says that others wait."""
        while self._again:
            batch = self._again.popleft()
            if not batch.parked and self._flight.find(batch.lane.shard_id, batch.sequence) is batch:
                yield batch
        while self._lanes and self._flight.may_depart:
            lane = self._lanes.popleft()
            lane.is_queued = False
            made = make(lane, bool(self._lanes))
            if made is not None:
                yield made
        if self._lanes:
            self.was_held_up = True
