"""What a mirror shows of itself: to callers, in its status file, and in the log when a safety rail stops it.

Owns the values that are shown and when they change. Refuses to decide what a mirror does.
"""

import asyncio
from dataclasses import replace

from relayfile.clock import Clock
from relayfile.errors import RelayfileError
from relayfile.syncd import status_file
from relayfile.syncd.audit import Verdict, rejudged
from relayfile.syncd.bring import MassDelete
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.root import RootLost
from relayfile.syncd.shown import Audited, Halt, MirrorRecord, MirrorState, Seen
from relayfile.telemetry import get_logger

_log = get_logger(__name__)


class Display:
    """One mirror's. ``record`` changes when somebody changes the mirror; ``seen`` by the methods below."""

    def __init__(self, record: MirrorRecord, clock: Clock) -> None:
        self.record = record
        self._seen = Seen()
        self._clock = clock
        self._changed = asyncio.Event()

    @property
    def seen(self) -> Seen:
        """What the mirror shows now."""
        return self._seen

    @seen.setter
    def seen(self, seen: Seen) -> None:
        self._seen = seen
        self._changed.set()
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until something that is shown has changed, or may have: each batch counts."""
        await self._changed.wait()

    def state(self, state: MirrorState) -> None:
        self.seen = replace(self.seen, state=state)

    def following(self) -> None:
        """It follows, and whatever was wrong is over."""
        self.seen = replace(self.seen, state=MirrorState.FOLLOWING, error=None)

    def failed(self, error: RelayfileError) -> None:
        """What went wrong last; says nothing about what the mirror does now."""
        self.seen = replace(self.seen, error=error)

    def stopped(self, error: RelayfileError, state: MirrorState) -> None:
        """The mirror does not go on, or not before it has tried again, because of ``error``."""
        self.seen = replace(self.seen, state=state, error=error)

    def halted(self, rail: RootLost | MassDelete) -> Halt:
        """A safety rail broke: shown until somebody, or the directory's return, ends it."""
        now_us = self._clock.now_us()
        if isinstance(rail, MassDelete):
            halt = Halt("MASS_DELETE", str(rail), rail.plan.create_time_us or now_us, rail.plan)
        else:
            halt = Halt(rail.reason, str(rail), now_us)
        _log.error("mirror halted", mirror=self.record.mirror_id, reason=halt.reason, why=halt.message)
        self.seen = replace(self.seen, state=MirrorState.HALTED, halt=halt)
        return halt

    def directory_back(self) -> None:
        """Ends a halt that waited for the directory; one that waits for a decision about deletes stays."""
        if self.seen.halt is not None and self.seen.halt.plan is None:
            self.seen = replace(self.seen, state=MirrorState.STOPPED, halt=None)

    def decided(self) -> None:
        """Somebody decided about the deletes that halted the mirror: it may go on."""
        self.seen = replace(self.seen, state=MirrorState.STOPPED, halt=None)

    def pulled(self) -> None:
        """A pull ended well: nothing is wrong, and what was decided about deletes is done."""
        self.seen = replace(self.seen, error=None, halt=None)

    def swept(self) -> None:
        """The disk was looked at."""
        self.seen = replace(self.seen, sweep_time_us=self._clock.now_us())

    def heard(self, remote_revision: int) -> None:
        """The store is known to have this revision."""
        self.seen = replace(self.seen, remote_revision=max(self.seen.remote_revision, remote_revision))

    def audited(self, audited: Audited) -> None:
        """A comparison ended; the mirror is as fresh as now unless it differs."""
        result = audited.result
        fresh = self._clock.now_us() if result.verdict is not Verdict.DIFFERENT else self.seen.fresh_time_us
        self.seen = replace(self.seen, audited=audited, fresh_time_us=fresh)
        self.heard(result.at.revision)

    def rejudge(self, mirror: OpenMirror, *, decided: bool = False) -> bool:
        """Edits were seen, or answered: judge anew what was compared last; whether the verdict is another.

        ``decided``: somebody ended what was listed, which no edit tells of. A mark may come before the answer to the
        edit behind it. Where the journal has moved on, the next comparison tells.
        """
        audited = self.seen.audited
        if audited is None or not self.compared_here(mirror):
            return False
        before = audited.result.verdict
        if not decided and mirror.journal.outbox.waits() == (before is Verdict.DIFFERENT):
            return False
        result = rejudged(mirror, audited.result)
        fresh = self.seen.fresh_time_us
        if result.verdict is not Verdict.DIFFERENT:
            fresh = max(fresh, audited.start_us)
        self.seen = replace(self.seen, audited=replace(audited, result=result), fresh_time_us=fresh)
        return (result.verdict is Verdict.DIFFERENT) is not (before is Verdict.DIFFERENT)

    def compared_here(self, mirror: OpenMirror) -> bool:
        """Whether what was compared last is what the journal stands at; nothing was, before the first pull."""
        return self.seen.audited is None or self.seen.audited.result.at == mirror.journal.cursor

    def write_status(self, mirror: OpenMirror | None) -> None:
        """The status file of an open mirror; without a directory there is none."""
        if mirror is not None:
            status_file.write(mirror, self.record, self.seen)
