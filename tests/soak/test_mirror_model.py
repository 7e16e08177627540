"""Mirrors in which both sides edit, with other seeds until the time is up (`SOAK_MINUTES`, 10 by default).

What fails is printed as the shortest program that hypothesis finds, after its seed.
"""

import asyncio
import os
import pathlib
import random
import tempfile
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, seed, settings

from relayfile.clock import SystemClock
from tests.model.mirror_programs import PROGRAMS, Machine, Step

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
EXAMPLES = 50
"""Of one seed."""
LONG = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_both_sides_end_equal_and_nothing_is_lost_for_long() -> None:
    clock = SystemClock()
    end = clock.monotonic() + 60 * MINUTES
    happened: Counter[str] = Counter()

    @LONG
    @given(program=PROGRAMS)
    def agree(program: list[Step]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            machine = Machine(pathlib.Path(directory))
            asyncio.run(machine.run(program))
        happened.update(machine.happened)

    runs = 0
    while clock.monotonic() < end or not runs:
        number = random.getrandbits(32)
        print(f"seed {number}")
        seed(number)(agree)()
        runs += 1
    print(f"{runs * EXAMPLES} programs agreed; what happened in them: {dict(happened)}")
