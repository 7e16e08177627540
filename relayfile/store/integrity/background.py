"""The scrub that nobody has to order: contents compared with their hashes, slowly and for ever.

Owns when a scrub of the node begins, at what rate it reads, that a restart goes on with it, and what of it is told:
one line for each of the first findings, metrics, and what `GetStats` shows. The looking is the auditor's. A scrub that
fails is told, and goes on after the pause. Where SQLite itself finds the file damaged the engine has ended all writing
already, and with the next commit the node ends.
"""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final

from relayfile.clock import Clock
from relayfile.errors import StorageFailed
from relayfile.store.integrity.finding import AuditEnd, AuditOrder, Check, Finding, Place, Tally
from relayfile.store.integrity.place import PlaceFile, ScrubPlace
from relayfile.store.integrity.seam import Auditor
from relayfile.telemetry import ScrubInstruments, get_logger

FIRST_AFTER_S: Final = 600.0
"""Longest rest between the start of the process and its first scrub: a node that starts every day is scrubbed too."""
KEPT_EVERY_S: Final = 60.0
"""A restart looks again at what was looked at since its place was written down."""
FINDINGS_TOLD_MAX: Final = 100
"""Of one scrub, each by a line. A disk is broken then, and a line for each content of it helps nobody: further ones are
counted, so that contents after them are looked at too."""

_log = get_logger(__name__)


@dataclass(slots=True)
class ScrubState:
    """How far the present scrub is, and how the last one ended. Times in Unix microseconds; None: not yet."""

    is_running: bool = False
    started_us: int | None = None
    content_count: int = 0
    content_bytes: int = 0
    """Of the present scrub, or of the last one."""
    finding_count: int = 0
    """Likewise."""
    ended_us: int | None = None
    """When the last one was through."""
    last_finding_count: int = 0
    """Of the last one that was through."""


class BackgroundScrub:
    """`run` it in a task."""

    def __init__(
        self,
        auditor: Auditor,
        clock: Clock,
        interval_s: float,
        bytes_per_second_max: int,
        instruments: ScrubInstruments,
        place: PlaceFile,
    ) -> None:
        """`interval_s`: rest between the end of one scrub and the next one's beginning; 0: none is ever begun."""
        self.state = ScrubState()
        self._auditor = auditor
        self._clock = clock
        self._interval_s = interval_s
        self._order = AuditOrder(
            checks=(Check.CONTENT,), findings_max=sys.maxsize, content_bytes_per_second_max=bytes_per_second_max
        )
        self._instruments = instruments
        self._place = place

    async def run(self) -> None:
        """Until cancelled; returns at once where the scrub is off. `StorageFailed` when the process must end."""
        if not self._interval_s:
            return
        await asyncio.sleep(min(self._interval_s, FIRST_AFTER_S))
        while True:
            try:
                await self.once()
            except (StorageFailed, asyncio.CancelledError):
                raise
            except Exception:  # noqa: BLE001 - told, and tried again: what ends the node is the engine's decision
                self._instruments.failures_total.inc()
                _log.exception("a scrub could not be finished")
            await asyncio.sleep(self._interval_s)

    async def once(self) -> None:
        """One scrub of everything on the node, or what is left of one that an earlier process began."""
        state, begun = self.state, self._place.read()
        order = self._begin(begun)
        try:
            async with aclosing(self._auditor.run(order)) as items:
                kept_s = self._clock.monotonic()
                async for item in items:
                    if isinstance(item, Finding):
                        self._tell(item)
                        continue
                    tally = item.tally if isinstance(item, AuditEnd) else item
                    self._count(tally, begun)
                    if tally.place is not None and self._clock.monotonic() - kept_s >= KEPT_EVERY_S:
                        self._place.keep(self._reached(tally.place))
                        kept_s = self._clock.monotonic()
            self._place.forget()
        finally:
            state.is_running = False
        state.ended_us, state.last_finding_count = self._clock.now_us(), state.finding_count
        self._instruments.findings.set(state.finding_count)
        self._instruments.ended_timestamp_seconds.set(state.ended_us / 1_000_000)
        _log.info(
            "scrub ended", contents=state.content_count, content_bytes=state.content_bytes, findings=state.finding_count
        )

    def _begin(self, begun: ScrubPlace | None) -> AuditOrder:
        state = self.state
        state.is_running = True
        if begun is None:
            state.started_us = self._clock.now_us()
            state.content_count = state.content_bytes = state.finding_count = 0
            return self._order
        state.started_us, state.finding_count = begun.started_us, begun.finding_count
        state.content_count, state.content_bytes = begun.content_count, begun.content_bytes
        return replace(self._order, after=Place(begun.shard_id, begun.workspace_id, begun.path))

    def _count(self, tally: Tally, begun: ScrubPlace | None) -> None:
        state = self.state
        content_count, content_bytes = tally.content_count, tally.content_bytes
        if begun is not None:
            content_count, content_bytes = content_count + begun.content_count, content_bytes + begun.content_bytes
        self._instruments.bytes_total.inc(content_bytes - state.content_bytes)
        state.content_count, state.content_bytes = content_count, content_bytes

    def _reached(self, place: Place) -> ScrubPlace:
        state = self.state
        counted = state.content_count, state.content_bytes, state.finding_count
        return ScrubPlace(*place, state.started_us or 0, *counted)

    def _tell(self, finding: Finding) -> None:
        self.state.finding_count += 1
        # At once: a scrub may take days.
        self._instruments.findings.set(max(self.state.finding_count, self.state.last_finding_count))
        if self.state.finding_count > FINDINGS_TOLD_MAX:
            if self.state.finding_count == FINDINGS_TOLD_MAX + 1:
                _log.error("scrub finds more than it tells: the rest is counted", told=FINDINGS_TOLD_MAX)
            return
        _log.error(
            "scrub finding",
            workspace=finding.workspace_id,
            subject=finding.subject,
            reason=finding.reason,
            message=finding.message,
        )
