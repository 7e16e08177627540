"""The commit pipeline on an engine that only remembers what it was asked, and lets a test say when a commit ends."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from relayfile.clock import Clock, ManualClock, SystemClock
from relayfile.errors import Draining, NotOwner, Overloaded, StorageFailed, Unavailable
from relayfile.store.commit import Asker, CommitLimits, Committer
from relayfile.store.company import (
    LARGE_ENTRY_CHANGES,
    NEIGHBOURLY_CHANGES,
    NEIGHBOURLY_MUTATIONS,
    NEIGHBOURLY_REST_S,
)
from relayfile.store.engine import Engine, Fence, PlannedEntry, ShardRow, WorkspaceKey
from relayfile.store.ownership import Ownership, StaticPlacement
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import WorkspaceRow
from relayfile.store.queues import QueueBounds
from relayfile.store.watch import RevisionFeed
from relayfile.telemetry import StoreInstruments

A, B, C = (WorkspaceKey(1, name) for name in "abc")


@dataclass
class Recorder:
    """An engine's `commit`."""

    groups: list[list[str]] = field(default_factory=list)
    fenced: frozenset[int] = frozenset()
    failing: dict[str, Exception] = field(default_factory=dict)
    """Workspace to what a commit with it raises."""
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0

    async def commit(self, fences: Sequence[Fence], entries: Sequence[PlannedEntry]) -> frozenset[int]:
        assert {fence.shard_id for fence in fences} == {entry.key.shard_id for entry in entries}
        self.under_way += 1
        assert self.under_way == 1, "one transaction at a time"
        try:
            await self.gate.wait()
            for entry in entries:
                if entry.key.workspace_id in self.failing:
                    raise self.failing[entry.key.workspace_id]
            self.groups.append([entry.key.workspace_id for entry in entries])
            return self.fenced
        finally:
            self.under_way -= 1


@dataclass
class Notes:
    """A kind whose mutations are words; the answer is (what was planned together, place in it)."""

    planned: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    poison: str = ""

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[str]
    ) -> tuple[Plan | None, Sequence[tuple[str, int] | Exception]]:
        if self.poison in mutations:
            raise ValueError(self.poison)
        self.planned.append((key.workspace_id, tuple(mutations)))
        together = "+".join(mutations)
        plan = Plan(key.workspace_id, WorkspaceRow("h", len(self.planned), 1), workspace_changed=True)
        return plan, [(together, place) for place in range(len(mutations))]


@dataclass
class Rig:
    committer: Committer
    engine: Recorder
    notes: Notes
    feed: RevisionFeed
    running: "asyncio.Task[None]"

    def put(
        self, key: WorkspaceKey, word: str, byte_count: int = 0, change_count: int = 1
    ) -> "asyncio.Future[tuple[str, int]]":
        return self.committer.submit(key, self.notes, word, change_count=change_count, byte_count=byte_count)


@asynccontextmanager
async def rig(
    limits: CommitLimits | None = None, *, gate_open: bool = True, clock: Clock | None = None
) -> AsyncIterator[Rig]:
    engine, notes, feed = Recorder(), Notes(), RevisionFeed()
    if gate_open:
        engine.gate.set()
    ownership = Ownership(StaticPlacement(256, 0, ("here",)), [ShardRow(1, 1, 0, "here")])
    instruments = StoreInstruments.declare(CollectorRegistry())
    committer = Committer(
        cast("Engine", engine), ownership, feed, clock or SystemClock(), instruments, limits or CommitLimits()
    )
    running = asyncio.ensure_future(committer.run())
    try:
        yield Rig(committer, engine, notes, feed, running)
    finally:
        running.cancel()
        await asyncio.wait((running,))


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_lone_change_is_committed_at_once() -> None:
    async with rig(CommitLimits(linger_s=60.0)) as it:
        assert await it.put(A, "one") == ("one", 0)
        assert it.engine.groups == [["a"]]


async def test_what_arrives_during_a_commit_is_planned_together_after_it() -> None:
    async with rig(gate_open=False) as it:
        first = it.put(A, "1")
        await turns()
        later = [it.put(A, word) for word in "234"]
        other = it.put(B, "x")
        await turns()
        # Another workspace is planned while the disk works, the same one is not.
        assert it.notes.planned == [("a", ("1",)), ("b", ("x",))]
        assert not first.done()
        it.engine.gate.set()
        assert await asyncio.gather(*later) == [("2+3+4", 0), ("2+3+4", 1), ("2+3+4", 2)]
        assert await other == ("x", 0)
        assert it.notes.planned[2] == ("a", ("2", "3", "4"))


async def test_workspaces_share_a_transaction_and_take_turns() -> None:
    async with rig(CommitLimits(entry_changes_max=2), gate_open=False) as it:
        blocker = it.put(C, "c")
        await turns()
        answers = [it.put(A, word) for word in "12345"] + [it.put(B, "x")]
        await turns()
        it.engine.gate.set()
        await asyncio.gather(blocker, *answers)
        assert it.engine.groups == [["c"], ["a", "b"], ["a"], ["a"]]


async def test_it_tells_of_what_somebody_waits_for_and_not_of_its_own_work() -> None:
    async with rig() as it:
        told: list[str] = []
        it.committer.on_submit = lambda: told.append("called")
        await it.put(A, "1")
        await it.committer.submit(A, it.notes, "2", change_count=1, byte_count=0, asker=Asker.NODE)
        assert told == ["called"]


async def test_a_workspace_of_many_callers_goes_on_when_no_more_of_them_come() -> None:
    """Time stands still until the test moves it: nothing here depends on how long anything takes."""
    clock = ManualClock()
    async with rig(CommitLimits(linger_s=0.0), clock=clock) as it, asyncio.timeout(60):
        await it.put(B, "neighbour")
        first = [it.put(A, "1") for _ in range(NEIGHBOURLY_MUTATIONS)]
        second = [it.put(A, "2") for _ in range(NEIGHBOURLY_MUTATIONS)]
        await asyncio.gather(*first)
        await it.put(B, "meanwhile")
        assert not any(each.done() for each in second)
        clock.advance(NEIGHBOURLY_REST_S * 0.75)
        third = it.put(A, "3")  # one more call: it rests on
        clock.advance(NEIGHBOURLY_REST_S * 0.75)
        await it.put(B, "again")
        assert not any(each.done() for each in second)
        clock.advance(NEIGHBOURLY_REST_S)
        await asyncio.gather(*second)
        assert it.engine.groups == [["b"], ["a"], ["b"], ["b"], ["a"]]
        assert not third.done()


async def test_a_group_is_capped() -> None:
    async with rig(CommitLimits(group_changes_max=2), gate_open=False) as it:
        blocker = it.put(WorkspaceKey(1, "z"), "z")
        await turns()
        answers = [it.put(key, "x") for key in (A, B, C)]
        await turns()
        it.engine.gate.set()
        await asyncio.gather(blocker, *answers)
        assert it.engine.groups == [["z"], ["a", "b"], ["c"]]


async def test_a_busy_committer_waits_for_company_but_not_for_ever() -> None:
    async with rig(CommitLimits(linger_s=0.02)) as it:
        await asyncio.gather(*(it.put(WorkspaceKey(1, f"w{n}"), "x") for n in range(20)))
        first = it.put(A, "1")
        await turns()
        assert not first.done()
        second = it.put(B, "2")
        await asyncio.gather(first, second)
        assert it.engine.groups[1:] == [["a", "b"]]


async def test_entries_of_many_changes_wait_for_no_company() -> None:
    """A noisy workspace alone: nothing more of it may join the group, and a quiet one that did should not wait."""
    async with rig(CommitLimits(linger_s=60.0), gate_open=False) as it:
        blocker = it.put(C, "0")
        await turns()
        company = [it.put(B, str(number)) for number in range(LARGE_ENTRY_CHANGES)]
        await turns()
        noisy = [it.put(B, str(number)) for number in range(2 * LARGE_ENTRY_CHANGES)]
        quiet = it.put(A, "1")
        it.engine.gate.set()
        async with asyncio.timeout(5):
            await asyncio.gather(blocker, *company, *noisy, quiet)


async def test_a_small_entry_that_waited_for_a_commit_does_not_wait_for_a_large_one_too() -> None:
    async with rig(CommitLimits(linger_s=60.0), gate_open=False) as it:
        first = it.put(B, "0")
        await turns()
        noisy = [it.put(B, str(number)) for number in range(2 * LARGE_ENTRY_CHANGES)]
        quiet = it.put(A, "1")
        await turns()
        it.engine.gate.set()
        await asyncio.gather(first, quiet, *noisy)
        assert it.engine.groups[:3] == [["b"], ["a"], ["b"]]


async def test_beside_a_small_entry_a_large_one_is_parted() -> None:
    async with rig(CommitLimits(linger_s=0.0)) as it:
        await it.put(A, "1")
        noisy = [it.put(B, str(number), change_count=25) for number in range(NEIGHBOURLY_CHANGES // 25 + 1)]
        await asyncio.gather(*noisy)
        assert it.engine.groups == [["a"], ["b"], ["b"]]


async def test_beside_a_small_entry_few_callers_are_answered_together() -> None:
    async with rig(CommitLimits(linger_s=60.0)) as it:
        await it.put(A, "1")
        noisy = [it.put(B, str(number)) for number in range(2 * NEIGHBOURLY_MUTATIONS)]
        await asyncio.gather(*noisy)
        assert it.engine.groups == [["a"], ["b"], ["b"]]


async def test_nothing_is_told_before_it_is_durable_and_watchers_are_woken_then() -> None:
    async with rig(gate_open=False) as it:
        answer = it.put(A, "1")
        await turns()
        assert it.feed.newest("a") == 0
        it.engine.gate.set()
        await answer


async def test_a_cancelled_submitter_undoes_nothing() -> None:
    async with rig(gate_open=False) as it:
        answer = it.put(A, "1")
        await turns()
        answer.cancel()
        it.engine.gate.set()
        assert await it.put(A, "2") == ("2", 0)
        assert it.engine.groups == [["a"], ["a"]]


async def test_a_poison_mutation_is_refused_alone() -> None:
    async with rig(gate_open=False) as it:
        blocker = it.put(A, "0")
        await turns()
        it.notes.poison = "bad"
        good, bad, late = it.put(A, "good"), it.put(A, "bad"), it.put(A, "late")
        it.engine.gate.set()
        assert await good == ("good", 0)
        with pytest.raises(ValueError, match="bad"):
            await bad
        assert await late == ("late", 0)
        await blocker


async def test_an_entry_that_cannot_be_written_does_not_fail_its_group() -> None:
    async with rig(gate_open=False) as it:
        blocker = it.put(C, "c")
        await turns()
        it.engine.failing["a"] = ValueError("constraint")
        good, bad = it.put(B, "good"), it.put(A, "bad")
        await turns()
        it.engine.gate.set()
        assert await good == ("good", 0)
        with pytest.raises(ValueError, match="constraint"):
            await bad
        await blocker


async def test_a_full_disk_is_told_and_the_next_change_is_tried_again() -> None:
    async with rig() as it:
        it.engine.failing["a"] = Unavailable(what="disk")
        with pytest.raises(Unavailable):
            await it.put(A, "1")
        it.engine.failing.clear()
        assert await it.put(A, "2") == ("2", 0)


async def test_a_failing_disk_ends_the_pipeline_and_everybody_is_told() -> None:
    async with rig(gate_open=False) as it:
        it.engine.failing["a"] = StorageFailed(what="fsync")
        first = it.put(A, "1")
        await turns()
        waiting = it.put(A, "2")
        it.engine.gate.set()
        with pytest.raises(StorageFailed):
            await first
        with pytest.raises(Draining):
            await waiting
        with pytest.raises(ExceptionGroup) as ended:
            await it.running
        assert ended.group_contains(StorageFailed)


async def test_fenced_entries_are_sent_to_the_owner() -> None:
    async with rig() as it:
        it.engine.fenced = frozenset({1})
        with pytest.raises(NotOwner):
            await it.put(A, "1")
        with pytest.raises(NotOwner):
            await it.put(WorkspaceKey(2, "elsewhere"), "1")


async def test_queues_are_bounded_and_room_is_waited_for() -> None:
    limits = CommitLimits(bounds=QueueBounds(workspace_changes_max=2, node_bytes_max=10))
    async with rig(limits, gate_open=False) as it:
        first = it.put(A, "1", 4)
        await turns()
        rest = [it.put(A, "2", 4), it.put(A, "3", 8)]
        with pytest.raises(Overloaded):
            await it.put(A, "4")
        room = asyncio.ensure_future(it.committer.room())
        await turns()
        assert not room.done()
        it.engine.gate.set()
        await asyncio.gather(first, *rest, room)


async def test_a_drain_returns_when_everything_is_answered() -> None:
    async with rig(gate_open=False) as it:
        answers = [it.put(A, word) for word in "12"]
        draining = asyncio.ensure_future(it.committer.drain())
        await turns()
        assert not draining.done()
        it.engine.gate.set()
        await draining
        assert all(answer.done() for answer in answers)
