import pytest

from relayfile.store.company import (
    COMPANY_CHANGES,
    COMPANY_PART,
    LARGE_ENTRY_CHANGES,
    LARGE_REMEMBERED_MAX,
    NEIGHBOURLY_CHANGES,
    NEIGHBOURLY_MUTATIONS,
    NEIGHBOURLY_REST_MAX_S,
    NEIGHBOURLY_REST_S,
    NEIGHBOURS_S,
    Company,
    is_enough,
)
from relayfile.store.engine import WorkspaceKey

NOISY, QUIET = WorkspaceKey(1, "noisy"), WorkspaceKey(1, "quiet")


def entry(company: Company, key: WorkspaceKey, waiting: int, now_s: float = 0.0, *, joins: bool = False) -> int:
    return company.entry_changes_max(key, waiting, joins=joins, now_s=now_s)


def test_large_entries_are_smaller_while_another_workspace_brings_small_ones() -> None:
    company = Company(500)
    assert entry(company, NOISY, 2_000) == 500
    entry(company, QUIET, 1, 1.0)
    assert entry(company, NOISY, 2_000, 1.1) == NEIGHBOURLY_CHANGES
    assert entry(company, NOISY, 2_000, 1.1, joins=True) == NEIGHBOURLY_CHANGES // COMPANY_PART
    assert entry(company, NOISY, 2_000, 1.1 + NEIGHBOURS_S) == 500


def test_a_workspace_of_many_callers_has_few_of_them_answered_together_beside_others() -> None:
    company = Company(500)
    assert company.entry_mutations_max(NOISY, now_s=0.0) == 500
    entry(company, QUIET, 1, 1.0)
    assert company.entry_mutations_max(NOISY, now_s=1.1) == NEIGHBOURLY_MUTATIONS
    assert company.entry_mutations_max(QUIET, now_s=1.1) == 500
    assert company.entry_mutations_max(NOISY, now_s=1.1 + NEIGHBOURS_S) == 500


def test_it_rests_from_answering_them() -> None:
    company = Company(500)
    assert not company.rests(NOISY, 100, now_s=0.0)
    entry(company, QUIET, 1, 1.0)
    assert not company.rests(NOISY, NEIGHBOURLY_MUTATIONS - 1, now_s=1.1)
    assert not company.rests(QUIET, NEIGHBOURLY_MUTATIONS, now_s=1.1)
    assert not company.rests(NOISY, NEIGHBOURLY_MUTATIONS, now_s=1.1 + NEIGHBOURS_S)
    assert company.rests(NOISY, NEIGHBOURLY_MUTATIONS, now_s=1.1)
    assert company.rest_s(NOISY, now_s=1.1) == pytest.approx(NEIGHBOURLY_REST_S)
    assert company.rest_s(NOISY, now_s=1.1 + NEIGHBOURLY_REST_S) == 0


def test_it_rests_while_calls_of_it_come_but_not_for_ever() -> None:
    company, at_s = Company(500), 1.0
    entry(company, QUIET, 1, at_s)
    company.called(NOISY, now_s=at_s)  # before the rest
    assert company.rests(NOISY, NEIGHBOURLY_MUTATIONS, now_s=at_s)
    half_s = NEIGHBOURLY_REST_S / 2
    for _ in range(6):
        at_s += half_s
        company.called(QUIET, now_s=at_s)
        company.called(NOISY, now_s=at_s)
        assert company.rest_s(NOISY, now_s=at_s) == pytest.approx(NEIGHBOURLY_REST_S)
    assert company.rest_s(NOISY, now_s=at_s + half_s) == pytest.approx(half_s)
    company.called(NOISY, now_s=1.0 + NEIGHBOURLY_REST_MAX_S)
    assert company.rest_s(NOISY, now_s=1.0 + NEIGHBOURLY_REST_MAX_S) == 0


def test_what_is_left_of_a_large_entry_is_no_neighbour() -> None:
    company = Company(500)
    entry(company, NOISY, 2_000)
    entry(company, NOISY, LARGE_ENTRY_CHANGES - 1)
    assert entry(company, QUIET, 2_000, 0.1) == 500


def test_two_large_workspaces_at_once_do_not_part_each_other() -> None:
    """What is left of either comes as a small entry, after one of the other."""
    company, other = Company(500), WorkspaceKey(2, "noisy too")
    for now_s in (0.0, 0.1, 0.2):
        assert entry(company, NOISY, 2_000, now_s) == 500
        assert entry(company, other, 2_000, now_s) == 500
        entry(company, NOISY, LARGE_ENTRY_CHANGES - 1, now_s)
        entry(company, other, 1, now_s)
        assert company.entry_mutations_max(NOISY, now_s=now_s) == company.entry_mutations_max(other, now_s=now_s) == 500


def test_one_that_was_large_is_a_neighbour_later() -> None:
    company = Company(500)
    entry(company, QUIET, 2_000)
    entry(company, QUIET, 1, NEIGHBOURS_S)
    assert entry(company, NOISY, 2_000, NEIGHBOURS_S) == NEIGHBOURLY_CHANGES


def test_it_remembers_no_more_large_ones_than_it_may() -> None:
    company = Company(500)
    for number in range(LARGE_REMEMBERED_MAX + 1):
        entry(company, WorkspaceKey(number, "large"), 2_000)
    entry(company, WorkspaceKey(0, "large"), 1)
    assert entry(company, NOISY, 2_000) == NEIGHBOURLY_CHANGES, "the oldest was forgotten"


def test_a_workspace_is_not_its_own_neighbour() -> None:
    company = Company(500)
    entry(company, QUIET, 1)
    assert entry(company, QUIET, 2_000, 0.1) == 500


def test_smaller_limits_stay() -> None:
    company = Company(50)
    entry(company, QUIET, 1)
    assert entry(company, NOISY, 2_000) == 50


def test_groups_of_small_entries_say_that_more_is_coming() -> None:
    company = Company(500)
    said = []
    for change_count, entry_count in ((1, 1), (20, 20), (LARGE_ENTRY_CHANGES, 1)):
        company.written(change_count, entry_count)
        said.append(company.is_busy)
    assert said == [False, True, False]
    assert is_enough(COMPANY_CHANGES, COMPANY_CHANGES)
    assert is_enough(LARGE_ENTRY_CHANGES, 1)
    assert not is_enough(LARGE_ENTRY_CHANGES, 2)
