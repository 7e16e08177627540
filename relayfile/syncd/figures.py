"""The figures of this process's mirrors that are read from them, not counted where they happen: how stale, what waits.

Owns the label `mirror`: of so many mirrors at most, and gone with the mirror. Refreshed every second.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from relayfile.clock import Clock
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import FileState
from relayfile.syncd.shown import MirrorState
from relayfile.telemetry import SyncdInstruments

LABELLED_MAX: Final = 100
"""Mirrors with a figure of their own, by id; `stalest_seconds` is over all."""
_INTERVAL_S: Final = 1.0
_JOURNALS_EVERY: Final = 15
"""Refreshes between two looks into the journals, which cost a little for each file that waits."""


class Figures:
    """Of one process."""

    def __init__(self, mirrors: Iterable[Mirror], instruments: SyncdInstruments, clock: Clock) -> None:
        self._mirrors = mirrors
        self._instruments = instruments
        self._clock = clock
        self._refreshes = 0
        self._labelled: set[str] = set()
        self._halted: dict[str, int] = {}
        """Mirror to the time of the halt that was counted."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.refresh()
            await asyncio.sleep(_INTERVAL_S)

    def refresh(self) -> None:
        """Make the figures those of now."""
        mirrors = list(self._mirrors)
        now_us = self._clock.now_us()
        stale = {mirror.record.mirror_id: staleness_s(mirror, now_us) for mirror in mirrors}
        labelled = set(sorted(stale)[:LABELLED_MAX])
        gauge = self._instruments.staleness_seconds
        for mirror_id in self._labelled - labelled:
            gauge.remove(mirror_id)
        for mirror_id in labelled:
            gauge.labels(mirror=mirror_id).set(stale[mirror_id])
        self._labelled = labelled
        self._instruments.stalest_seconds.set(max(stale.values(), default=0.0))
        opened = [mirror.opened for mirror in mirrors if mirror.opened is not None]
        self._instruments.mirrors.set(len(mirrors))
        self._instruments.problems.set(sum(each.journal.problems.total() for each in opened))
        self._instruments.mirrors_halted.set(sum(mirror.seen.state is MirrorState.HALTED for mirror in mirrors))
        self._count_halts(mirrors)
        if self._refreshes % _JOURNALS_EVERY == 0:
            self._look(opened, now_us)
        self._refreshes += 1

    def _look(self, opened: Sequence[OpenMirror], now_us: int) -> None:
        totals = [each.journal.outbox.totals() for each in opened]
        since_us = min((each.oldest_us for each in totals if each.oldest_us), default=now_us)
        pending = sum(each.journal.unsettled().files.get(FileState.PENDING, 0) for each in opened)
        self._instruments.files_pending.set(pending)
        self._instruments.edits_unsent.set(sum(each.pending_count for each in totals))
        self._instruments.edits_unsent_oldest_seconds.set(max(0, now_us - since_us) / 1e6)

    def _count_halts(self, mirrors: Iterable[Mirror]) -> None:
        halted: dict[str, int] = {}
        for mirror in mirrors:
            halt = mirror.seen.halt
            if halt is not None:
                mirror_id = mirror.record.mirror_id
                halted[mirror_id] = halt.time_us
                if self._halted.get(mirror_id) != halt.time_us:
                    self._instruments.halts_total.labels(reason=halt.reason).inc()
        self._halted = halted


def staleness_s(mirror: Mirror, now_us: int) -> float:
    """Since a mirror last knew that it had everything; of one that never did, since it was made."""
    return max(0, now_us - (mirror.seen.fresh_time_us or mirror.record.create_time_us)) / 1e6
