"""Whether the spool takes more (D4, D14): the one place that refuses because the spool has no room. Pure.

What counts is each envelope as it is stored, and `ENVELOPE_OVERHEAD_BYTES` for its part of a row. Where the file has
more in use than that, because rows of half a page leave the rest of it empty or settled ones left holes, the file
counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from relayfile.errors import Unavailable
from relayfile.ingest.intake import PastShare
from relayfile.ingest.shares import Account, Shares
from relayfile.ingest.spool.payload import ENVELOPE_OVERHEAD_BYTES
from relayfile.v1 import types_pb2

RETRY_AFTER_S_MIN = 1.0
RETRY_AFTER_S_MAX = 30.0
"""Also where nothing leaves at all."""
DRAIN_SMOOTHING = 0.3
"""How much of the drain rate is that of the last second."""


class Admission:
    """Bytes that are in the spool or on their way into it."""

    def __init__(
        self,
        bytes_max: int,
        waiting_bytes_max: int,
        *,
        used_bytes: Callable[[], int],
        waiting_bytes: Callable[[], int],
    ) -> None:
        """`used_bytes` tells what the spool's file has in use, `waiting_bytes` what waits in memory for its disk, of
        callers that gave up waiting too.
        """
        self.bytes_max = bytes_max
        self.shares = Shares(bytes_max)
        self._waiting_bytes_max = waiting_bytes_max
        self._used_bytes = used_bytes
        self._waiting_bytes = waiting_bytes
        self._freed_bytes = 0
        self._leaving_bytes = 0
        """Released, and still in the file: removing rows waits for a commit to ride along with."""
        self._drain_bytes_per_s = 0.0

    @property
    def stored_bytes(self) -> int:
        """What is charged now."""
        return self.shares.size_bytes

    def admit(self, envelopes: Sequence[types_pb2.Envelope], raws: Sequence[bytes]) -> None:
        """Charge all of them, or none and raise: `Unavailable`, or `PastShare` with all accounts that are past theirs.

        `raws` are the same, serialised. What is admitted must be given to the spool at once, and is given back with
        `release` when it leaves the spool or does not get into it.
        """
        waiting_bytes = self._waiting_bytes()
        if len(raws) == 1:
            envelope = envelopes[0]
            size_bytes = len(raws[0]) + ENVELOPE_OVERHEAD_BYTES
            used_bytes = self._check_whole(size_bytes, waiting_bytes)
            workspace_id, provider = envelope.workspace_id, envelope.provider
            if excess := self.shares.excess(workspace_id, provider, size_bytes, used_bytes):
                raise PastShare({(workspace_id, provider): self._retry_after_s(excess)})
            self.shares.add(workspace_id, provider, size_bytes)
            return
        wanted: dict[Account, int] = {}
        for envelope, raw in zip(envelopes, raws, strict=True):
            account = (envelope.workspace_id, envelope.provider)
            wanted[account] = wanted.get(account, 0) + len(raw) + ENVELOPE_OVERHEAD_BYTES
        used_bytes = self._check_whole(sum(wanted.values()), waiting_bytes)
        past: dict[Account, float] = {}
        for (workspace_id, provider), size_bytes in wanted.items():
            if excess := self.shares.excess(workspace_id, provider, size_bytes, used_bytes):
                past[workspace_id, provider] = self._retry_after_s(excess)
            self.shares.add(workspace_id, provider, size_bytes)
        if past:
            self._take_back(wanted.items())
            raise PastShare(past)

    def recovered(self, workspace_id: str, charges: Mapping[str, int]) -> None:
        """A row was in the spool at the start; `charges` are its bytes by provider."""
        for provider, size_bytes in charges.items():
            self.shares.add(workspace_id, provider, size_bytes)

    def release(self, freed: Iterable[tuple[Account, int]]) -> None:
        """These bytes are free again."""
        before = self.shares.size_bytes
        self._take_back(freed)
        freed_bytes = before - self.shares.size_bytes
        self._freed_bytes += freed_bytes
        self._leaving_bytes += freed_bytes

    def committed(self) -> None:
        """A commit of the spool ended: what was released before it is not in use any more."""
        self._leaving_bytes = 0

    def tick(self, seconds: float) -> None:
        """So much time has passed since the last call: learn how fast the spool drains."""
        rate, self._freed_bytes = self._freed_bytes / seconds, 0
        self._drain_bytes_per_s += DRAIN_SMOOTHING * (rate - self._drain_bytes_per_s)

    def _take_back(self, charges: Iterable[tuple[Account, int]]) -> None:
        for (workspace_id, provider), size_bytes in charges:
            self.shares.give_back(workspace_id, provider, size_bytes)

    def _check_whole(self, size_bytes: int, waiting_bytes: int) -> int:
        """What the file has, or will soon have, in use."""
        used_bytes = self._used_bytes() + waiting_bytes - self._leaving_bytes
        excess = max(self.shares.size_bytes, used_bytes) + size_bytes - self.bytes_max
        if excess > 0:
            raise Unavailable(what="spool (it is full)", retry_after_s=self._retry_after_s(excess))
        if waiting_bytes and waiting_bytes + size_bytes > self._waiting_bytes_max:
            raise Unavailable(what="spool (its disk is slow)", retry_after_s=RETRY_AFTER_S_MIN)
        return used_bytes

    def _retry_after_s(self, excess_bytes: int) -> float:
        """When so many bytes have drained, as fast as they did of late."""
        if self._drain_bytes_per_s * RETRY_AFTER_S_MAX <= excess_bytes:
            return RETRY_AFTER_S_MAX
        return max(RETRY_AFTER_S_MIN, excess_bytes / self._drain_bytes_per_s)
