"""How large entries are, and which groups wait for company: by what was planned last. No I/O, no clock.

Somebody else's small entry waits for what is being planned or written of a large one. So while other workspaces bring
small ones, large entries are smaller, which costs those who bring much a little.

Owns these choices. Refuses to know entries and groups: it is told of their numbers.
"""

from collections import OrderedDict
from typing import Final

from relayfile.store.engine import WorkspaceKey

BUSY_CHANGES: Final = 8
"""A group of so many, in small entries, says that more is coming: the next one waits a little for company."""
COMPANY_PART: Final = 2
"""An entry that joins others in a group is so much smaller: none of them should wait long for it."""
COMPANY_CHANGES: Final = 256
"""Company enough: a group of this size waits no longer."""
LARGE_ENTRY_CHANGES: Final = 24
"""Nor one whose entries have as many on average: what an entry costs by itself is little of that."""
NEIGHBOURLY_CHANGES: Final = 125
"""Of a large entry while other workspaces bring small ones. By itself an entry costs as much as ten changes or so."""
NEIGHBOURLY_MUTATIONS: Final = 16
"""Of an entry, while other workspaces bring small ones. Each may be a call to be answered, and its caller calls again:
a workspace with a hundred callers has all of them answered and accepted again, otherwise, before anybody else."""
NEIGHBOURLY_REST_S: Final = 0.01
"""From an entry with so many mutations to the workspace's next one, and from the last call of it that came since. gRPC
accepts calls one after the other, in several passes of the loop each, in the order in which they come: those of many
callers that were answered too soon keep everybody's waiting, those that are accepted keep nobody."""
NEIGHBOURLY_REST_MAX_S: Final = 0.1
"""However many come."""
NEIGHBOURS_S: Final = 0.5
"""So long after a small entry its workspace is taken to bring more."""
LARGE_REMEMBERED_MAX: Final = 64
"""Workspaces whose last large entry is remembered, for as long."""


class Company:
    """Of one node."""

    def __init__(self, entry_changes_max: int) -> None:
        """`entry_changes_max`: of one workspace at once, whoever else is there."""
        self.is_busy = False
        """Whether the group before says that more is coming."""
        self._entry_changes_max = entry_changes_max
        self._large_s: OrderedDict[WorkspaceKey, float] = OrderedDict()
        """When the last large entry of a workspace was planned: what is left of it is no neighbour's."""
        self._resting: dict[WorkspaceKey, tuple[float, float]] = {}
        """Workspaces that rest: since when, and when the last call of it came."""
        self._small: WorkspaceKey | None = None
        self._small_s = 0.0

    def entry_changes_max(self, key: WorkspaceKey, waiting: int, *, joins: bool, now_s: float) -> int:
        """How many changes of a workspace may be its next entry, of those that wait. `joins`: it joins others."""
        changes_max = self._entry_changes_max
        if waiting >= LARGE_ENTRY_CHANGES:
            if self._has_neighbours(key, now_s):
                changes_max = min(changes_max, NEIGHBOURLY_CHANGES)
            self._note_large(key, now_s)
        elif now_s - self._large_s.get(key, -NEIGHBOURS_S) >= NEIGHBOURS_S:
            self._small, self._small_s = key, now_s
        return changes_max // COMPANY_PART if joins else changes_max

    def entry_mutations_max(self, key: WorkspaceKey, *, now_s: float) -> int:
        """How many mutations of a workspace may be its next entry: callers that are answered together."""
        return NEIGHBOURLY_MUTATIONS if self._has_neighbours(key, now_s) else self._entry_changes_max

    def rests(self, key: WorkspaceKey, mutation_count: int, *, now_s: float) -> bool:
        """Whether a workspace waits for its next entry after one of so many mutations, which were answered just now."""
        if mutation_count < NEIGHBOURLY_MUTATIONS or not self._has_neighbours(key, now_s):
            return False
        self._resting[key] = now_s, now_s
        return True

    def called(self, key: WorkspaceKey, *, now_s: float) -> None:
        """A call of a workspace came. Who follows may still have to be accepted."""
        if key in self._resting:
            self._resting[key] = self._resting[key][0], now_s

    def rest_s(self, key: WorkspaceKey, *, now_s: float) -> float:
        """How much longer a workspace that rests does so; 0: its rest is over."""
        since_s, called_s = self._resting[key]
        left_s = min(called_s + NEIGHBOURLY_REST_S, since_s + NEIGHBOURLY_REST_MAX_S) - now_s
        if left_s > 0:
            return left_s
        del self._resting[key]
        return 0.0

    def _note_large(self, key: WorkspaceKey, now_s: float) -> None:
        self._large_s[key] = now_s
        self._large_s.move_to_end(key)
        if len(self._large_s) > LARGE_REMEMBERED_MAX:
            self._large_s.popitem(last=False)

    def _has_neighbours(self, key: WorkspaceKey, now_s: float) -> bool:
        return self._small not in (None, key) and now_s - self._small_s < NEIGHBOURS_S

    def written(self, change_count: int, entry_count: int, *, is_crowded: bool = False) -> None:
        """A group is complete. `is_crowded`: one of its entries has as many mutations as it might have."""
        self.is_busy = not is_crowded and change_count >= BUSY_CHANGES and not is_large(change_count, entry_count)


def is_large(change_count: int, entry_count: int) -> bool:
    """Whether the entries of a group are large."""
    return change_count >= LARGE_ENTRY_CHANGES * entry_count


def is_enough(change_count: int, entry_count: int) -> bool:
    """Whether a group waits for no more."""
    return change_count >= COMPANY_CHANGES or is_large(change_count, entry_count)
