"""The whole store against a plain model of it, with other seeds until the time is up (`SOAK_MINUTES`, 10 by default).

What fails is printed as the shortest program of rules that hypothesis finds, after its seed.
"""

import asyncio
import os
import random

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from relayfile.clock import SystemClock
from tests.model.provider_machine import ProviderMachine

pytestmark = [pytest.mark.soak, pytest.mark.timeout(0)]

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
EXAMPLES = 20
"""Of one seed."""
LONG = settings(
    max_examples=EXAMPLES,
    stateful_step_count=100,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_the_store_does_what_the_model_says_for_long() -> None:
    clock = SystemClock()
    end = clock.monotonic() + 60 * MINUTES
    with asyncio.Runner() as runner:

        class Machine(ProviderMachine):
            """Of this test."""

        Machine.runner = runner
        runs = 0
        while clock.monotonic() < end or not runs:
            number = random.getrandbits(32)
            print(f"seed {number}")
            run_state_machine_as_test(seed(number)(Machine), settings=LONG)
            runs += 1
        print(f"{runs * EXAMPLES} examples agreed")
