"""Batches of mutations as one entry, on a real engine: who shares it, who left, what follows, what is kept."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import DeadlineExpired, RelayfileError, RevisionConflict, WorkspaceNotFound
from relayfile.model import Origin, Semantics
from relayfile.placement import shard_of
from relayfile.store.engine import Fence, PlannedEntry, WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.plan.agent_edits import AgentEdit, EditKind
from relayfile.store.plan.file_write import Author, FileDelete, FileMove, FileResult, FileWrite
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import RequestKey
from relayfile.store.plan.slice import Slice
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.store.writes import BatchAnswer, FileMutations, WriteBatch, decode_answer, encode_answer
from tests.support.running_node import SHARDS, open_test_engine, running_node

KEY = WorkspaceKey(shard_of("acme", SHARDS), "acme")
BY = Author(Origin.AGENT, "agent-1", "c", "t")


class Store:
    """Plans and commits one entry after the other."""

    def __init__(self, engine: SqliteEngine, epoch: int) -> None:
        self.edits: list[AgentEdit] = []
        self.engine = engine
        self.commits = 0
        self._fence = Fence(KEY.shard_id, epoch)
        self._context = PlanContext(engine, ManualClock(), lambda: "history")
        self.kind = self.made(creates_workspaces=True)

    def made(self, *, creates_workspaces: bool) -> Once[WriteBatch, BatchAnswer]:
        mutations = FileMutations(
            self._context, PlanLimits(), creates_workspaces=creates_workspaces, edits_hook=self._follow
        )
        return Once(self._context, mutations, encode_answer, decode_answer)

    async def ask(
        self, *asked: Asked[WriteBatch], kind: Once[WriteBatch, BatchAnswer] | None = None
    ) -> Sequence[BatchAnswer | Exception]:
        plan, answers = await (kind or self.kind).plan(KEY, asked)
        if plan is not None:
            self.commits += 1
            await self.engine.commit([self._fence], [PlannedEntry(KEY, plan, 1)])
        return answers

    async def _follow(self, key: WorkspaceKey, loaded: Slice, edits: Sequence[AgentEdit], plan: Plan) -> list[str]:
        assert (key, plan.workspace_id) == (KEY, "acme")
        self.edits += edits
        return [f"op-{edit.revision}" for edit in edits]


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory)
        [row] = await engine.acquire_shards([KEY.shard_id], 0, "127.0.0.1:1")
        yield Store(engine, row.epoch)
        await engine.close()


def write(path: str, content: bytes = b"1", at: int = 0) -> FileWrite:
    return FileWrite(path, content, BY, at)


def results(answer: BatchAnswer | Exception) -> tuple[FileResult | RelayfileError, ...]:
    assert isinstance(answer, BatchAnswer), answer
    return answer.results


async def test_the_first_write_makes_the_workspace_where_that_is_wanted(store: Store) -> None:
    batch = Asked(WriteBatch((write("/a"),)))
    [refused] = await store.ask(batch, kind=store.made(creates_workspaces=False))
    assert isinstance(refused, WorkspaceNotFound)
    [refused] = await store.ask(Asked(WriteBatch((write("/a", at=4),))))
    assert isinstance(refused, RelayfileError)
    async with store.engine.view(KEY) as view:
        assert await view.workspace() is None, "what is refused makes nothing"
    [answer] = await store.ask(batch)
    assert isinstance(answer, BatchAnswer)
    async with store.engine.view(KEY) as view:
        row = await view.workspace()
    assert row is not None
    assert (row.history_id, row.revision, answer.revision) == ("history", 1, 1)


async def test_batches_share_a_commit_and_each_has_its_own_results(store: Store) -> None:
    answers = await store.ask(
        Asked(WriteBatch((write("/a"), write("/b")), is_single=False)),
        Asked(WriteBatch((write("/a", b"2", at=9),))),
        Asked(WriteBatch((write("/a", b"2", at=1), write("/b", b"2", at=1)), is_single=False)),
    )
    assert store.commits == 1
    assert isinstance(answers[1], RevisionConflict)
    assert [result.revision for result in results(answers[0]) if isinstance(result, FileResult)] == [1, 2]
    first, second = results(answers[2])
    assert isinstance(first, FileResult)
    assert isinstance(second, RevisionConflict)
    assert first.revision == 3


async def test_a_batch_that_was_withdrawn_has_no_effect_and_the_others_theirs(store: Store) -> None:
    gone = WriteBatch((write("/gone"),), answer=asyncio.get_running_loop().create_future())
    assert gone.answer is not None
    gone.answer.cancel()
    left, there = await store.ask(Asked(gone), Asked(WriteBatch((write("/a"),))))
    assert isinstance(left, DeadlineExpired)
    [result] = results(there)
    assert isinstance(result, FileResult)
    assert result.revision == 1


async def test_who_leaves_while_a_long_entry_is_planned_takes_nobody_s_results(store: Store) -> None:
    long = WriteBatch(tuple(write(f"/long/{number}") for number in range(450)), is_single=False)
    leaves = WriteBatch((write("/leaves"),), answer=asyncio.get_running_loop().create_future())
    asking = asyncio.ensure_future(store.ask(Asked(long), Asked(leaves), Asked(WriteBatch((write("/last"),)))))
    await asyncio.sleep(0)
    assert leaves.answer is not None
    leaves.answer.cancel()
    answers = await asking
    revisions = [each.revision for answer in answers for each in results(answer) if isinstance(each, FileResult)]
    assert revisions == list(range(1, 453))


async def test_what_follows_from_edits_is_named_in_the_results(store: Store) -> None:
    await store.ask(Asked(WriteBatch((write("/a"), write("/b")), is_single=False)))
    store.edits.clear()
    system = Author(Origin.SYSTEM)
    [answer] = await store.ask(
        Asked(
            WriteBatch(
                (
                    write("/a", b"1", at=1),  # the same: no edit
                    write("/a", b"2", at=1),
                    write("/a", b"3", at=1),  # a conflict: no edit
                    FileMove("/b", "/c", BY, 2),
                    FileDelete("/a", BY, 3),
                    FileWrite("/s", b"s", system, 0),
                ),
                is_single=False,
            )
        )
    )
    named = [each.operation_id if isinstance(each, FileResult) else "-" for each in results(answer)]
    assert named == ["", "op-3", "-", "op-5", "op-6", ""]
    shown = [(edit.kind, edit.path, edit.moved_from, edit.base_revision, edit.revision) for edit in store.edits]
    assert shown == [
        (EditKind.WRITE, "/a", "", 1, 3),
        (EditKind.MOVE, "/c", "/b", 2, 5),
        (EditKind.DELETE, "/a", "", 3, 6),
    ]
    after = store.edits[0].after
    assert after is not None
    assert after.content_id == 0


async def test_an_answer_survives_its_record(store: Store) -> None:
    semantics = Semantics({"k": "v"}, ("r",), (), ("c",))
    batch = WriteBatch(
        (FileWrite("/a", b"\x00", BY, 0, semantics=semantics), write("/a", b"2", at=7), FileDelete("/a", BY, 1)),
        is_single=False,
    )
    mark = RequestMark(RequestKey("m", "r"), b"f" * 32)
    [first] = await store.ask(Asked(batch, mark))
    [again] = await store.ask(Asked(batch, mark))
    assert isinstance(first, BatchAnswer)
    assert isinstance(again, BatchAnswer)
    assert store.commits == 1
    assert again.revision == first.revision == 2
    made, conflict, gone = again.results
    assert isinstance(conflict, RevisionConflict)
    assert (conflict.expected, conflict.current) == (7, 1)
    assert (made, gone) == (first.results[0], first.results[2])


async def test_a_cancelled_call_withdraws_its_batch(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running:
        files = running.node.files
        stays = asyncio.ensure_future(files.mutate("acme", WriteBatch((write("/stays"),)), None))
        goes = asyncio.ensure_future(files.mutate("acme", WriteBatch((write("/goes"),)), None))
        await asyncio.sleep(0)  # both are queued
        goes.cancel()
        answer = await stays
        assert answer.revision == 1
        with pytest.raises(asyncio.CancelledError):
            await goes
        assert (await files.mutate("acme", WriteBatch((write("/after"),)), None)).revision == 2
