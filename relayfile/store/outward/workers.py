"""The node's own workers: they claim what targets can take, do it, and acknowledge it.

Owns how many work at once and that a claim is prolonged while its request runs. One task claims, so that two never
count on the same room of a target. A node that stops gives back what is under way when its grace ends: its leases end
by themselves, and whoever claims next sends the same thing under another claim.
"""

import asyncio
import hashlib
from typing import Final

from relayfile.clock import Clock
from relayfile.errors import ClaimExpired, Draining, OperationNotFound, RelayfileError, Unavailable
from relayfile.store.engine import WorkspaceKey
from relayfile.store.operations.claiming import ClaimRequest, RenewRequest
from relayfile.store.operations.desk import OperationDesk
from relayfile.store.operations.feed import ANYWHERE
from relayfile.store.outward.answers import TargetFault
from relayfile.store.outward.caller import Caller, Done, clipped
from relayfile.store.outward.counts import OutwardCounts
from relayfile.store.outward.targets import Target, Targets
from relayfile.store.plan.answers import Answer
from relayfile.store.plan.writeback.rows import OperationFault, OperationRow
from relayfile.store.servicers.operation_wire import read_success
from relayfile.telemetry import get_logger

LEASE_S: Final = 60.0
IDLE_S: Final = 5.0
"""The longest wait before looking again, whatever news there is."""
NO_TARGET: Final = "NO_TARGET"
INTERNAL_FAULT: Final = "INTERNAL_FAULT"
_log = get_logger(__name__)


class OutwardWorkers:
    """See the module. `run` it in a task."""

    def __init__(
        self,
        desk: OperationDesk,
        caller: Caller,
        clock: Clock,
        targets: tuple[Targets, ...],
        counts: OutwardCounts,
        *,
        workers_max: int,
        name: str,
    ) -> None:
        self._desk = desk
        self._caller = caller
        self._clock = clock
        self._targets = targets
        self._counts = counts
        for each in targets:
            counts.breakers(each)
        self._workers_max = workers_max
        self._name = name
        self._running: set[asyncio.Task[None]] = set()
        counts.workers(lambda: len(self._running), workers_max)
        self._news = asyncio.Event()
        """An operation was written, or a request has ended."""

    async def run(self) -> None:
        """Work until cancelled; what is under way is cancelled then too."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(), name="store-outward-news")
            while True:
                self._news.clear()
                try:
                    started = await self._start(tasks)
                except (Unavailable, Draining) as error:
                    _log.warning("no operations are claimed now", why=str(error))
                    started = False
                if not started:
                    await self._wait()

    async def _start(self, tasks: asyncio.TaskGroup) -> bool:
        """Claim and start one operation of each kind that has one; whether there was any."""
        started = False
        for targets in self._targets:
            ready = targets.ready(self._clock.monotonic())
            if not ready or len(self._running) >= self._workers_max:
                continue
            request = ClaimRequest(self._name, 1, round(LEASE_S * 1e6), ready, frozenset(map(int, targets.kinds)))
            key, answer = await self._desk.claim_anywhere(request, 0.0)
            for row in answer.rows:
                assert key is not None, "a claim is of a workspace"
                started = True
                target = targets.of(row)
                now = self._clock.monotonic()
                if target is not None and target.may_call(now):
                    target.called(now)
                    task = tasks.create_task(self._work(key, row, targets, target), name="store-outward")
                    self._running.add(task)
                    task.add_done_callback(self._done)
                else:
                    await self._end(key, _put_off(row, target, now))
        return started

    async def _work(self, key: WorkspaceKey, row: OperationRow, targets: Targets, target: Target) -> None:
        started = self._clock.monotonic()
        done: Done | TargetFault = TargetFault("CANCELED", "the node stopped", retryable=True)
        try:
            async with asyncio.TaskGroup() as tasks:
                renewing = tasks.create_task(self._renew(key, row), name="store-outward-lease")
                done = await self._caller.do(key, row, target.definition, self._clock.now_us())
                renewing.cancel()
        except Exception:  # noqa: BLE001 - one operation that meets a fault of ours does not end the node
            _log.exception("an operation met a fault of ours", operation=row.operation_id)
            done = TargetFault(INTERNAL_FAULT, "A fault of Relayfile's own; the node's log has it.", retryable=True)
        finally:
            now = self._clock.monotonic()
            target.ended(now, done if isinstance(done, TargetFault) else None)
            self._counts.ended(row, done, now - started)
            self._counts.breakers(targets)
        await self._end(key, _answer(row, done, self._clock.now_us()))

    async def _renew(self, key: WorkspaceKey, row: OperationRow) -> None:
        request = RenewRequest(row.operation_id, row.claim_number, round(LEASE_S * 1e6))
        while True:
            await asyncio.sleep(LEASE_S / 3)
            try:
                await self._desk.renew(key, request, None)
            except (Unavailable, Draining):
                continue
            except RelayfileError:
                return  # the claim has ended: the answer is refused and remembered

    async def _end(self, key: WorkspaceKey, answer: Answer) -> None:
        try:
            await self._desk.answer(key, answer, None)
        except (ClaimExpired, OperationNotFound, Unavailable, Draining) as error:
            # The lease ends by itself, and the operation is claimed again.
            _log.warning("an operation's end was not taken", operation=answer.operation_id, why=str(error))
        except RelayfileError as error:
            fault = OperationFault(error.reason, clipped(str(error)), retryable=False)
            await self._desk.answer(key, Answer(answer.operation_id, answer.claim_number, fault=fault), None)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._news.set()

    async def _listen(self) -> None:
        tick = self._desk.feed.now(ANYWHERE)
        while True:
            await self._desk.feed.wait(ANYWHERE, tick)
            tick = self._desk.feed.now(ANYWHERE)
            self._news.set()

    async def _wait(self) -> None:
        """Until there may be something to claim: an operation, room at a target, or a time that has come."""
        now = self._clock.monotonic()
        times = [at - now for targets in self._targets if (at := targets.next_at(now)) is not None]
        try:
            async with asyncio.timeout(max(0.01, min([IDLE_S, *times]))):
                await self._news.wait()
        except TimeoutError:
            pass  # it is looked again


def _put_off(row: OperationRow, target: Target | None, now: float) -> Answer:
    if target is None:
        message = f"no target takes {row.kind.name.lower()} operations of this type; RELAYFILE_FETCH_TARGETS has them"
        return Answer(row.operation_id, row.claim_number, fault=OperationFault(NO_TARGET, message, retryable=False))
    wait_s = max(0.1, target.free_at(now) - now)
    return Answer(row.operation_id, row.claim_number, release_us=round(wait_s * 1e6))


def _answer(row: OperationRow, done: Done | TargetFault, now_us: int) -> Answer:
    if not isinstance(done, TargetFault):
        digest = hashlib.sha256(done.content).digest()
        success = read_success(done.success, done.content, digest, now_us, row.correlation_id)
        return Answer(row.operation_id, row.claim_number, success=success)
    retry_after_us = None if done.retry_after_s is None else round(done.retry_after_s * 1e6)
    fault = OperationFault(done.reason, clipped(done.message), done.retryable, retry_after_us, done.status)
    return Answer(row.operation_id, row.claim_number, fault=fault)
