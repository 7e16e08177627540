"""How a process starts, is told to stop, and stops: in one order, once, within its grace.

Owns the event loop (uvloop), the signals and the exit code. The order of stopping is a type, ``Phase``: what was begun
is registered for the phase in which it ends, and nothing of a later phase ends before everything of an earlier one has.
The first SIGTERM or SIGINT asks to stop; the second ends the process at once. Refuses to know what the parts do.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from enum import IntEnum

import uvloop

from relayfile.errors import SettingError, StartRefused
from relayfile.status import leading_error
from relayfile.threads import started_threads
from relayfile.upkeep import settle_memory, upkeep

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
"""A setting or what is on disk forbids to start; trying again changes nothing."""
EXIT_NOT_EMPTY = 3
"""Stopped in order, but something durable is left that another process should take (a spool with rows)."""

THREADS_BESIDE = 6
"""For what would hold the loop up now and then (copies of files, large bodies); what works all the time has its own."""
SWITCH_INTERVAL_S = 0.0005
"""How long a thread that comes back from the disk waits for a busy event loop, several times in each transaction.
Python's default is ten times as much: beside published batches 70 transactions of the spool took 15 ms or more in four
seconds, with this 26."""

_log = logging.getLogger(__name__)
Step = Callable[[], Awaitable[None]]


class Phase(IntEnum):
    """What ends when, first to last."""

    NOT_SERVING = 1
    """Health says so, and load balancers look elsewhere."""
    STOP_ACCEPTING = 2
    """No new requests; those that are being served go on."""
    DRAIN = 3
    """What was accepted is carried on, as far as the grace allows."""
    CLOSE_STREAMS = 4
    """Streams end, clients reconnect elsewhere."""
    CLOSE_ENGINE = 5
    """Databases, locks, exporters."""


class Stop:
    """The wish that the process ends: asked for by a signal, by a fault, or by a test."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.reason = ""
        self.has_left: Callable[[], bool] = lambda: False
        """Whether something durable would be left if the process ended now; asked at a second signal."""

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked.is_set()

    def ask(self, reason: str) -> None:
        """Ask to stop; the first reason stands."""
        if not self._asked.is_set():
            self.reason = reason
            self._asked.set()

    async def wait(self) -> None:
        """Return when the process is to stop."""
        await self._asked.wait()


class Lifecycle:
    """The steps of stopping, in the order of their phases.

    Steps of one phase run together. Up to the end of ``DRAIN`` they share the grace; what is still running then is
    cancelled, and the phases after it each have ``CLOSE_TIMEOUT_S``. A step that fails does not keep later ones from
    running: all failures are raised at the end.
    """

    CLOSE_TIMEOUT_S = 10.0

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._steps: list[tuple[Phase, str, Step]] = []

    def on_stop(self, phase: Phase, name: str, step: Step) -> None:
        """Run ``step`` in ``phase``; ``name`` is for the log."""
        self._steps.append((phase, name, step))

    async def stop(self) -> None:
        """Run every step once. ``ExceptionGroup`` of what failed; a drain that took too long is no failure."""
        failures: list[Exception] = []
        deadline = asyncio.get_running_loop().time() + self._grace_s
        for phase in Phase:
            steps = [(name, step) for at, name, step in self._steps if at is phase]
            now = asyncio.get_running_loop().time()
            timeout_s = max(0.0, deadline - now) if phase <= Phase.DRAIN else self.CLOSE_TIMEOUT_S
            results = await asyncio.gather(*(self._run(phase, name, step, timeout_s) for name, step in steps))
            failures += [failure for failure in results if failure is not None]
        self._steps.clear()
        if failures:
            raise ExceptionGroup("stopping failed", failures)

    async def _run(self, phase: Phase, name: str, step: Step, timeout_s: float) -> Exception | None:
        try:
            async with asyncio.timeout(timeout_s):
                await step()
        except TimeoutError:
            _log.warning("stopping: %s did not end within %.1f s (%s)", name, timeout_s, phase.name)
            return None if phase is Phase.DRAIN else TimeoutError(f"{name} did not end within {timeout_s:.1f} s")
        except Exception as failure:  # noqa: BLE001 - raised by stop() when the later phases have run
            return failure
        return None


def run_process(main: Callable[[Stop], Awaitable[int]]) -> int:
    """Run ``main`` on uvloop with the signals wired to its ``Stop``; returns the exit code of the process.

    ``main`` returns its exit code when it has stopped in order. Errors of ours end as one line in the log:
    2 for a refusal to start, 1 for the rest; anything else is logged with its traceback.
    """
    settle_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(_with_signals(main))
        except Exception as raised:  # noqa: BLE001 - the end of the process: said, and turned into its exit code
            return exit_code(raised)


def prompt_threads() -> None:
    """For processes in which a thread writes transactions: let it have the interpreter lock soon when it asks."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)


def exit_code(raised: Exception) -> int:
    """The exit code for what ended a process, after logging it."""
    error = leading_error(raised)
    if error is None:
        _log.critical("the process failed", exc_info=raised)
        return EXIT_FAILED
    _log.critical("%s", error, extra={"reason": error.reason})
    return EXIT_REFUSED if isinstance(error, SettingError | StartRefused) else EXIT_FAILED


async def _with_signals(main: Callable[[Stop], Awaitable[int]]) -> int:
    stop = Stop()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(started_threads(THREADS_BESIDE, "beside"))

    def received(number: signal.Signals) -> None:
        if stop.asked:
            _log.warning("second %s: leaving at once", number.name)
            os._exit(EXIT_NOT_EMPTY if stop.has_left() else 128 + number)
        _log.info("%s: stopping", number.name)
        stop.ask(number.name)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    try:
        with upkeep():
            return await main(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def until_stopped(stop: Stop, lifecycle: Lifecycle, work: Callable[[asyncio.TaskGroup], None]) -> None:
    """Run a process's long tasks, started by ``work`` in a group, until it is to stop or one fails; then stop in order.

    The tasks live through the stop and are cancelled after it. A failing task asks to stop: what can be drained is.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as outer:

        async def guarded() -> None:
            nonlocal failure
            try:
                async with asyncio.TaskGroup() as tasks:
                    work(tasks)
            except Exception as raised:  # noqa: BLE001 - raised again below, after the process has stopped in order
                failure = raised
                stop.ask(f"a task failed: {raised!r}")

        running = outer.create_task(guarded())
        await stop.wait()
        try:
            await lifecycle.stop()
        finally:
            running.cancel()
    if failure is not None:
        raise failure
