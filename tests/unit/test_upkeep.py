import asyncio
import gc
import subprocess
import sys

import pytest

from relayfile import upkeep
from relayfile.clock import ManualClock


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.0, 60.0), (0.02, 60.0), (0.06, 60.0), (0.5, 500.0)])
def test_passes_take_a_thousandth_at_most(took_s: float, pause_s: float) -> None:
    assert upkeep.pause_after(took_s) == pause_s


async def test_passes_go_on_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "PASS_EVERY_S", 0.0)
    done: list[int] = []
    with upkeep.upkeep(ManualClock(), lambda: done.append(1)):
        async with asyncio.timeout(10):
            while len(done) < 3:  # noqa: ASYNC110 - what is waited for is the loop's own timer
                await asyncio.sleep(0)
    count = len(done)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(done) == count


def test_a_pass_frees_cycles() -> None:
    freed: list[bool] = []

    class Cycle:
        def __init__(self) -> None:
            self.own = self

        def __del__(self) -> None:
            freed.append(True)

    Cycle()
    upkeep.give_back()
    assert freed


def test_a_c_library_without_these_functions_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "_of_libc", lambda name: None)
    thresholds = gc.get_threshold()
    try:
        upkeep.settle_memory()
        upkeep.give_back()
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_glibc_takes_what_it_is_told() -> None:
    program = (
        "from relayfile import upkeep; call = upkeep._of_libc('mallopt'); print(call is None or call(-3, 1 << 17))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("True", "1")
