"""The whole store against a plain model of it, for seconds; `tests/soak/test_store_model.py` does it for long.

The same programs each time. One that fails is shown as it was drawn: to shorten it takes minutes, and is for the soak.
"""

import asyncio

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.provider_machine import ProviderMachine

QUICK = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),
    database=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


def test_the_store_does_what_the_model_says() -> None:
    with asyncio.Runner() as runner:

        class Machine(ProviderMachine):
            """Of this test."""

        Machine.runner = runner
        run_state_machine_as_test(Machine, settings=QUICK)
