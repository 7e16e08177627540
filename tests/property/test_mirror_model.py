"""A mirror in which both sides edit, with kills and lost answers: equal in the end, and no byte of a user is lost."""

import asyncio
import pathlib
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings

from tests.model.mirror_programs import PROGRAMS, Machine, Step

pytestmark = pytest.mark.timeout(240)  # dozens of lives of a mirror: six seconds of a processor, however crowded

QUICK = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    database=None,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)


@QUICK
@given(program=PROGRAMS)
def test_both_sides_end_equal_and_nothing_is_lost(program: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(Machine(pathlib.Path(directory)).run(program))
