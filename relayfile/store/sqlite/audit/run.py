"""Runs an audit over a file, live or stopped: which steps there are, their turns, and the second look.

Every step reads one snapshot. On a live node a step gives way after some milliseconds, for as long as it worked: an
audit takes at most half of the event loop, and less of it in shorter turns while others call. Nothing is held but the
step to go on with.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing
from functools import partial
from typing import Final, TypeAlias

import apsw

from relayfile.clock import Clock
from relayfile.errors import WorkspaceNotFound
from relayfile.placement import shard_of
from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import AuditEnd, AuditOrder, Check, Finding, Tally
from relayfile.store.sqlite.audit.directories import check_directories
from relayfile.store.sqlite.audit.files import check_contents, check_files, check_objects
from relayfile.store.sqlite.audit.index import check_indexed, check_provider_directories, check_terms
from relayfile.store.sqlite.audit.log import check_events
from relayfile.store.sqlite.audit.node import Orphans, check_kept, check_overdue, check_placement, check_strays
from relayfile.store.sqlite.audit.operations import check_holds, check_operation_contents, check_operations
from relayfile.store.sqlite.audit.step import Look, Step
from relayfile.store.sqlite.audit.sums import check_letters, check_outcomes, check_shard_totals
from relayfile.store.turns import LoopTurns

TURN_S: Final = 0.003
"""Longest piece of work before others get a turn."""
SHARED_TURN_S: Final = 0.001
"""While others call."""
WORKSPACES_PER_PAGE: Final = 500

Snapshot: TypeAlias = Callable[[], AbstractAsyncContextManager[apsw.Cursor]]
"""Everything in the file as of now."""

_ALIVE = "SELECT 1 FROM workspace WHERE shard_id = ? AND workspace_id = ? AND deleted_us IS NULL"
_WORKSPACES = (
    "SELECT shard_id, workspace_id FROM workspace WHERE (shard_id, workspace_id) > (?, ?) AND deleted_us IS NULL"
    " ORDER BY shard_id, workspace_id LIMIT ?"
)
_COUNT = "SELECT count(*) FROM workspace WHERE deleted_us IS NULL"
_COUNT_UP_TO = _COUNT + " AND (shard_id, workspace_id) <= (?, ?)"
_OF_FILES: Final = frozenset({Check.REVISIONS, Check.INDEXES, Check.REFERENCES})


class SqliteAudit:
    """Audits of one node's file."""

    def __init__(
        self,
        snapshot: Snapshot,
        clock: Clock,
        shard_count: int,
        turns: LoopTurns | None = None,
        *,
        gives_way: bool = True,
    ) -> None:
        """`gives_way`: others use this event loop; `turns` says whether they call just now."""
        self._snapshot = snapshot
        self._clock = clock
        self._shard_count = shard_count
        self._turns = turns or LoopTurns(clock)
        self._gives_way = gives_way
        self._worked_s = 0.0

    async def run(self, order: AuditOrder) -> AsyncGenerator[Finding | Tally | AuditEnd, None]:
        """Confirmed findings; between them, after every step, how much was looked at; the end last."""
        end = AuditEnd(Tally())
        started = self._clock.monotonic()
        async with aclosing(self._steps(order, end.tally)) as steps:
            async for step in steps:
                following: Step | None = step
                while following is not None:
                    most = order.findings_max - end.finding_count
                    found, following = await self._look_twice(following, end.tally, most)
                    for finding in found:
                        end.finding_count += 1
                        yield finding
                    yield end.tally
                    if end.finding_count >= order.findings_max:
                        end.is_truncated = True
                        yield end
                        return
                    await self._give_way()
                    await self._keep_rate(order, end.tally, started)
        yield end

    async def _steps(self, order: AuditOrder, tally: Tally) -> AsyncGenerator[Step, None]:
        """The first step of everything that is looked at."""
        if order.workspace_id:
            key = await self._find(order.workspace_id)
            tally.workspace_total = 1
            for step in self._of_workspace(order, key):
                yield step
            tally.workspace_count = 1
            return
        for step in self._of_node(order):
            yield step
        after: tuple[int, str] = (-1, "")
        if order.after is not None:
            after = begun = WorkspaceKey(*order.after[:2])
            yield _while_alive(partial(check_contents, key=begun, after=order.after.path), begun)
        async with self._snapshot() as cursor:
            tally.workspace_total = cursor.execute(_COUNT).get
            tally.workspace_count = cursor.execute(_COUNT_UP_TO, after).get
        while True:
            async with self._snapshot() as cursor:
                keys = [WorkspaceKey(*row) for row in cursor.execute(_WORKSPACES, (*after, WORKSPACES_PER_PAGE))]
            for key in keys:
                for step in self._of_workspace(order, key):
                    yield step
                tally.workspace_count += 1
            if len(keys) < WORKSPACES_PER_PAGE:
                return
            after = keys[-1]

    def _of_node(self, order: AuditOrder) -> Iterator[Step]:
        if Check.INDEXES in order.checks:
            yield partial(check_placement, shard_count=self._shard_count)
        if Check.REFERENCES in order.checks:
            yield check_strays
            yield Orphans().begin
            yield check_holds
            if order.is_strict:
                yield partial(check_overdue, now_us=self._clock.now_us())
        if Check.OUTCOMES in order.checks:
            yield check_shard_totals

    def _of_workspace(self, order: AuditOrder, key: WorkspaceKey) -> Iterator[Step]:
        checks = frozenset(order.checks)
        if Check.DIGESTS in checks:
            yield _while_alive(partial(check_directories, key=key), key)
        if Check.REVISIONS in checks:
            yield _while_alive(partial(check_events, key=key), key)
        if checks & _OF_FILES:
            yield _while_alive(partial(check_files, key=key, checks=checks), key)
        if Check.REFERENCES in checks:
            yield _while_alive(partial(check_kept, key=key), key)
            yield _while_alive(partial(check_operation_contents, key=key), key)
        if Check.INDEXES in checks:
            yield _while_alive(partial(check_objects, key=key), key)
            yield _while_alive(partial(check_indexed, key=key), key)
            yield _while_alive(partial(check_terms, key=key), key)
            yield _while_alive(partial(check_provider_directories, key=key), key)
            yield _while_alive(partial(check_operations, key=key), key)
        if Check.OUTCOMES in checks:
            yield _while_alive(partial(check_outcomes, key=key, now_us=self._clock.now_us()), key)
            yield _while_alive(partial(check_letters, key=key), key)
        if Check.CONTENT in checks:
            yield _while_alive(partial(check_contents, key=key), key)

    async def _find(self, workspace_id: str) -> WorkspaceKey:
        async with self._snapshot() as cursor:
            key = WorkspaceKey(shard_of(workspace_id, self._shard_count), workspace_id)
            if cursor.execute(_ALIVE, key).fetchone() is None:
                raise WorkspaceNotFound(workspace=workspace_id)
        return key

    async def _look_twice(self, step: Step, tally: Tally, most: int) -> tuple[list[Finding], Step | None]:
        """What two looks find, in two snapshots; and the step that follows."""
        found, following = await self._look(step, tally, most)
        if found:
            again, _ = await self._look(step, Tally(), most)
            confirmed = {finding.identity for finding in again}
            found = [finding for finding in found if finding.identity in confirmed]
        return found, following

    async def _look(self, step: Step, tally: Tally, most: int) -> tuple[list[Finding], Step | None]:
        found: list[Finding] = []
        async with self._snapshot() as cursor:
            look = step(cursor, tally)
            try:
                while True:
                    started = self._clock.monotonic()
                    try:
                        finding = next(look)
                    finally:
                        self._worked_s += self._clock.monotonic() - started
                    if finding is not None and len(found) < most:
                        found.append(finding)
                    await self._give_way()
            except StopIteration as end:
                following: Step | None = end.value
                return found, following
            finally:
                look.close()

    async def _give_way(self) -> None:
        """Let others work for as long as this did, once that is a turn: also when it was many short steps."""
        if self._gives_way and self._worked_s > (SHARED_TURN_S if self._turns.is_shared() else TURN_S):
            worked, self._worked_s = self._worked_s, 0.0
            await asyncio.sleep(max(worked, self._turns.rest_s(worked)))

    async def _keep_rate(self, order: AuditOrder, tally: Tally, started: float) -> None:
        if order.content_bytes_per_second_max:
            due = started + tally.content_bytes / order.content_bytes_per_second_max
            await asyncio.sleep(max(0.0, due - self._clock.monotonic()))


def _while_alive(step: Step, key: WorkspaceKey) -> Step:
    """The step and those that follow it, but nothing once the workspace is deleted."""

    def look(cursor: apsw.Cursor, tally: Tally) -> Look:
        if cursor.execute(_ALIVE, key).fetchone() is None:
            return None
        following = yield from step(cursor, tally)
        return None if following is None else _while_alive(following, key)

    return look
