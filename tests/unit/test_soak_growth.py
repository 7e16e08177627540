"""What the soak takes for growth of threads, and what not."""

from collections.abc import Callable

import pytest

from tests.soak.growth import GRPC_POOL_MORE_MAX, SAMPLE_S, WINDOW_S, grown_threads

LOOKS = round(3 * WINDOW_S / SAMPLE_S)
"""Of half an hour."""
OURS = {"python": 2, "store-writer": 1, "beside": 8}
POOL = {"event_engine": 4, "lifeguard": 1, "grpc_global_tim": 1}


def looks(name: str, more: Callable[[float], int]) -> list[dict[str, int]]:
    """`more`: how many more threads of the name there are at a second."""
    steady = {**OURS, **POOL}
    return [{**steady, name: steady.get(name, 0) + more(number * SAMPLE_S)} for number in range(LOOKS)]


def test_what_stays_has_not_grown() -> None:
    assert not grown_threads(looks("beside", lambda at_s: 0))
    assert not grown_threads([])


@pytest.mark.parametrize("name", ["beside", "lifeguard", "new"])
def test_one_more_of_ours_in_ten_minutes_is_growth(name: str) -> None:
    assert grown_threads(looks(name, lambda at_s: int(at_s / WINDOW_S))) == {name: 2}


def test_one_more_of_ours_at_the_very_end_is_growth() -> None:
    assert grown_threads(looks("beside", lambda at_s: int(at_s >= (LOOKS - 1) * SAMPLE_S))) == {"beside": 1}


def test_what_came_and_went_in_the_first_third_may_come_again() -> None:
    assert not grown_threads(looks("beside", lambda at_s: int(at_s in (100.0, 1_500.0))))


@pytest.mark.parametrize("name", ["event_engine", "grpc_global_tim"])
def test_the_pools_of_grpc_may_grow_up_to_a_bound(name: str) -> None:
    late = 2 * WINDOW_S
    assert not grown_threads(looks(name, lambda at_s: GRPC_POOL_MORE_MAX if at_s > late else 0))
    beyond = GRPC_POOL_MORE_MAX + 1
    assert grown_threads(looks(name, lambda at_s: beyond if at_s > late else 0)) == {name: beyond}


def test_a_steady_leak_of_the_pool_is_growth() -> None:
    assert grown_threads(looks("event_engine", lambda at_s: int(at_s / 240))) == {"event_engine": 5}
