"""Which transaction an append waits for: nobody waits behind what one workspace brings, and order stays."""

from relayfile.ingest.spool.spool_commits import Group
from relayfile.ingest.spool.spool_groups import PART_ROWS, Groups


def joined(groups: Groups, *workspaces: str, rows: int = 1, size_bytes: int = 1_000) -> Group:
    """An append that begins so many rows of each workspace."""
    group = groups.choose(set(workspaces), {})
    for workspace in workspaces:
        group.row_counts[workspace] = group.row_counts.get(workspace, 0) + rows
    group.size_bytes += size_bytes
    return group


def test_a_workspace_that_had_its_part_waits_for_a_later_one_and_others_do_not() -> None:
    groups = Groups(1 << 20)
    first, second, third = (joined(groups, "noisy", rows=PART_ROWS) for _ in range(3))
    assert list(groups) == [first, second, third]
    assert joined(groups, "quiet") is first
    assert joined(groups, "noisy") is not third


def test_little_of_many_shares_one() -> None:
    groups = Groups(1 << 20)
    assert len({id(joined(groups, f"w{number}", "w0", rows=0)) for number in range(1, 50)}) == 1


def test_an_append_stays_together_behind_the_last_one_of_any_of_its_workspaces() -> None:
    groups = Groups(1 << 20)
    joined(groups, "noisy", rows=PART_ROWS)
    second = joined(groups, "noisy")
    assert joined(groups, "quiet", "noisy") is second
    assert joined(groups, "quiet") is second, "not before its own rows"


def test_a_full_one_takes_nothing_more() -> None:
    groups = Groups(1_000)
    first = joined(groups, "a", size_bytes=1_000)
    assert joined(groups, "b") is not first


def test_what_belongs_to_no_workspace_comes_first() -> None:
    groups = Groups(1 << 20)
    first = joined(groups, "noisy", rows=PART_ROWS)
    joined(groups, "noisy")
    assert groups.soonest({}) is first is groups.first
    assert groups.next() is first
    assert len(groups) == 1
