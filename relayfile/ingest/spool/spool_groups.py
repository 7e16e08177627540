"""Which transaction an append waits for. No I/O, no clock.

An append joins the first transaction that was not begun, unless an earlier append of one of its workspaces waits for a
later one, or one of its workspaces has its part of that transaction already. So whatever one workspace brings, the
next transaction is short, and what others bring is in it.

Owns the transactions that wait, and that rows of a workspace are written in their order.
"""

from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

from relayfile.ingest.sending.pauses import PauseTable
from relayfile.ingest.spool.spool_commits import Group

PART_ROWS: Final = 2
"""A workspace that has so many rows in a transaction (a row is closed when it has 256 KiB, or 250 changes) puts its
next append into a later one. What comes in one append stays together."""


class Groups:
    """Transactions that were not begun, in their order."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._waiting: deque[Group] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Group]:
        return iter(self._waiting)

    @property
    def first(self) -> Group:
        """The next one."""
        return self._waiting[0]

    def next(self) -> Group:
        """Take out the first one, to begin it."""
        return self._waiting.popleft()

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()

    def soonest(self, paused: PauseTable) -> Group:
        """The one for what belongs to no workspace; ``paused`` is for one that is made."""
        return self._waiting[0] if self._waiting else self._made(paused)

    def choose(self, workspaces: AbstractSet[str], paused: PauseTable) -> Group:
        """The one for an append of these workspaces."""
        waiting = self._waiting
        chosen: Group | None = None
        for group in reversed(waiting):
            if self._has_room(group, workspaces):
                chosen = group
            if not group.row_counts.keys().isdisjoint(workspaces):
                break
        return self._made(paused) if chosen is None else chosen

    def _has_room(self, group: Group, workspaces: AbstractSet[str]) -> bool:
        counts = group.row_counts
        return group.size_bytes < self._bytes_max and all(counts.get(name, 0) < PART_ROWS for name in workspaces)

    def _made(self, paused: PauseTable) -> Group:
        group = Group(paused)
        self._waiting.append(group)
        return group
