"""Who works on which redo: requests of dead letters that connected ingest processes normalise again. In memory only.

Owns leases. What is durable is the dead letter's state `replaying`: a lease that ends, or a node that restarts, only
means that it is handed over again. A result counts only under the lease that is current.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from relayfile.clock import Clock
from relayfile.v1 import shard_pb2


class RedoTaker(Protocol):
    """A stream to an ingest process that takes redos."""

    def hand_over(self, redo: shard_pb2.Redo) -> None:
        """Send it with the next answers."""
        ...


@dataclass(slots=True, eq=False)
class _Lease:
    lease_id: str
    taker: RedoTaker | None
    """None: it was given back, and rests."""
    end_s: float
    """On the monotonic clock."""


class RedoDesk:
    """See the module."""

    def __init__(self, clock: Clock, new_id: Callable[[], str], lease_s: float) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called when a redo could be handed over that could not before."""
        self._clock = clock
        self._new_id = new_id
        self._lease_s = lease_s
        self._room: dict[RedoTaker, int] = {}
        self._leases: dict[str, _Lease] = {}

    def join(self, taker: RedoTaker, redos_max: int) -> None:
        """A stream takes so many redos at once."""
        if redos_max > 0:
            self._room[taker] = redos_max
            self.on_change()

    def leave(self, taker: RedoTaker) -> None:
        """A stream ended, and with it the leases of its process."""
        if self._room.pop(taker, None) is not None:
            for dead_letter_id in [each for each, lease in self._leases.items() if lease.taker is taker]:
                del self._leases[dead_letter_id]
            self.on_change()

    @property
    def lease_count(self) -> int:
        """Redos that somebody works on."""
        return len(self._leases)

    @property
    def room(self) -> int:
        """How many more could be handed over now."""
        self._end_expired()
        return sum(self._room.values())

    def is_leased(self, dead_letter_id: str) -> bool:
        """Whether somebody works on it, or has until the end of the lease."""
        self._end_expired()
        return dead_letter_id in self._leases

    def is_current(self, dead_letter_id: str, lease_id: str) -> bool:
        """Whether a result under this lease counts."""
        self._end_expired()
        lease = self._leases.get(dead_letter_id)
        return lease is not None and lease.taker is not None and lease.lease_id == lease_id

    def hand_over(self, redo: shard_pb2.Redo) -> None:
        """Lease it to the stream with the most room, which must have some, and send it there."""
        self._end_expired()
        taker = max(self._room, key=self._room.__getitem__)
        assert self._room[taker] > 0, "there is room"
        self._room[taker] -= 1
        lease = _Lease(self._new_id(), taker, self._clock.monotonic() + self._lease_s)
        self._leases[redo.dead_letter_id] = lease
        redo.lease_id = lease.lease_id
        redo.lease_expire_time.FromNanoseconds((self._clock.now_us() + round(self._lease_s * 1e6)) * 1000)
        taker.hand_over(redo)

    def end(self, dead_letter_id: str) -> None:
        """Nobody works on it any more."""
        lease = self._leases.pop(dead_letter_id, None)
        if lease is not None:
            self._give_room(lease)
        self.on_change()

    def postpone(self, dead_letter_id: str, lease_id: str) -> None:
        """Its process cannot do it: it rests until the lease would have ended, and another one can be handed over."""
        if self.is_current(dead_letter_id, lease_id):
            lease = self._leases[dead_letter_id]
            self._give_room(lease)
            lease.taker = None
            self.on_change()

    def next_end_s(self) -> float | None:
        """Seconds until a lease ends; None: there is none."""
        if not self._leases:
            return None
        return max(0.0, next(iter(self._leases.values())).end_s - self._clock.monotonic())

    def _end_expired(self) -> None:
        now_s = self._clock.monotonic()
        # All leases are equally long: those that were given first end first.
        while self._leases:
            dead_letter_id, lease = next(iter(self._leases.items()))
            if lease.end_s > now_s:
                return
            del self._leases[dead_letter_id]
            self._give_room(lease)

    def _give_room(self, lease: _Lease) -> None:
        if lease.taker is not None and lease.taker in self._room:
            self._room[lease.taker] += 1
