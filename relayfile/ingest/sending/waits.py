"""Callers that wait for the commit of what they brought: ingest without a spool (`through`, D4).

A wait is the changes of one workspace's provider in one call. They stand in the workspace's lane as any others and
travel at once or with what waits for the same answer; nothing is held. A caller that gives up takes along what was not
sent. What was sent may still be committed: then the sender's retry, under the same delivery id, is a `duplicate`.

Owns who waits for which outcome, and what is charged for it. Refuses nobody: who calls `enter` sees to the bound.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from itertools import count

from relayfile.ingest.sending.coalesce import Fold
from relayfile.ingest.sending.fold_wire import read_refs, spool_ref
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.parcel import LoneChanges, Parcel
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.traffic import Outcomes, Traffic
from relayfile.ingest.shares import Account, Shares
from relayfile.model import change_key
from relayfile.v1 import types_pb2
from relayfile.wire import to_us

_UNDECIDED = types_pb2.OUTCOME_UNSPECIFIED


class Wait:
    """The changes of one workspace's provider in one call; an envelope without changes is one of them."""

    __slots__ = ("done", "is_paused", "lane", "number", "outcomes", "parcels", "provider", "remaining", "size_bytes")

    def __init__(self, number: int, lane: Lane, provider: str, size_bytes: int) -> None:
        self.number = number
        self.lane = lane
        self.provider = provider
        self.size_bytes = size_bytes
        self.parcels: list[Parcel] = []
        self.outcomes: list[types_pb2.Outcome.ValueType] = []
        """One for each change, in order; unspecified until it is durable."""
        self.remaining = 0
        self.is_paused = False
        """It was over because of a pause."""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Waits(Traffic):
    """See the module."""

    def __init__(
        self, router: Router, batch_changes_max: int, stream_of: Callable[[str], NodeStream], shares: Shares
    ) -> None:
        """As `Traffic`; `shares` are charged with what waits."""
        super().__init__(router, batch_changes_max, stream_of)
        self.shares = shares
        self._waits: dict[int, Wait] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._waits)

    def enter(self, account: Account, envelopes: Sequence[types_pb2.Envelope], size_bytes: int) -> Wait:
        """Send the changes of `envelopes`, all of this account; `leave` must follow, however the wait ends."""
        workspace_id, provider = account
        lane = self.lane_of(workspace_id)
        wait = Wait(next(self._numbers), lane, provider, size_bytes)
        lone = LoneChanges(wait.parcels.append)
        place = 0
        for envelope in envelopes:
            if not envelope.changes:
                lone.add_without_change(envelope, spool_ref(wait.number, place))
                place += 1
            for index, change in enumerate(envelope.changes):
                key = change_key(change.provider_object_id, change.path, index)
                lone.add(envelope, provider, change, index, spool_ref(wait.number, place), key)
                place += 1
        lone.close()
        wait.outcomes = [_UNDECIDED] * place
        wait.remaining = place
        self._waits[wait.number] = wait
        self.shares.add(workspace_id, provider, size_bytes)
        self.accepted(lane, provider, place, to_us(envelopes[0].received_at))
        for parcel in wait.parcels:
            self.push(lane, parcel)
        self.stream(lane).enqueue(lane)
        return wait

    def leave(self, wait: Wait) -> None:
        """Nobody waits any more, because all is decided or in spite of it. What was not sent is forgotten."""
        del self._waits[wait.number]
        self.shares.give_back(wait.lane.workspace_id, wait.provider, wait.size_bytes)
        if wait.remaining:
            self._take_out(wait)
            self.ended(wait.lane, wait.provider, wait.remaining)

    # ... what `Traffic` asks

    def settled(self, refs: bytes, outcomes: Outcomes) -> int:
        """See `Traffic.settled`."""
        settled = 0
        for (number, place), outcome in zip(read_refs(refs), outcomes, strict=True):
            wait = self._waits.get(number)
            if wait is None or wait.outcomes[place] != _UNDECIDED:
                continue  # its caller left, or an answer came twice
            wait.outcomes[place] = outcome
            wait.remaining -= 1
            settled += 1
            if not wait.remaining and not wait.done.done():
                wait.done.set_result(None)
        return settled

    def unfold(self, fold: Fold, complete: AbstractSet[bytes] = frozenset()) -> list[Parcel]:
        """Not called: changes of one object that travel together are put together in the shard's commit."""
        raise AssertionError("nothing is folded here")

    def pauses_changed(self, workspace_ids: Sequence[str]) -> None:
        """What is paused now and was not sent is not sent: its callers are told at once."""
        if self.pauses.table.keys().isdisjoint(workspace_ids):
            return
        for wait in self._waits.values():
            if self.pauses.is_paused(wait.lane.workspace_id, wait.provider) and self._take_out(wait):
                wait.is_paused = True
                if not wait.done.done():
                    wait.done.set_result(None)

    def _take_out(self, wait: Wait) -> bool:
        """Take what was not sent out of its lane; whether there was anything."""
        freed = sum(map(wait.lane.remove, wait.parcels))
        self.stream(wait.lane).queued_bytes -= freed
        return freed > 0

    def take(self, stream: NodeStream, lane: Lane, bytes_max: int) -> list[Parcel]:
        """See `Traffic.take`. What came back after its caller had left is not sent again."""
        while parcels := super().take(stream, lane, bytes_max):
            wanted = [parcel for parcel in parcels if self._is_wanted(parcel)]
            if wanted:
                return wanted
        return []

    def _is_wanted(self, parcel: Parcel) -> bool:
        number, _ = next(read_refs(parcel.refs))
        return number in self._waits
