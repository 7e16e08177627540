"""How many operations of a node have not ended, and what waits longest: index entries only, in short steps, remembered.

Owns the bound: of one workspace only so many are counted in each state.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

import apsw

from relayfile.clock import Clock
from relayfile.store.plan.writeback.rows import UNFINISHED, OperationState
from relayfile.store.sqlite.audit.run import Snapshot

REMEMBERED_S: Final = 10.0
COUNTED_MAX: Final = 10_000
"""Of one workspace in one state."""
STEP_MAX: Final = 2_000
"""Index entries that are read, and then the loop has its turn; one state of one workspace is not parted."""
_SEEK_COST: Final = 10
"""What finding a workspace counts for, in entries."""

_NEXT_WORKSPACE: Final = (
    "SELECT shard_id, workspace_id FROM operation INDEXED BY operation_by_state"
    " WHERE (shard_id, workspace_id) > (?1, ?2) AND state IN (1, 2, 4, 7) ORDER BY shard_id, workspace_id LIMIT 1"
)
_IN_STATE: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM operation INDEXED BY operation_by_state"
    " WHERE shard_id = ?1 AND workspace_id = ?2 AND state = ?3 AND state IN (1, 2, 4, 7) LIMIT ?4)"
)
_NEXT_PROVIDER: Final = (
    "SELECT provider, claimable_us FROM operation INDEXED BY operation_claimable"
    " WHERE shard_id = ?1 AND workspace_id = ?2 AND provider > ?3 AND state = 1 AND is_blocked = 0"
    " ORDER BY provider, claimable_us LIMIT 1"
)


@dataclass(slots=True)
class OperationCount:
    """What a node has to do."""

    by_state: dict[OperationState, int] = field(default_factory=lambda: dict.fromkeys(sorted(UNFINISHED), 0))
    oldest_claimable_us: int | None = None
    """When what may be claimed became so first; it may lie ahead. None: there is nothing to claim."""


class OperationCensus:
    """Counts of one node."""

    def __init__(self, snapshot: Snapshot, clock: Clock) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._counted_at = float("-inf")
        self._count = OperationCount()

    async def count(self) -> OperationCount:
        """At most ten seconds old."""
        if self._clock.monotonic() - self._counted_at < REMEMBERED_S:
            return self._count
        count = OperationCount()
        after: tuple[int, str] | None = (-1, "")
        while after is not None:
            async with self._snapshot() as cursor:
                after = _step(cursor, after, count)
            await asyncio.sleep(0)
        self._count, self._counted_at = count, self._clock.monotonic()
        return count


def _step(cursor: apsw.Cursor, after: tuple[int, str], count: OperationCount) -> tuple[int, str] | None:
    """Count the next workspaces; after which one to go on, None at the end."""
    read = 0
    while read < STEP_MAX:
        key: tuple[int, str] | None = cursor.execute(_NEXT_WORKSPACE, after).fetchone()
        if key is None:
            return None
        for state in count.by_state:
            number: int = cursor.execute(_IN_STATE, (*key, int(state), COUNTED_MAX)).get
            count.by_state[state] += number
            read += number
        provider = ""
        while (found := cursor.execute(_NEXT_PROVIDER, (*key, provider)).fetchone()) is not None:
            provider, at_us = found
            oldest_us = count.oldest_claimable_us
            count.oldest_claimable_us = at_us if oldest_us is None else min(oldest_us, at_us)
            read += 1
        read += _SEEK_COST
        after = key
    return after
