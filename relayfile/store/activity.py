"""What was committed lately, for the figures of the node: told once for each committed entry.

Owns figures of this process only; they begin at zero with it. Refuses to read rows. Bounded: slices of the last minute,
and so many workspaces in each.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from relayfile.clock import Clock
from relayfile.model import Outcome
from relayfile.store.engine import PlannedEntry, WorkspaceKey
from relayfile.store.plan.writeback.rows import UNFINISHED, OperationKind, OperationRow, OperationState
from relayfile.telemetry import StoreInstruments, WritebackInstruments

WINDOW_S: Final = 60.0
SLICE_S: Final = 5.0
SLICE_WORKSPACES_MAX: Final = 2_000
"""Others that change in the slice are left out of it."""
MICROSECONDS: Final = 1_000_000


class Busy(NamedTuple):
    """A workspace that changed in the last minute."""

    key: WorkspaceKey
    changes_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class _Slice:
    begun_at: float
    loads: dict[WorkspaceKey, tuple[int, int]] = field(default_factory=dict)
    """(changes, bytes)."""


class NodeActivity:
    """The figures of one node."""

    def __init__(self, clock: Clock, instruments: StoreInstruments, writeback: WritebackInstruments) -> None:
        self._clock = clock
        self._instruments = instruments
        self._writeback = writeback
        for outcome in Outcome:  # from 0, so that the first of a kind is an increase to Prometheus
            instruments.outcomes_total.labels(outcome.name.lower())
        for kind in OperationKind:
            for end in OperationState:
                if end not in UNFINISHED:
                    writeback.ends_total.labels(kind.name.lower(), end.name.lower())
        self._started_at = clock.monotonic()
        self._slices: deque[_Slice] = deque()
        self.revisions: dict[int, int] = {}
        """Shard -> revisions made."""

    def committed(self, entry: PlannedEntry, change_count: int, byte_count: int) -> None:
        """An entry is durable, and with it so many changes or file calls that came with so many bytes."""
        key, plan, _ = entry
        self._instruments.entries_total.inc()
        if plan.events:
            self.revisions[key.shard_id] = self.revisions.get(key.shard_id, 0) + len(plan.events)
        if plan.last_received_us:
            now_us = self._clock.now_us()
            for received_us in plan.last_received_us.values():
                self._instruments.receive_to_commit_seconds.observe(max(0, now_us - received_us) / MICROSECONDS)
        if plan.operations is not None:
            for row in plan.operations.rows:
                self._step(row)
        loads = self._slice(self._clock.monotonic()).loads
        before = loads.get(key)
        if before is not None:
            loads[key] = before[0] + change_count, before[1] + byte_count
        elif len(loads) < SLICE_WORKSPACES_MAX:
            loads[key] = change_count, byte_count

    def busiest(self, limit: int) -> list[Busy]:
        """At most `limit` workspaces, most changes first."""
        now = self._clock.monotonic()
        self._forget(now)
        sums: dict[WorkspaceKey, tuple[int, int]] = {}
        for each in self._slices:
            for key, (changes, size_bytes) in each.loads.items():
                before = sums.get(key, (0, 0))
                sums[key] = before[0] + changes, before[1] + size_bytes
        seconds = max(1.0, min(WINDOW_S, now - self._started_at))
        busiest = sorted(sums.items(), key=lambda item: (-item[1][0], item[0]))[:limit]
        return [Busy(key, changes / seconds, size_bytes / seconds) for key, (changes, size_bytes) in busiest]

    def _slice(self, now: float) -> _Slice:
        if not self._slices or now - self._slices[-1].begun_at >= SLICE_S:
            self._forget(now)
            self._slices.append(_Slice(now))
        return self._slices[-1]

    def _forget(self, now: float) -> None:
        while self._slices and now - self._slices[0].begun_at >= WINDOW_S:
            self._slices.popleft()

    def _step(self, row: OperationRow) -> None:
        """Of the plan that wrote the row, if what is told of it was of that plan too: a row is written for less."""
        kind = row.kind.name.lower()
        if row.state is OperationState.CLAIMED and row.claimed_us == row.modified_us:
            self._writeback.claims_total.labels(kind).inc()
        elif row.state not in UNFINISHED and row.ended_us == row.modified_us:
            self._writeback.ends_total.labels(kind, row.state.name.lower()).inc()
