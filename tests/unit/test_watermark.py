import pytest

from relayfile.model import MemberKind
from relayfile.watermark import PROVIDER_AHEAD_MAX_US, Stamp, provider_time, stamp, wins_over

UPSERT, DELETE, PATCH, SIGNAL = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL


def test_a_provider_time_far_ahead_counts_as_absent() -> None:
    assert provider_time(None, 10) is None
    assert provider_time(10 + PROVIDER_AHEAD_MAX_US, 10) == 10 + PROVIDER_AHEAD_MAX_US
    assert provider_time(11 + PROVIDER_AHEAD_MAX_US, 10) is None
    assert stamp(UPSERT, 11 + PROVIDER_AHEAD_MAX_US, 10) == Stamp(UPSERT, None, 10)


@pytest.mark.parametrize(
    ("winner", "loser", "later", "wins"),
    [
        (Stamp(UPSERT, 6, 0), Stamp(UPSERT, 5, 0), False, True),
        (Stamp(UPSERT, 6, 0), Stamp(PATCH, 5, 0), True, False),
        (Stamp(UPSERT, 5, 9), Stamp(UPSERT, 6, 0), True, False),
        (Stamp(UPSERT, 5, 0), Stamp(UPSERT, 5, 0), True, True),
        (Stamp(UPSERT, 5, 0), Stamp(UPSERT, 5, 0), False, False),
        (Stamp(DELETE, 5, 0), Stamp(UPSERT, 5, 0), False, True),
        (Stamp(UPSERT, 5, 0), Stamp(DELETE, 5, 0), True, False),
        (Stamp(DELETE, 4, 0), Stamp(UPSERT, 5, 0), True, False),
        (Stamp(PATCH, 6, 0), Stamp(UPSERT, 5, 0), True, False),
        (Stamp(SIGNAL, 6, 0), Stamp(UPSERT, 5, 0), True, False),
        (Stamp(UPSERT, 6, 9), Stamp(UPSERT, None, 0), True, False),
        (Stamp(UPSERT, None, 9), Stamp(UPSERT, 5, 0), True, False),
        (Stamp(UPSERT, None, 9), Stamp(UPSERT, None, 8), False, True),
        (Stamp(UPSERT, None, 8), Stamp(UPSERT, None, 9), True, False),
        (Stamp(UPSERT, None, 8), Stamp(UPSERT, None, 8), True, True),
        (Stamp(DELETE, None, 8), Stamp(UPSERT, None, 8), False, False),
    ],
)
def test_a_full_change_wins_on_the_clock_that_both_use(winner: Stamp, loser: Stamp, later: bool, wins: bool) -> None:
    assert wins_over(winner, loser, winner_is_later=later) is wins
