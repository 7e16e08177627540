"""Transactions of the spool: whatever is appended, rows of a workspace keep their order and nobody takes too much."""

from hypothesis import given
from hypothesis import strategies as st

from relayfile.ingest.spool.spool_commits import Group
from relayfile.ingest.spool.spool_groups import PART_ROWS, Groups

WORKSPACES = ("a", "b", "c", "d")
STEPS = st.lists(
    st.one_of(
        st.none(),
        st.dictionaries(st.sampled_from(WORKSPACES), st.integers(0, 3), min_size=1),
    ),
    max_size=60,
)
"""None: the first transaction is begun. Else an append: workspace to the rows that it begins."""


@given(STEPS, st.integers(1, 20))
def test_order_and_parts(steps: "list[dict[str, int] | None]", bytes_max: int) -> None:
    groups = Groups(bytes_max)
    numbers: dict[int, int] = {}
    made: list[Group] = []
    newest = dict.fromkeys(WORKSPACES, 0)
    for step in steps:
        if step is None:
            if groups:
                groups.next()
            continue
        before = list(groups)
        group = groups.choose(step.keys(), {})
        if id(group) not in numbers:
            numbers[id(group)] = len(made)
            made.append(group)  # kept, so that no id comes twice
        # The first one that is allowed: those before it hold something later, have no room, or a part is used up.
        for other in before[: before.index(group) if group in before else len(before)]:
            assert (
                other.size_bytes >= bytes_max
                or any(other.row_counts.get(name, 0) >= PART_ROWS for name in step)
                or any(numbers[id(other)] < newest[name] for name in step)
            )
        if group in before:
            assert group.size_bytes < bytes_max
            assert all(group.row_counts.get(name, 0) < PART_ROWS for name in step)
        for name, rows in step.items():
            assert numbers[id(group)] >= newest[name]
            newest[name] = numbers[id(group)]
            group.row_counts[name] = group.row_counts.get(name, 0) + rows
        group.size_bytes += sum(step.values())
