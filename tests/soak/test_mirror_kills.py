"""kill -9 of a real syncd while both sides edit, with other seeds until the time is up (`SOAK_MINUTES`, or 10)."""

import asyncio
import os
import pathlib
import random
import tempfile
from collections import Counter

import pytest

from relayfile.clock import SystemClock
from tests.model.live_mirror import run

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
SEED = os.environ.get("SOAK_SEED", "")
"""Run this one again; what happens when is another matter."""


def test_both_sides_end_equal_and_nothing_is_lost_over_kills() -> None:
    clock = SystemClock()
    end = clock.monotonic() + 60 * MINUTES
    happened: Counter[str] = Counter()
    runs = 0
    while clock.monotonic() < end or not runs:
        number = int(SEED) if SEED else random.getrandbits(32)
        print(f"seed {number}", flush=True)
        with tempfile.TemporaryDirectory() as directory:
            happened += asyncio.run(run(pathlib.Path(directory), number))
        runs += 1
    print(f"{runs} mirrors ended equal; what happened to them: {dict(happened)}")
