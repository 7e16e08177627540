"""What waits for a commit, workspace by workspace. No I/O, no clock.

Owns order and fairness: mutations of one workspace leave in the order in which they came, workspaces take turns, and a
workspace whose entry is not committed yet waits however much it has. Refuses more than its bounds say.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from relayfile.errors import Overloaded
from relayfile.store.engine import WorkspaceKey

RETRY_AFTER_S = 0.5


@dataclass(slots=True, eq=False)
class Waiting:
    """A mutation and whoever waits for its answer."""

    kind: Any
    """The `EntryKind` that plans it."""
    mutation: Any
    merge_key: Hashable
    """Neighbours with equal kinds and merge keys may share an entry."""
    change_count: int
    byte_count: int
    answer: asyncio.Future[Any]
    traces: Sequence[str] = ()
    """Trace contexts of what it is made of, as far as they are recorded."""
    alone: bool = False
    """Set when planning it together with others failed."""


@dataclass(frozen=True, slots=True)
class QueueBounds:
    """How much may wait."""

    workspace_changes_max: int
    node_bytes_max: int


class WorkspaceQueues:
    """Queues of one node. Every workspace in it is waiting, ready, or busy: being planned or committed."""

    def __init__(self, bounds: QueueBounds) -> None:
        self._bounds = bounds
        self._queues: dict[WorkspaceKey, deque[Waiting]] = {}
        self._changes: dict[WorkspaceKey, int] = {}
        self._ready: deque[WorkspaceKey] = deque()
        self._busy: set[WorkspaceKey] = set()
        self.change_count = 0
        self.byte_count = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being committed."""
        return not self._queues and not self._busy

    @property
    def has_ready(self) -> bool:
        """Whether `take` has something to give."""
        return bool(self._ready)

    @property
    def ready_key(self) -> WorkspaceKey:
        """The workspace that `take` gives; only while it `has_ready`."""
        return self._ready[0]

    @property
    def ready_changes(self) -> int:
        """How much waits of the workspace that `take` gives; 0 when it has none to give."""
        return self._changes.get(self._ready[0], 0) if self._ready else 0

    def changes_of(self, key: WorkspaceKey) -> int:
        """How much waits of one workspace."""
        return self._changes.get(key, 0)

    @property
    def full(self) -> bool:
        """Whether whoever brings work should wait: bytes of the whole node are over their bound."""
        return self.byte_count >= self._bounds.node_bytes_max

    def put(self, key: WorkspaceKey, waiting: Waiting) -> None:
        """Queue a mutation; `Overloaded` when the workspace has too much waiting already."""
        changes = self._changes.get(key, 0)
        if changes and changes + waiting.change_count > self._bounds.workspace_changes_max:
            raise Overloaded(what=f"queue of workspace {key.workspace_id!r}", retry_after_s=RETRY_AFTER_S)
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = queue = deque()
            if key not in self._busy:
                self._ready.append(key)
        queue.append(waiting)
        self._changes[key] = changes + waiting.change_count
        self.change_count += waiting.change_count
        self.byte_count += waiting.byte_count

    def take(self, changes_max: int, mutations_max: int) -> tuple[WorkspaceKey, list[Waiting]]:
        """The next workspace's next entry: at least one mutation, more while they merge and fit. It is busy then."""
        key = self._ready.popleft()
        self._busy.add(key)
        queue = self._queues[key]
        first = queue.popleft()
        taken = [first]
        changes = first.change_count
        while queue and not first.alone and len(taken) < mutations_max:
            following = queue[0]
            if (
                following.alone
                or following.kind is not first.kind
                or following.merge_key != first.merge_key
                or changes + following.change_count > changes_max
            ):
                break
            taken.append(queue.popleft())
            changes += following.change_count
        if not queue:
            del self._queues[key]
        self._account(key, changes, sum(waiting.byte_count for waiting in taken))
        return key, taken

    def put_back(self, key: WorkspaceKey, taken: Sequence[Waiting]) -> None:
        """Undo `take`: the entry could not be planned as a whole, so each of its mutations becomes its own."""
        for waiting in taken:
            waiting.alone = True
        self._queues.setdefault(key, deque()).extendleft(reversed(taken))
        changes = sum(waiting.change_count for waiting in taken)
        self._account(key, -changes, -sum(waiting.byte_count for waiting in taken))
        self.release(key)

    def release(self, key: WorkspaceKey) -> None:
        """The workspace's entry ended: its next one may be taken."""
        self._busy.discard(key)
        if key in self._queues:
            self._ready.append(key)

    def clear(self) -> list[Waiting]:
        """Everything that waits, taken out."""
        left = [waiting for queue in self._queues.values() for waiting in queue]
        self._queues.clear()
        self._changes.clear()
        self._ready.clear()
        self.change_count = self.byte_count = 0
        return left

    def _account(self, key: WorkspaceKey, changes: int, byte_count: int) -> None:
        left = self._changes.get(key, 0) - changes
        if left:
            self._changes[key] = left
        else:
            self._changes.pop(key, None)
        self.change_count -= changes
        self.byte_count -= byte_count
