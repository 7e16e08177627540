"""Sending local edits: one request at a time, durable before it is sent, repeated until its answer is known.

What the store does not take goes back to the outbox: collisions wait for the event that tells of the other edit,
refusals become listed problems. While the store cannot be reached edits stay queued and everything else goes on (I6).
Refuses to look at the disk for changes.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import grpc
from opentelemetry.trace import SpanKind
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_never, wait_exponential_jitter

from relayfile import faults
from relayfile.errors import (
    CursorExpired,
    DeadlineExpired,
    PermissionDenied,
    QuotaExceeded,
    RelayfileError,
    RequestIdReused,
    Unauthenticated,
)
from relayfile.status import RETRYABLE, code_of
from relayfile.syncd.bring import bring_all
from relayfile.syncd.delivery import Answer, Outcome, Parcel
from relayfile.syncd.journal_outbox import NEVER_US, plain
from relayfile.syncd.local import check_held, take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.parcel import pack, repack
from relayfile.syncd.progress import Progress
from relayfile.syncd.reconcile import Mode
from relayfile.syncd.rows import Answered, EditKind, Entry, EntryState, Problem
from relayfile.telemetry import get_logger
from relayfile.telemetry.conventions import MIRROR, messaging

_log = get_logger(__name__)
_FIRST_DELAY_S: Final = 0.05
_COLLISION_DELAY_S: Final = 0.05
_REFUSAL_DELAY_S: Final = 1.0
_RESTLESS_DELAY_S: Final = 0.1
_RESTLESS_MAX: Final = 10_000
_DELAY_MAX_S: Final = 300.0
_HOPELESS: Final = frozenset({"TOO_LARGE", "INVALID_ARGUMENT"})
"""Refusals that end only when the file changes."""
_WITHDRAWN_ROWS: Final = 5_000


class Pusher:
    """Of one opened mirror. ``run`` it beside what follows, or ``drain`` with the mirror's turn.

    ``recorded``, with the turn, hears of every answer that ``run`` has recorded.
    """

    def __init__(
        self, mirror: OpenMirror, turn: asyncio.Lock, recorded: Callable[[], Awaitable[object]] | None = None
    ) -> None:
        self._mirror = mirror
        self._turn = turn
        self._recorded = recorded
        self._alone: set[str] = set()
        self._restless: dict[str, int] = {}
        """Files that were changed whenever they were about to be sent: how often in a row."""

    async def run(self) -> None:
        """Send what is queued, for ever. Ends only with an error that is not about the store, or a safety rail, or
        ``CursorExpired`` when the store has another history."""
        rights = self._mirror.rights
        while True:
            rights.edited.clear()
            async with rights.sending:
                async with self._turn:
                    looked_us = self._mirror.clock.now_us()
                    parcel = await self._next()
                if parcel is not None:
                    answers = await self._send(parcel)
                    async with self._turn:
                        await self._record(parcel, answers)
                        if self._recorded is not None:
                            await self._recorded()
                    continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s(looked_us)):
                    await rights.edited.wait()

    async def drain(self) -> bool:
        """Send what is due, with the turn held by the caller; the store's errors pass through, what is sent is kept.

        True when something was sent, or may have been: the events behind it are to be heard.
        """
        if self._mirror.rights.sending.locked():
            return True  # somebody sends already
        sent = False
        async with self._mirror.rights.sending:
            while (parcel := await self._next()) is not None:
                sent = True
                await self._record(parcel, await self._deliver(parcel))
        return sent

    # --- one request ------------------------------------------------------------------------------------------------

    async def _next(self) -> Parcel | None:
        """A request that was sent and not answered, or a new one, on disk in the journal."""
        mirror = self._mirror
        outbox = mirror.journal.outbox
        for entries in outbox.unanswered():
            parcel = await repack(mirror, entries)
            if parcel is not None:
                return parcel
            await self._resolve(entries)
        if mirror.rights.mode is Mode.READ_ONLY:
            return None
        parcel, stale = await pack(mirror, self._alone)
        if stale:
            await self._look_again([each.disk_path for each in stale])
            self._defer(stale)
        if parcel is not None:
            for entry in parcel.entries:
                self._restless.pop(entry.path, None)
            outbox.sent(parcel.entries)
            faults.point("syncd.outbox.after_sent_before_send")
        return parcel

    def _defer(self, stale: Sequence[Entry]) -> None:
        """Files that somebody goes on writing to are not read without end."""
        if len(self._restless) > _RESTLESS_MAX:
            self._restless.clear()
        now_us = self._mirror.clock.now_us()
        for entry in stale:
            count = self._restless[entry.path] = self._restless.get(entry.path, -1) + 1
            self._mirror.journal.outbox.defer([entry.path], now_us + _delay_us(_RESTLESS_DELAY_S, count))

    async def _send(self, parcel: Parcel) -> list[Answer]:
        retrying = AsyncRetrying(
            retry=retry_if_exception(_passes),
            wait=wait_exponential_jitter(
                multiplier=_FIRST_DELAY_S, max=self._mirror.settings.retry_delay_max_s, jitter=_FIRST_DELAY_S
            ),
            stop=stop_never,
            before_sleep=self._failed,
            reraise=True,
        )
        return await retrying(self._deliver, parcel)

    async def _deliver(self, parcel: Parcel) -> list[Answer]:
        """One attempt. What the store says of the request as a whole is an answer to each of its edits."""
        try:
            with self._mirror.tracing.begin(
                "send mirror", "", SpanKind.PRODUCER, messaging("send", "send", "mirror", len(parcel.entries))
            ) as span:
                span.set(MIRROR, self._mirror.root.marker.mirror_id)
                answers = await self._mirror.delivery.deliver(parcel)
        except CursorExpired:
            raise  # not to these edits: whoever hears of another history sends none of its numbers again
        except RequestIdReused:
            answers = [Answer(Outcome.COLLIDED, 0, RequestIdReused.reason)] * len(parcel.entries)
        except RelayfileError as error:
            if _passes(error):
                raise
            answers = [self._as_a_whole(parcel, error)] * len(parcel.entries)
        self._mirror.rights.failures = 0
        faults.point("syncd.outbox.after_answer_before_journal")
        return answers

    def _as_a_whole(self, parcel: Parcel, error: RelayfileError) -> Answer:
        if isinstance(error, PermissionDenied) and not parcel.is_upload:
            self._mirror.rights.refused = True  # one file's refusal would be its own result
        elif len(parcel.entries) > 1:
            self._alone |= {each.path for each in parcel.entries}
            return Answer(Outcome.COLLIDED, 0, error.reason, str(error))
        return Answer(Outcome.REFUSED, 0, error.reason, str(error))

    def _failed(self, state: RetryCallState) -> None:
        rights = self._mirror.rights
        rights.failures += 1
        error = state.outcome.exception() if state.outcome is not None else None
        if rights.failures == 1:
            _log.warning("edits wait for the store", mirror=self._mirror.root.marker.mirror_id, why=str(error))

    # --- answers ----------------------------------------------------------------------------------------------------

    async def _record(self, parcel: Parcel, answers: Sequence[Answer]) -> None:
        mirror = self._mirror
        outbox = mirror.journal.outbox
        now = outbox.load(each.path for each in parcel.entries)
        pairs = [
            (entry, answer)
            for entry, answer in zip(parcel.entries, answers, strict=True)
            if (known := now.get(entry.path)) is not None
            and known.state is EntryState.SENT
            and known.request_id == parcel.request_id
        ]
        taken = [(entry, answer) for entry, answer in pairs if answer.outcome is Outcome.TAKEN]
        outbox.acknowledged([Answered(entry, answer.revision) for entry, answer in taken], mirror.clock.now_us())
        self._count(parcel, {entry.path for entry, _ in taken}, [answer for _, answer in taken])
        for entry, answer in pairs:
            if answer.outcome is Outcome.COLLIDED:
                delay_us = _delay_us(_COLLISION_DELAY_S, entry.attempt_count)
                outbox.again([entry], mirror.clock.now_us() + delay_us, answer.revision)
            elif answer.outcome is Outcome.REFUSED:
                self._refuse(entry, answer)
        stuck = [each for each, answer in pairs if answer.outcome is Outcome.COLLIDED and each.attempt_count]
        if stuck:
            await self._rebase(stuck)
        if mirror.rights.refused:
            self._withdraw_all()
        await self._look_again([entry.disk_path for entry, _ in pairs])
        if mirror.journal.has_pending():
            await bring_all(mirror, Progress(mirror.clock.monotonic()))
        mirror.rights.told()

    def _refuse(self, entry: Entry, answer: Answer) -> None:
        mirror = self._mirror
        now_us = mirror.clock.now_us()
        delay_us = _delay_us(_REFUSAL_DELAY_S, entry.attempt_count)
        attempt_us = NEVER_US if answer.reason in _HOPELESS else now_us + delay_us
        what = "delete" if entry.content_hash is None else "edit"
        message = f"The store does not take the {what}: {answer.reason}: {answer.message}"
        problem = Problem(entry.path, "PUSH_REFUSED", message[:1_000], entry.known_revision, now_us)
        mirror.journal.outbox.refused([entry], [problem], attempt_us)
        mirror.rights.refused_count += 1

    def _count(self, parcel: Parcel, taken: set[str], answers: Sequence[Answer]) -> None:
        rights = self._mirror.rights
        self._alone -= taken
        sizes = [
            len(content) for entry, content in zip(parcel.entries, parcel.contents, strict=True) if entry.path in taken
        ]
        rights.acknowledged_count += len(taken)
        rights.acknowledged_revision = max([rights.acknowledged_revision, *(each.revision for each in answers)])
        self._mirror.instruments.files_pushed_total.inc(len(taken))
        self._mirror.instruments.bytes_pushed_total.inc(sum(sizes))

    def _withdraw_all(self) -> None:
        """The token may write nothing: what was edited is restored, what was made stays here."""
        journal = self._mirror.journal
        now_us = self._mirror.clock.now_us()
        for state in (EntryState.QUEUED, EntryState.REFUSED, EntryState.HELD):
            while entries := journal.outbox.in_state(state, "", _WITHDRAWN_ROWS):
                why = "The token may not write: the file is in no other place than here."
                new = [each for each in entries if each.base_hash is None]
                with journal.together():
                    journal.outbox.forget(each.path for each in entries)
                    journal.look_again(each.path for each in entries)
                    journal.forget_local(each.path for each in new)
                    journal.problems.drop(each.path for each in new)
                    journal.problems.add([Problem(each.disk_path, "NOT_PUSHED", why, 0, now_us) for each in new])

    # --- what is not known ------------------------------------------------------------------------------------------

    async def _resolve(self, entries: Sequence[Entry]) -> None:
        """A request without an answer that cannot be repeated, because a file changed since: ask what became of it."""
        mirror = self._mirror
        files, revision = await mirror.delivery.held([each.path for each in entries], mirror.journal.cursor.history_id)
        arrived = []
        missing = []
        for entry in entries:
            file = files.get(entry.path)
            if entry.kind in (EditKind.DELETE, EditKind.MOVED_AWAY):
                done = file is None
            else:
                done = file is not None and file.content_sha256 == entry.content_hash
            if done:
                arrived.append(Answered(entry, file.revision if file is not None else revision))
            else:
                missing.append(entry)
        mirror.journal.outbox.acknowledged(arrived, mirror.clock.now_us())
        mirror.journal.outbox.again(missing, 0, revision)
        await self._look_again([each.disk_path for each in entries])

    async def _rebase(self, entries: Sequence[Entry]) -> None:
        """Edits that collided again, although what the store told of was heard: ask what they collide with.

        The same bytes have another number where events were lost, or the store counts anew.
        """
        mirror = self._mirror
        outbox = mirror.journal.outbox
        files, revision = await mirror.delivery.held([each.path for each in entries], mirror.journal.cursor.history_id)
        rows = mirror.journal.load([each.path for each in entries])
        for entry in entries:
            file, row = files.get(entry.path), rows.get(entry.path)
            there = None if file is None else file.content_sha256
            at = revision if file is None else file.revision
            if there == entry.content_hash:
                outbox.acknowledged([Answered(replace(entry, kind=plain(entry.kind)), at)], mirror.clock.now_us())
            elif there == entry.base_hash:
                outbox.rebase(entry.path, 0 if file is None else at, at)
            elif row is not None and row.remote_hash == there:
                outbox.meet(entry.path)

    async def _look_again(self, disk_paths: Sequence[str]) -> None:
        await take_local(self._mirror, LocalChanges(tuple(disk_paths)))
        check_held(self._mirror)

    def _idle_s(self, looked_us: int) -> float:
        """Until the next entry is due by the clock; at most the cycle of checks.

        ``looked_us``: before the outbox was asked what is due. What fell due since then is still to be sent.
        """
        longest = self._mirror.settings.mount_interval_s
        next_us = self._mirror.journal.outbox.next_attempt_us(looked_us)
        if next_us is None:
            return longest
        return min(longest, max(0.01, (next_us - self._mirror.clock.now_us()) / 1e6))


def _passes(raised: BaseException) -> bool:
    """Whether trying the same request again may help: the store was not reached, or could not say."""
    if not isinstance(raised, RelayfileError) or isinstance(raised, QuotaExceeded | CursorExpired):
        return False
    return (
        code_of(raised) in RETRYABLE
        or isinstance(raised, DeadlineExpired | Unauthenticated)
        or code_of(raised) not in _SAID
    )


_SAID: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""What the store says of a request that it has understood."""


def _delay_us(first_s: float, attempts: int) -> int:
    return round(min(_DELAY_MAX_S, first_s * float(1 << min(attempts, 20))) * 1e6)
