import pytest

from relayfile.ingest.spool.spool_linger import COMPANY_APPENDS_MIN, MEMORY_S, Linger

LINGER_S = 0.008
ENOUGH_PER_S = COMPANY_APPENDS_MIN / LINGER_S


def after(per_s: float, *, commits_per_s: float = 100.0, seconds: float = 3.0, start_s: float = 7.0) -> Linger:
    """What appends at a steady rate leave behind at `start_s + seconds`."""
    linger = Linger(LINGER_S)
    for commit in range(1, round(seconds * commits_per_s) + 1):
        linger.came(round(per_s / commits_per_s), start_s + commit / commits_per_s)
    return linger


def test_a_lone_append_never_waits() -> None:
    linger = Linger(LINGER_S)
    assert linger.wait_s(0.0) == 0
    for second in range(100):
        linger.came(1, second * 0.02)  # one every 20 ms
        assert linger.wait_s(second * 0.02) == 0


@pytest.mark.parametrize("per_s", [600.0, 5_000.0])
def test_steady_appends_are_measured_and_wait(per_s: float) -> None:
    linger = after(per_s)
    assert linger.per_s(10.0) == pytest.approx(per_s, rel=0.05)
    assert linger.wait_s(10.0) == LINGER_S


def test_fewer_than_pays_do_not_wait() -> None:
    assert after(ENOUGH_PER_S * 0.8).wait_s(10.0) == 0


def test_a_burst_is_forgotten_soon() -> None:
    linger = after(5_000.0)
    assert linger.wait_s(10.0 + MEMORY_S) == LINGER_S
    assert linger.wait_s(10.0 + 4 * MEMORY_S) == 0


def test_a_single_burst_of_many_makes_the_next_one_wait_for_a_moment_only() -> None:
    linger = Linger(LINGER_S)
    linger.came(200, 1.0)
    assert linger.wait_s(1.01) == LINGER_S
    assert linger.wait_s(1.0 + 2 * MEMORY_S) == 0


def test_without_a_linger_nothing_waits() -> None:
    linger = Linger(0.0)
    linger.came(10_000, 1.0)
    assert linger.wait_s(1.0) == 0
