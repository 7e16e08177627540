"""One mirror: what it is doing, why it stopped, and the turn in which its journal and its disk are touched.

Owns the opened directory and journal, and the loop of a mirror that follows: pull, follow, and after any end try
again, or halt where a safety rail says so. Refuses to know how its pieces work, and how what it does is shown.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_never

from relayfile.clock import Clock
from relayfile.errors import (
    CursorExpired,
    MirrorNotFound,
    MirrorRefused,
    PlanChanged,
    RelayfileError,
    StorageFailed,
)
from relayfile.status import leading_error
from relayfile.syncd.audit import AuditResult, Swept, retry, sweep
from relayfile.syncd.audits import audit, audit_if_due, judge, repair_at_mark
from relayfile.syncd.bring import MassDelete, bring_all, delete_all, delete_plan
from relayfile.syncd.cadence import Cadence
from relayfile.syncd.catch_up import catch_up, prove, relearn
from relayfile.syncd.disk_feed import DiskFeed
from relayfile.syncd.display import Display
from relayfile.syncd.exchange import exchange
from relayfile.syncd.flush import Flushed, flush
from relayfile.syncd.follow import follow
from relayfile.syncd.halted import until_over
from relayfile.syncd.journal import Journal
from relayfile.syncd.journal_pull import PullPhase
from relayfile.syncd.leaving import leave
from relayfile.syncd.local import check_held, decide_held, take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.opening import open_mirror
from relayfile.syncd.patience import patiently
from relayfile.syncd.problem_files import ProblemFiles
from relayfile.syncd.progress import Phase, Progress, Via
from relayfile.syncd.pull import first_pull
from relayfile.syncd.push import Pusher
from relayfile.syncd.rails import disk_error_of, is_full, rail_of
from relayfile.syncd.resolve import Choice, Resolved, resolve
from relayfile.syncd.restore import Restored, restore
from relayfile.syncd.root import Root, RootLost
from relayfile.syncd.rows import Conflict, Cursor
from relayfile.syncd.shown import Audited, MirrorRecord, MirrorState, Seen
from relayfile.syncd.strays import take_in
from relayfile.syncd.unsent import Unsent, unsent
from relayfile.telemetry import get_logger

_log = get_logger(__name__)
_FIRST_DELAY_S = 0.05
SWEEP_PAUSE_S = 1.0
"""A pull that follows another this closely does not look at the whole disk again."""


class Mirror:
    """Made by the registry; ``run`` it in a task group when it follows, ``close`` it at the end."""

    def __init__(
        self,
        record: MirrorRecord,
        clock: Clock,
        open_journal: Callable[[Root], Journal],
        open_with: Callable[[Root, Journal], OpenMirror],
    ) -> None:
        self.display = Display(record, clock)
        self.progress: Progress | None = None
        self._clock = clock
        self._open_journal = open_journal
        self._open_with = open_with
        self._turn = asyncio.Lock()
        self._opening = asyncio.Lock()
        self._open: OpenMirror | None = None
        self._problem_files: ProblemFiles | None = None
        self._failures = 0
        self._pull_ended = asyncio.Event()
        self._unstuck = asyncio.Event()
        self.cadence = Cadence()
        self._disk = DiskFeed()
        self._retired = False

    @property
    def record(self) -> MirrorRecord:
        """What the mirror is."""
        return self.display.record

    @property
    def seen(self) -> Seen:
        """What it shows of itself."""
        return self.display.seen

    @property
    def opened(self) -> OpenMirror | None:
        """The opened mirror; None before its first use and while its directory is not usable."""
        return self._open

    def on_disk(self) -> Cursor | None:
        """Up to where everything is on disk or listed; None while something is pending, or nothing was pulled."""
        if self._open is None or not self._open.journal.cursor.history_id:
            return None
        journal = self._open.journal
        return None if journal.has_pending() else journal.cursor

    def unsent(self) -> Unsent:
        """What only this mirror has; nothing when it cannot be opened: then nobody can tell."""
        return unsent(self._open) if self._open is not None else Unsent()

    async def retire(self) -> None:
        """End a mirror for good: stop what runs, take the marker away. The files stay, and nothing opens it again."""
        self._retired = True
        if self.progress is not None and self.progress.cancel is not None:
            self.progress.cancel()
        async with self._turn, self._opening:
            if self._open is not None:
                await take_in(self._open)  # what is in no list is nobody's
                self._open.root.unmark()
            self.close()
        self.display.state(MirrorState.STOPPED)

    async def look(self) -> None:
        """Open a mirror that nobody has used since the start, so that it can show what it has, or its halt."""
        if self._open is None:
            try:
                await self._opened()
            except RootLost as lost:
                self.display.halted(lost)
            except (MirrorRefused, MirrorNotFound) as error:
                self.display.failed(error)

    def close(self) -> None:
        """Let go of directory and journal; no task may use them any more."""
        self._disk.close()
        if self._open is not None:
            self._open.journal.close()
            self._open.root.close()
            self._open = self._problem_files = None

    # --- what people ask for ----------------------------------------------------------------------------------------

    async def pull(self, *, full: bool, via: Via) -> Progress:
        """Bring the mirror to the store's present revision. A call joins a pull that runs.

        ``MirrorRefused`` when a safety rail forbids it; ``PullStalled`` when it makes no progress any more; the store's
        errors that do not pass by themselves.
        """
        if self.progress is not None:
            return await self._join(self.progress)
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        progress = self.progress = Progress(self._clock.monotonic(), task.cancel)
        self._pull_ended.clear()
        state = self.seen.state
        try:
            async with self._using() as mirror:
                mirror.rights.refused = False  # the token may have been given what it lacked: the store is asked
                self.display.state(MirrorState.PULLING)
                await leave(mirror)
                await patiently(mirror, progress, lambda: self._pull_once(mirror, progress, full=full, via=via))
                started_us = self._clock.now_us()
                started, sent_before = self._clock.monotonic(), progress.wire_bytes
                result = await patiently(mirror, progress, lambda: prove(mirror, progress, repair=True))
                self.cadence.audited(equal=result.equal)
                took_s, sent = self._clock.monotonic() - started, progress.wire_bytes - sent_before
                self.display.audited(Audited(result, started_us, took_s, sent))
                mirror.journal.pulled(now_us=self._clock.now_us(), full=full)
                progress.phase = Phase.DONE
                self.display.pulled()
                self._unstuck.set()
                await self._show()
                return progress
        except RelayfileError as error:
            self.display.failed(error)
            raise
        finally:
            self.progress = None
            self._pull_ended.set()
            if self.seen.state is MirrorState.PULLING:
                self.display.state(state if state is MirrorState.FOLLOWING else MirrorState.STOPPED)
            self.display.write_status(self._open)

    async def audit(self, *, repair: bool, look: bool, verify_content: bool, paths_max: int = 0) -> Audited:
        """Compare with the store at one revision, and if asked with the disk; names ``paths_max`` files that differ."""
        async with self._using() as mirror:
            started_us, started = self._clock.now_us(), self._clock.monotonic()
            looks = look or verify_content
            swept = await self._sweep(mirror, verify_content=verify_content) if looks else None
            progress = Progress(started)
            result, found = await audit(mirror, progress, repair=repair, paths_max=paths_max)
            audited = Audited(result, started_us, self._clock.monotonic() - started, progress.wire_bytes, swept, found)
            self.display.audited(audited)
            await self._show()
            return audited

    async def change(self, record: MirrorRecord) -> None:
        """Be ``record`` from now on; nothing follows meanwhile. Files of dropped paths go to the trash, no other."""
        async with self._turn, self._opening:
            self.close()
            self.display.record = record
        with contextlib.suppress(MirrorRefused):  # shown; the rest is done when the directory is back
            async with self._using() as mirror:
                await leave(mirror)
                await self._show()

    async def restore(self, trash_ids: Sequence[str], directory: str, *, overwrite: bool) -> list[Restored]:
        """Put files from the trash back below ``directory``; empty: where they were."""
        async with self._using() as mirror:
            restored = await restore(mirror, trash_ids, directory, overwrite=overwrite)
            self.cadence.swept_at = -math.inf  # what was restored is an edit, which the next look at the disk finds
            return restored

    async def flush(self) -> Flushed:
        """Wait until every local edit made until now is acknowledged, refused or listed."""
        flushed = await flush(self._using, self._turn, lambda: self.seen.state is MirrorState.FOLLOWING)
        async with self._using() as mirror:
            await self._decided(mirror)
            return flushed

    async def resolve(self, conflicts: Sequence[Conflict], choice: Choice) -> Resolved:
        """End conflicts. A local version that stays is an edit: it is pushed when the mirror next pushes."""
        async with self._using() as mirror:
            resolved, pending = await resolve(mirror, conflicts, choice)
            if pending:
                await bring_all(mirror, Progress(self._clock.monotonic()))
            await self._decided(mirror)
            return resolved

    async def approve_deletes(self, plan_id: str, *, restore: bool = False) -> None:
        """Carry out the deletes that halted the mirror, and go on. ``PlanChanged`` when others are pending now.

        ``restore``: fetch the files again instead; only where they are missing in the directory (`InvalidArgument`).
        """
        async with self._using() as mirror:
            if decide_held(mirror, plan_id, restore=restore):
                self.display.decided()
                await bring_all(mirror, Progress(self._clock.monotonic()))
                await self._decided(mirror)
                self._unstuck.set()
                return
            plan = delete_plan(mirror, {})
            if plan is None or plan.plan_id != plan_id:
                if plan is not None:
                    self.display.halted(MassDelete(plan))
                raise PlanChanged(plan=plan_id, current=plan.plan_id if plan is not None else "")
            mirror.journal.decisions.approve()
            self.display.decided()
            await delete_all(mirror, {}, Progress(self._clock.monotonic()))
            await self._decided(mirror)
        self._unstuck.set()

    # --- following --------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow until cancelled. Failures are shown; those that may pass are tried again, ever less often.

        After a failure that stays it waits for a successful pull; after a halt also for a decision or for what is gone.
        """
        while True:
            await self._run_until_stuck()
            self._unstuck.clear()
            await until_over(self._unstuck, self._turn, lambda: self._open if self.seen.halt is not None else None)

    async def _run_until_stuck(self) -> None:
        retrying = AsyncRetrying(
            retry=retry_if_exception(self._may_pass), wait=self._delay, stop=stop_never, reraise=True
        )
        try:
            await retrying(self._follow)
        except Exception as raised:  # noqa: BLE001 - as below
            # One mirror's end must not end the others: it is shown, and the log has it.
            error = leading_error(raised)
            if self.seen.state is not MirrorState.HALTED:
                error = error or RelayfileError("an unexpected failure; see the log")
                self.display.stopped(error, MirrorState.ERROR)
                _log.error("mirror stopped", mirror=self.record.mirror_id, exc_info=raised)
            self.display.write_status(self._open)

    async def _follow(self) -> None:
        await self.pull(full=False, via=Via.ANY)
        async with self._guarded():
            mirror = self._open
            assert mirror is not None, "a pull opened it"
            self.display.following()
            self._failures = 0
            self.display.write_status(self._open)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._cycles(mirror))
                tasks.create_task(self._disk.follow(mirror, self._turn, self._edited, self._looked))
                tasks.create_task(Pusher(mirror, self._turn, self._rejudge).run())
                await follow(mirror, self._turn, Progress(self._clock.monotonic()), self._told)

    async def _cycles(self, mirror: OpenMirror) -> None:
        """What is done whether or not events come."""
        while True:
            self.cadence.next_cycle_us = self._clock.now_us() + round(mirror.settings.mount_interval_s * 1e6)
            await asyncio.sleep(mirror.settings.mount_interval_s)
            async with self._turn:
                progress = Progress(self._clock.monotonic())
                await retry(mirror)
                if self._clock.monotonic() - self.cadence.swept_at >= mirror.settings.mount_verify_every_s:
                    await self._sweep(mirror, verify_content=False)
                await bring_all(mirror, progress)
                mirror.root.check()
                audited = await audit_if_due(mirror, self.cadence, progress)
                if audited is not None:
                    self.display.audited(audited)
                await self._show()

    async def _edited(self, mirror: OpenMirror, changes: LocalChanges) -> None:
        """With the turn: somebody changed something in the directory."""
        if await take_local(mirror, changes):
            await bring_all(mirror, Progress(self._clock.monotonic()))
        check_held(mirror)
        await self._rejudge()

    async def _rejudge(self) -> None:
        """With the turn: edits were seen, or answered."""
        if self._open is not None and self.display.rejudge(self._open):
            await self._show()

    def _looked(self) -> None:
        self.cadence.swept_at = self._clock.monotonic()
        self.display.swept()

    async def _told(self, result: AuditResult | None, access_changed: bool) -> None:
        """After each batch, with the turn: what a mark said, or that rules changed."""
        mirror = self._open
        assert mirror is not None, "it follows"
        mirror.rights.edited.set()
        self.display.heard(mirror.journal.cursor.revision)
        if access_changed:
            await relearn(mirror, Progress(self._clock.monotonic()), access_changed=True)
            result = None  # the next mark says what is so now
        if result is None:
            if self._problem_files is not None:
                await self._problem_files.agree()
            return
        self.display.audited(Audited(result, self._clock.now_us(), 0.0))
        await repair_at_mark(mirror, self.cadence, result)
        await self._show()

    # --- inside -----------------------------------------------------------------------------------------------------

    async def _pull_once(self, mirror: OpenMirror, progress: Progress, *, full: bool, via: Via) -> None:
        journal = mirror.journal
        if not journal.cursor.history_id or journal.first_pull.mark().phase is not PullPhase.NONE:
            alone = await first_pull(mirror, progress, via)
            # What was committed meanwhile, if anything, the proof finds: it asks where the store is anyway.
            await retry(mirror)  # what was in the way of the first pull may be a conflict
            if alone:
                self._looked()  # there is what was written a moment ago, and nothing else
            else:
                await self._sweep(mirror, verify_content=False)
            await exchange(mirror, self._turn, progress)
            return
        progress.start_revision = journal.cursor.revision
        progress.via = Via.TREE
        # Nobody watches the disk yet: a look at it is part of a pull, but not of each attempt while the store is away.
        if full or self._clock.monotonic() - self.cadence.swept_at >= SWEEP_PAUSE_S:
            await self._sweep(mirror, verify_content=False)
        if full:
            await relearn(mirror, progress, everything=True)
            self.cadence.pulled_fully()
        await retry(mirror)
        await catch_up(mirror, progress)
        await exchange(mirror, self._turn, progress)

    async def _sweep(self, mirror: OpenMirror, *, verify_content: bool) -> Swept:
        swept = await sweep(mirror, verify_content=verify_content)
        self._looked()
        return swept

    async def _join(self, progress: Progress) -> Progress:
        await self._pull_ended.wait()
        if progress.phase is not Phase.DONE:
            raise self.seen.error or MirrorRefused(mirror=self.record.mirror_id, why="the pull was stopped")
        return progress

    @asynccontextmanager
    async def _using(self) -> AsyncIterator[OpenMirror]:
        """The turn, with directory and journal open; rails that break become `MirrorRefused` and a halt."""
        async with self._turn, self._guarded():
            yield await self._opened()

    @asynccontextmanager
    async def _guarded(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception as raised:
            rail = rail_of(raised)
            if rail is None:
                raise
            if isinstance(rail, RootLost):
                self.close()
            halt = self.display.halted(rail)
            raise MirrorRefused(mirror=self.record.mirror_id, why=f"{halt.reason}: {rail}") from rail

    async def _show(self) -> None:
        """What agents read in the directory agrees with what is known."""
        if self._problem_files is not None:
            await self._problem_files.agree()
        self.display.write_status(self._open)

    async def _decided(self, mirror: OpenMirror) -> None:
        """With the turn: what was listed, or waited for somebody, has come to an end."""
        await judge(mirror, self.display, follows=self.record.follow)
        await self._show()

    async def _opened(self) -> OpenMirror:
        async with self._opening:
            if self._retired:
                raise MirrorNotFound(mirror=self.record.mirror_id)
            if self._open is None:
                self._open = opened = await open_mirror(self.record, self._open_journal, self._open_with)
                self._problem_files = ProblemFiles(opened.root.own_fd, opened.journal, opened.writer)
                if opened.journal.decisions.waiting() is not None and (plan := delete_plan(opened, {})) is not None:
                    self.display.halted(MassDelete(plan))  # as before the restart
            self._open.root.check()
            self.display.directory_back()
            return self._open

    def _may_pass(self, raised: BaseException) -> bool:
        error = leading_error(raised)
        if isinstance(error, CursorExpired):
            return True  # the next pull lists
        halt = self.seen.halt
        if halt is not None:
            return halt.plan is None  # a directory may come back by itself; deletes wait for somebody
        if error is None and disk_error_of(raised) is not None:
            error = MirrorRefused(mirror=self.record.mirror_id, why=f"IO_ERROR: {disk_error_of(raised)}")
        if error is None or (isinstance(error, StorageFailed) and not is_full(error)):
            return False
        # Whatever refuses today (a token, a missing workspace, a full disk, a lock) may let us in tomorrow.
        self.display.stopped(error, MirrorState.DISCONNECTED)
        self.display.write_status(self._open)
        return True

    def _delay(self, _state: RetryCallState) -> float:
        self._failures += 1
        settings_max = self._open.settings.retry_delay_max_s if self._open is not None else 30.0
        return float(min(settings_max, _FIRST_DELAY_S * 2 ** min(self._failures, 20)))
