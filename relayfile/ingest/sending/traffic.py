"""The lanes of all workspaces, the streams on which they stand, and the answers to the batches that left them.

Owns which lanes there are, where a shard's lanes go, and the counts of what is pending in them. Where a change came
from and who waits for its outcome is known to what extends it: `dispatch` (rows of the spool) and `waits` (callers).
Everything happens in the event loop, in plain calls.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from relayfile.ingest.sending.coalesce import Fold
from relayfile.ingest.sending.flight import SentBatch
from relayfile.ingest.sending.fold_wire import REF_BYTES, read_refs, spool_ref
from relayfile.ingest.sending.lane import NOTE_BYTES_GUESS, Lane, Pieces
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.parcel import Parcel
from relayfile.ingest.sending.pauses import Pauses
from relayfile.ingest.sending.router import Router
from relayfile.ingest.status.refusal_reports import RefusalReports
from relayfile.v1 import shard_pb2, types_pb2

Outcomes = Sequence[types_pb2.Outcome.ValueType]


@dataclass(slots=True)
class TrafficCounters:
    """Since the process started."""

    accepted: int = 0
    """Changes made durable, without those that were in the spool at the start."""
    outcomes: Counter[int] = field(default_factory=Counter)
    """Outcome number to changes."""
    folds: int = 0
    unreadable: int = 0
    """Changes of rows that were set aside; they stay pending."""


class Traffic(ABC):
    """See the module. Implements `node_stream.Answers`."""

    def __init__(self, router: Router, batch_changes_max: int, stream_of: Callable[[str], NodeStream]) -> None:
        """`stream_of` gives the stream to an address."""
        self.counters = TrafficCounters()
        self.lanes: dict[str, Lane] = {}
        self.pending = 0
        """Accepted changes without an outcome, unread ones included."""
        self.refusals = RefusalReports(router)
        self.pauses = Pauses()
        self._router = router
        self._batch_changes_max = batch_changes_max
        self._stream_of = stream_of

    # ... what extends it says

    @abstractmethod
    def settled(self, refs: bytes, outcomes: Outcomes) -> int:
        """The changes with these references have durable outcomes. Returns how many of them had none before."""

    @abstractmethod
    def unfold(self, fold: Fold, complete: AbstractSet[bytes] = frozenset()) -> Iterable[Parcel]:
        """The parcels of a fold whose turn it is; with `complete`, of these members again, with their contents."""

    def pauses_changed(self, workspace_ids: Sequence[str]) -> None:  # noqa: B027 - nothing to do where nothing is kept
        """What is paused of these workspaces is not what it was."""

    # ... what streams call

    def connected(self, stream: NodeStream) -> None:
        """A stream begins."""
        self.pauses.begin(stream.address)

    def told(self, stream: NodeStream, pauses: Sequence[shard_pb2.PauseState], *, complete: bool) -> None:
        """The node of a stream told its pauses, or a part of them."""

        def is_its(workspace_id: str) -> bool:
            return self._router.address_of(self._router.shard_of(workspace_id)) == stream.address

        states = [(state.workspace_id, frozenset(state.providers)) for state in pauses]
        changed = self.pauses.told(stream.address, states, complete, is_its)
        if changed:
            self.pauses_changed(changed)

    def take(self, stream: NodeStream, lane: Lane, bytes_max: int) -> list[Parcel]:
        """The next sub-batch of a lane; nothing when another stream has the lane now."""
        owner = self.stream(lane)
        if owner is not stream:
            owner.enqueue(lane)
            return []
        before = lane.queued_bytes
        parcels = lane.take(bytes_max, self._batch_changes_max, self.unfold)
        stream.queued_bytes += lane.queued_bytes - before
        return parcels

    def answered(self, batch: SentBatch, ack: shard_pb2.SubBatchAck) -> None:
        """The outcomes of a batch are durable; what has none goes back to the front of its lane."""
        lane = batch.lane
        self.counters.outcomes.update(ack.outcomes)
        if not ack.content_needed and ack.spool_refs == b"".join([parcel.refs for parcel in batch.parcels]):
            place = 0
            for parcel in batch.parcels:
                end = place + len(parcel.refs) // REF_BYTES
                self._settle(lane, parcel, parcel.refs, ack.outcomes[place:end])
                place = end
            return
        decided = {
            spool_ref(*ref): outcome for ref, outcome in zip(read_refs(ack.spool_refs), ack.outcomes, strict=True)
        }
        again: list[Parcel | Pieces] = []
        for parcel in batch.parcels:
            refs = [spool_ref(*ref) for ref in read_refs(parcel.refs)]
            known = [ref for ref in refs if ref in decided]
            self._settle(lane, parcel, b"".join(known), [decided[ref] for ref in known])
            missing = {ref for ref in refs if ref not in decided}
            if missing:
                again.append(parcel if parcel.source is None else self._again(parcel.source, missing))
        self.stream(lane).queued_bytes += lane.push_front(again)

    def moved(self, stream: NodeStream, batch: SentBatch, refusal: shard_pb2.SubBatchRefusal) -> bool:
        """The node of `stream` does not own the shard. False when nobody knows who does: the batch must stay there."""
        lane = batch.lane
        if self._router.learn(lane.shard_id, refusal.epoch, refusal.address):
            for each in self.lanes.values():
                if each.shard_id == lane.shard_id:
                    stream.queued_bytes -= each.queued_bytes
                    self.stream(each).queued_bytes += each.queued_bytes
                    self.stream(each).enqueue(each)
        owner = self.stream(lane)
        if owner is stream:
            return False
        owner.queued_bytes += lane.push_front(batch.parcels)
        lane.in_flight = False
        owner.enqueue(lane)
        return True

    def reports(self, stream: NodeStream, *, again: bool) -> list[shard_pb2.PendingReport]:
        """Everything that is pending in the lanes of a stream, zeros for what was and is not any more, and what was
        refused for workspaces of its node.

        Nothing when that is what was said last, unless `again`. Idle lanes are forgotten.
        """
        lanes = [lane for lane in self.lanes.values() if self.stream(lane) is stream]
        refusals, is_news = self.refusals.of(stream.address)
        reports: list[shard_pb2.PendingReport] = []
        if again or is_news or any(lane.pending != lane.reported for lane in lanes):
            # Always all of it: a node keeps a process's last report and no other.
            reports = [*refusals, *(report for lane in lanes for report in _report(lane))]
        for lane in lanes:
            lane.reported = dict(lane.pending)
            if not lane.in_flight and not lane.is_queued and not any(lane.pending.values()):
                del self.lanes[lane.workspace_id]
        return reports

    # ... lanes

    def stream(self, lane: Lane) -> NodeStream:
        """The stream to the node that owns a lane's shard now."""
        return self._stream_of(self._router.address_of(lane.shard_id))

    def lane_of(self, workspace_id: str) -> Lane:
        """The lane of a workspace, made when there is none."""
        lane = self.lanes.get(workspace_id)
        if lane is None:
            lane = self.lanes[workspace_id] = Lane(workspace_id, self._router.shard_of(workspace_id))
        return lane

    def accepted(self, lane: Lane, provider: str, count: int, received_us: int) -> None:
        """`count` changes of a provider are pending from now on, the first of them received then."""
        lane.accepted(provider, count, received_us)
        self.pending += count

    def ended(self, lane: Lane, provider: str, count: int) -> None:
        """`count` of them are not pending any more."""
        lane.settled(provider, count)
        self.pending -= count

    def push(self, lane: Lane, item: Parcel | Fold) -> None:
        """Queue behind what waits in the lane. The caller enqueues the lane when it has pushed everything."""
        self.stream(lane).queued_bytes += lane.push(item)

    def _again(self, fold: Fold, missing: AbstractSet[bytes]) -> Pieces:
        return Pieces(self.unfold(fold, missing), len(missing) * NOTE_BYTES_GUESS)

    def _settle(self, lane: Lane, parcel: Parcel, refs: bytes, outcomes: Outcomes) -> None:
        self.ended(lane, parcel.provider, self.settled(refs, outcomes))


def _report(lane: Lane) -> Iterator[shard_pb2.PendingReport]:
    for provider, count in lane.pending.items():
        if count or lane.reported.get(provider):
            yield shard_pb2.PendingReport(
                workspace_id=lane.workspace_id,
                provider=provider,
                pending=count,
                oldest_received_unix_us=lane.ages[provider].oldest_us,
            )
