"""How old the oldest pending change of a provider is."""

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from relayfile.ingest.status.ages import MARKS_MAX, SPACING_US, PendingAge


def test_nothing_pending_has_no_age() -> None:
    age = PendingAge()
    assert age.oldest_us == 0
    age.accepted(2, 100)
    age.settled(2)
    assert age.oldest_us == 0


def test_the_oldest_is_the_first_without_an_outcome() -> None:
    age = PendingAge()
    for second in range(5):
        age.accepted(10, second * 1_000_000)
    assert age.oldest_us == 0
    age.settled(10)
    assert age.oldest_us == 1_000_000
    age.settled(25)
    assert age.oldest_us == 3_000_000


def test_a_pause_of_days_keeps_few_marks_and_the_oldest_time() -> None:
    age = PendingAge()
    for minute in range(7 * 24 * 60):
        age.accepted(1, 1 + minute * 60_000_000)
    assert age.oldest_us == 1
    assert len(age._marks) <= MARKS_MAX
    age.settled(7 * 24 * 60)
    age.accepted(1, 5)
    assert age.oldest_us == 5


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(0, 600_000)), max_size=200))
def test_in_order_it_is_never_too_young_and_hardly_too_old(steps: list[tuple[bool, int, int]]) -> None:
    age, waiting, now_us = PendingAge(), deque[int](), 1
    for accepts, count, later_us in steps:
        now_us += later_us
        if accepts:
            age.accepted(count, now_us)
            waiting.extend([now_us] * count)
        else:
            gone = min(count, len(waiting))
            age.settled(gone)
            for _ in range(gone):
                waiting.popleft()
        if not waiting:
            assert age.oldest_us == 0
        else:
            slack_us = max(SPACING_US, (now_us - waiting[0]) // 4)
            assert waiting[0] - slack_us <= age.oldest_us <= waiting[0]
