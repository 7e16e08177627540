"""When a mirror is audited, and when everything is listed: a row for each branch."""

import pytest

from relayfile.errors import SettingError
from relayfile.settings import SyncdSettings, load
from relayfile.syncd.cadence import OFF, Cadence, Policy, Step, due, full_pull_in

POLICY = Policy(audit_every=10, full_pull_every=100, full_pull_files_max=1_000)


def after(cycles: int, *, audited_ago: int | None = None, available: bool = True, repaired: bool = True) -> Cadence:
    """A mirror that has run for so many cycles."""
    cadence = Cadence(digest_available=available, repaired=repaired)
    for _ in range(cycles):
        cadence.cycle()
    cadence.cycles_since_audit = cycles if audited_ago is None else audited_ago
    return cadence


@pytest.mark.parametrize(
    ("cadence", "tracked", "expected"),
    [
        (after(9), 1, Step.NOTHING),
        (after(10), 1, Step.AUDIT),
        (after(15, audited_ago=5), 1, Step.NOTHING),
        (after(100, audited_ago=1), 1, Step.NOTHING),  # all is well: a full pull is never due
        (after(1_000), 1, Step.AUDIT),
        (after(99, audited_ago=1, repaired=False), 1, Step.NOTHING),
        (after(99, audited_ago=10, repaired=False), 1, Step.AUDIT),
        (after(100, audited_ago=1, repaired=False), 1, Step.FULL_PULL),
        (after(100, audited_ago=1, available=False), 1_000, Step.FULL_PULL),
        (after(100, audited_ago=1, available=False), 1_001, Step.NOTHING),
        (after(100, audited_ago=10, available=False), 1_001, Step.AUDIT),
    ],
)
def test_what_is_due(cadence: Cadence, tracked: int, expected: Step) -> None:
    assert due(POLICY, cadence, tracked) is expected


def test_full_pulls_can_be_off() -> None:
    off = Policy(audit_every=10, full_pull_every=OFF, full_pull_files_max=1_000)
    needed = after(10_000, audited_ago=1, available=False, repaired=False)
    assert due(off, needed, 1) is Step.NOTHING
    assert full_pull_in(off, needed) == OFF
    assert full_pull_in(POLICY, after(30)) == 70
    assert full_pull_in(POLICY, after(300)) == 0


def test_an_audit_and_a_full_pull_start_their_counts_again() -> None:
    cadence = after(100, available=False, repaired=False)
    cadence.audited(equal=True)
    assert (cadence.cycles_since_audit, cadence.digest_available, cadence.repaired) == (0, True, True)
    cadence.without_digest()
    assert due(POLICY, cadence, 1) is Step.FULL_PULL
    cadence.pulled_fully()
    assert due(POLICY, cadence, 1) is Step.NOTHING
    cadence.audited(equal=False)
    assert not cadence.repaired


def test_zero_is_refused_as_a_cadence() -> None:
    assert load(SyncdSettings, {"RELAYFILE_MOUNT_FULL_PULL_EVERY": "-1"}).mount_full_pull_every == -1
    with pytest.raises(SettingError, match="neither 1 to 1000000 nor -1"):
        load(SyncdSettings, {"RELAYFILE_MOUNT_FULL_PULL_EVERY": "0"})
