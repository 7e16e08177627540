"""The commit pipeline over an engine that fails when it is told to: everybody who waits is answered."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from relayfile.clock import SystemClock
from relayfile.errors import Draining, RelayfileError, StorageFailed, Unavailable
from relayfile.store.commit import CommitLimits, Committer
from relayfile.store.engine import Engine, Fence, PlannedEntry, ShardRow, WorkspaceKey
from relayfile.store.ownership import Ownership, StaticPlacement
from relayfile.store.plan.result import Plan
from relayfile.store.watch import RevisionFeed
from relayfile.telemetry import StoreInstruments

TIMEOUT_S = 5.0
UNAVAILABLE = Unavailable(what="disk", retry_after_s=1.0)


class FailingEngine:
    """Commits by remembering; `fails` says what to raise for a group instead."""

    def __init__(self) -> None:
        self.fails: Callable[[list[str]], Exception | None] = lambda workspaces: None
        self.committed: list[list[str]] = []
        self.tried: list[list[str]] = []
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    async def commit(self, _: Sequence[Fence], entries: Sequence[PlannedEntry]) -> frozenset[int]:
        workspaces = [entry.key.workspace_id for entry in entries]
        self.tried.append(workspaces)
        await self.may_commit.wait()
        failure = self.fails(workspaces)
        if failure is not None:
            raise failure
        self.committed.append(workspaces)
        return frozenset()


class Echo:
    """Answers each mutation with itself. Planning waits for `may_plan`."""

    def __init__(self) -> None:
        self.may_plan = asyncio.Event()
        self.may_plan.set()

    async def plan(self, key: WorkspaceKey, mutations: Sequence[str]) -> tuple[Plan, Sequence[str]]:
        await self.may_plan.wait()
        if len(mutations) > 1 and "poison" in mutations:
            raise ValueError("together")
        if mutations[0] == "poison":
            raise ValueError("alone")
        return Plan(key.workspace_id, None), mutations


class Running:
    def __init__(self) -> None:
        self.engine, self.kind = FailingEngine(), Echo()
        ownership = Ownership(StaticPlacement(1, 0, ("here:1",)), [ShardRow(0, 1, 0, "here:1")])
        instruments = StoreInstruments.declare(CollectorRegistry())
        engine = cast("Engine", self.engine)
        self.committer = Committer(engine, ownership, RevisionFeed(), SystemClock(), instruments, CommitLimits())
        self.task = asyncio.ensure_future(self.committer.run())

    def submit(self, workspace_id: str, mutation: str = "m") -> "asyncio.Future[str]":
        key = WorkspaceKey(0, workspace_id)
        return self.committer.submit(key, self.kind, mutation, change_count=1, byte_count=1)


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    one = Running()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            yield one
    finally:
        one.task.cancel()
        with suppress(asyncio.CancelledError, ExceptionGroup):
            await one.task


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_group_that_cannot_be_written_is_written_one_by_one() -> None:
    async with running() as one:
        one.engine.fails = lambda workspaces: UNAVAILABLE if "b" in workspaces else None
        answers = [one.submit(name) for name in "abc"]
        done = await asyncio.gather(*answers, return_exceptions=True)
        assert done == ["m", UNAVAILABLE, "m"]
        await one.committer.drain()


async def test_all_are_answered_when_the_disk_fails_while_they_are_written_one_by_one() -> None:
    async with running() as one:
        one.engine.fails = lambda workspaces: UNAVAILABLE if len(workspaces) > 1 else StorageFailed(what="fsync")
        answers = [one.submit(name) for name in "abc"]
        done = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(answer) for answer in done] == [StorageFailed, Draining, Draining]
        await one.committer.drain()
        assert one.engine.tried == [["a", "b", "c"], ["a"]], "nothing is written after a failed fsync"


@pytest.mark.parametrize("at", ["queued", "planning", "writing"])
async def test_all_are_answered_when_the_pipeline_is_cancelled(at: str) -> None:
    async with running() as one:
        await turns()
        if at == "planning":
            one.kind.may_plan.clear()
        if at == "writing":
            one.engine.may_commit.clear()
        answers = [one.submit(name) for name in "aab"]
        if at != "queued":
            await turns()
        one.task.cancel()
        done = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(answer) for answer in done] == [Draining] * 3
        await one.committer.drain()


async def test_what_comes_after_the_end_is_refused_and_not_kept() -> None:
    async with running() as one:
        await turns()
        one.task.cancel()
        await turns()
        with pytest.raises(RelayfileError):
            await one.submit("a")
        await one.committer.drain()
        await one.committer.room()


async def test_a_workspace_has_one_uncommitted_entry_and_its_poison_is_alone() -> None:
    async with running() as one:
        one.engine.may_commit.clear()
        first = one.submit("a")
        await turns()
        later = [one.submit("a", mutation) for mutation in ("x", "poison", "y")]
        other = one.submit("b")
        await turns()
        assert one.engine.tried == [["a"]]
        assert not first.done()
        one.engine.may_commit.set()
        done = await asyncio.gather(first, *later, other, return_exceptions=True)
        assert [answer if isinstance(answer, str) else str(answer) for answer in done] == ["m", "x", "alone", "y", "m"]
        await one.committer.drain()
