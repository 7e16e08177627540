import asyncio
import logging
import os
import signal
import subprocess
import sys

import pytest

from relayfile import lifecycle
from relayfile.errors import SettingError, StartRefused, StorageFailed
from relayfile.lifecycle import SWITCH_INTERVAL_S, Lifecycle, Phase, Stop, prompt_threads


async def test_phases_run_in_order_and_all_of_one_before_the_next() -> None:
    seen: list[str] = []
    order = Lifecycle(grace_s=5)

    def step(name: str, turns: int = 0) -> lifecycle.Step:
        async def run() -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            seen.append(name)

        return run

    order.on_stop(Phase.CLOSE_ENGINE, "engine", step("engine"))
    order.on_stop(Phase.DRAIN, "slow", step("slow", turns=20))
    order.on_stop(Phase.NOT_SERVING, "health", step("health", turns=5))
    order.on_stop(Phase.DRAIN, "fast", step("fast"))
    order.on_stop(Phase.CLOSE_STREAMS, "streams", step("streams"))
    order.on_stop(Phase.STOP_ACCEPTING, "front", step("front"))
    await order.stop()
    assert seen == ["health", "front", "fast", "slow", "streams", "engine"]
    await order.stop()
    assert len(seen) == 6


async def test_a_failing_step_does_not_keep_the_engine_open() -> None:
    seen: list[str] = []
    order = Lifecycle(grace_s=5)

    async def fails() -> None:
        raise ValueError("no")

    async def closes() -> None:
        seen.append("closed")

    order.on_stop(Phase.STOP_ACCEPTING, "front", fails)
    order.on_stop(Phase.CLOSE_ENGINE, "engine", closes)
    with pytest.raises(ExceptionGroup, match="stopping failed"):
        await order.stop()
    assert seen == ["closed"]


async def test_a_drain_that_takes_too_long_is_cut_and_no_failure() -> None:
    cancelled = asyncio.Event()
    order = Lifecycle(grace_s=0)

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    order.on_stop(Phase.DRAIN, "endless", endless)
    await order.stop()
    assert cancelled.is_set()


async def test_tasks_live_through_the_stop_and_are_cancelled_after_it() -> None:
    stop, order = Stop(), Lifecycle(grace_s=5)
    alive_while_stopping: list[bool] = []
    tasks: list[asyncio.Task[bool]] = []

    async def closes() -> None:
        alive_while_stopping.append(not tasks[0].done())

    order.on_stop(Phase.CLOSE_ENGINE, "engine", closes)

    def work(group: asyncio.TaskGroup) -> None:
        tasks.append(group.create_task(asyncio.Event().wait()))
        stop.ask("test")

    await lifecycle.until_stopped(stop, order, work)
    assert alive_while_stopping == [True]
    assert tasks[0].cancelled()


async def test_a_failing_task_stops_the_process_in_order_and_is_raised() -> None:
    stop, order = Stop(), Lifecycle(grace_s=5)
    seen: list[str] = []

    async def closes() -> None:
        seen.append("closed")

    async def fails() -> None:
        raise StorageFailed(what="of the test")

    order.on_stop(Phase.CLOSE_ENGINE, "engine", closes)
    with pytest.raises(ExceptionGroup) as caught:
        await lifecycle.until_stopped(stop, order, lambda group: (group.create_task(fails()), None)[1])
    assert seen == ["closed"]
    assert lifecycle.exit_code(caught.value) == lifecycle.EXIT_FAILED


def test_exit_codes(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    setting = SettingError(variable="RELAYFILE_X", problem="is bad", way_out="mend it")
    assert lifecycle.exit_code(setting) == 2
    assert lifecycle.exit_code(ExceptionGroup("g", [StartRefused(why="w")])) == 2
    assert lifecycle.exit_code(ValueError("x")) == 1
    assert [bool(record.exc_info) for record in caplog.records] == [False, False, True]


CHILD = """
import asyncio, sys
from relayfile.lifecycle import run_process
async def main(stop):
    stop.has_left = lambda: "left" in sys.argv[1]
    print(type(asyncio.get_running_loop()).__module__, flush=True)
    await stop.wait()
    print(stop.reason, flush=True)
    if "hang" in sys.argv[1]:
        await asyncio.Event().wait()
    return 3
sys.exit(run_process(main))
"""


@pytest.mark.parametrize(
    ("mode", "signals", "code"),
    [
        ("ends", [signal.SIGTERM], 3),
        ("hang", [signal.SIGINT, signal.SIGTERM], 143),
        ("hang with something left", [signal.SIGTERM, signal.SIGINT], 3),
    ],
)
def test_the_first_signal_asks_and_the_second_ends(mode: str, signals: list[signal.Signals], code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", CHILD, mode], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline().startswith("uvloop")
        for number in signals:
            os.kill(child.pid, number)
            if number is signals[0]:
                assert child.stdout.readline().strip() == signals[0].name
        assert child.wait(20) == code


def test_threads_that_write_get_the_interpreter_lock_soon() -> None:
    before = sys.getswitchinterval()
    try:
        prompt_threads()
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    finally:
        sys.setswitchinterval(before)
