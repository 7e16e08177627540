"""Builds the buckets of wide directories in the background, a few hundred entries at a time.

Owns the pace. A step is an entry of its workspace like any other, so that nothing changes between what it reads and
what it writes; others get their turn between steps, and a restart goes on where the last step ended.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from relayfile.errors import Draining, NotOwner, Overloaded, RelayfileError, Unavailable
from relayfile.paths import join
from relayfile.store.commit import Asker, Committer
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.plan.buckets import BUILT, STARTED, BucketChanges, next_step
from relayfile.store.plan.result import Plan
from relayfile.telemetry import get_logger

_log = get_logger(__name__)

STEP_ENTRIES: Final = 400
"""About 2 ms of the loop."""
STEP_PAUSE_S: Final = 0.01
REST_S: Final = 1.0
"""Between looks for something to build."""
BUILDS_PER_ROUND: Final = 16


class BuildStep(NamedTuple):
    """Count the next entries of a directory."""

    path: str


class BuildBuckets:
    """The `EntryKind` of a step. Each is an entry of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[BuildStep]
    ) -> tuple[Plan | None, Sequence[Exception | None]]:
        [step] = mutations
        async with self._engine.view(key) as view:
            workspace = await view.workspace()
            row = await view.directory(step.path)
            # Of a deleted workspace nothing is written any more: its rows are being removed.
            is_gone = workspace is None or workspace.deleted_us is not None
            if is_gone or row is None or row.buckets_to in (None, BUILT):
                return Plan(key.workspace_id, workspace, buckets=BucketChanges(finished=[step.path])), [None]
            after = "" if row.buckets_to == STARTED else join(row.path, row.buckets_to or "")
            entries = await view.list_level(row.path, 1, after, STEP_ENTRIES)
        buckets_to, changes = next_step(row, entries, at_end=len(entries) < STEP_ENTRIES)
        plan = Plan(key.workspace_id, workspace, buckets=changes)
        plan.directories_put[row.path] = row._replace(buckets_to=buckets_to)
        return plan, [None]


class BucketBuilder:
    """The background work of a node."""

    def __init__(self, engine: Engine, committer: Committer) -> None:
        self._engine = engine
        self._committer = committer
        self._kind = BuildBuckets(engine)

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the process must end."""
        while True:
            try:
                if not await self.round():
                    await asyncio.sleep(REST_S)
            except (Unavailable, Overloaded, NotOwner, Draining):
                # The disk is full, the queue is, the shard is elsewhere by now, or we stop: what is to build stays so.
                await asyncio.sleep(REST_S)

    async def round(self) -> int:
        """A step of each directory; how many were done."""
        done = 0
        for key, path in await self._engine.bucket_builds(BUILDS_PER_ROUND):
            try:
                await self._committer.submit(
                    key,
                    self._kind,
                    BuildStep(path),
                    change_count=1,
                    byte_count=0,
                    merge_key=object(),
                    asker=Asker.NODE,
                )
                done += 1
            except (RelayfileError, asyncio.CancelledError):
                raise
            except Exception:  # noqa: BLE001 - a fault of ours in one directory: the others go on, and the node lives
                _log.exception("buckets could not be built", workspace=key.workspace_id)
            await asyncio.sleep(STEP_PAUSE_S)
        return done
