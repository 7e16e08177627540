"""How much a node holds: a seek for each workspace, in short steps, and remembered for a while.

Refuses to count files: what a workspace holds is in the row of its root.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from relayfile.clock import Clock
from relayfile.store.sqlite.audit.run import Snapshot

REMEMBERED_S: Final = 10.0
WORKSPACES_PER_STEP: Final = 500
_WORKSPACES: Final = (
    "SELECT w.shard_id, w.workspace_id, coalesce(d.file_count, 0), coalesce(d.total_bytes, 0) FROM workspace AS w"
    " LEFT JOIN directory AS d ON d.shard_id = w.shard_id AND d.workspace_id = w.workspace_id AND d.path = '/'"
    " WHERE (w.shard_id, w.workspace_id) > (?, ?) AND w.deleted_us IS NULL ORDER BY w.shard_id, w.workspace_id LIMIT ?"
)
_LETTERS: Final = "SELECT coalesce(sum(count), 0) FROM dead_letter_total WHERE state = 1"


@dataclass(slots=True)
class ShardCount:
    """What a shard holds."""

    workspace_count: int = 0
    file_count: int = 0
    total_bytes: int = 0


@dataclass(slots=True)
class NodeCount:
    """What a node holds."""

    shards: dict[int, ShardCount] = field(default_factory=dict)
    """Of shards with workspaces."""
    pending_letters: int = 0


class Census:
    """Counts of one node."""

    def __init__(self, snapshot: Snapshot, clock: Clock) -> None:
        self._snapshot = snapshot
        self._clock = clock
        self._counted_at = float("-inf")
        self._count = NodeCount()

    async def count(self) -> NodeCount:
        """At most ten seconds old."""
        if self._clock.monotonic() - self._counted_at < REMEMBERED_S:
            return self._count
        count = NodeCount()
        after = (-1, "")
        while True:
            async with self._snapshot() as cursor:
                rows: list[tuple[int, str, int, int]] = list(cursor.execute(_WORKSPACES, (*after, WORKSPACES_PER_STEP)))
                if not count.shards:
                    count.pending_letters = cursor.execute(_LETTERS).get
            for shard_id, _, file_count, total_bytes in rows:
                shard = count.shards.setdefault(shard_id, ShardCount())
                shard.workspace_count += 1
                shard.file_count += file_count
                shard.total_bytes += total_bytes
            if len(rows) < WORKSPACES_PER_STEP:
                break
            after = rows[-1][:2]
            await asyncio.sleep(0)
        self._count, self._counted_at = count, self._clock.monotonic()
        return count
