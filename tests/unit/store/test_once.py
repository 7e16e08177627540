"""A repeated request gets the first answer: from the record, inside one entry, and after a refusal a new chance."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import RequestIdReused, WorkspaceNotFound
from relayfile.placement import shard_of
from relayfile.store.engine import Fence, PlannedEntry, WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.once import Asked, Once, RequestMark, mark_of
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import RequestKey
from relayfile.store.sqlite.engine import SqliteEngine
from relayfile.v1 import shard_pb2
from tests.support.running_node import SHARDS, open_test_engine

KEY = WorkspaceKey(shard_of("acme", SHARDS), "acme")
METHOD = "relayfile.v1.ShardService/SetPause"


class Doubled:
    """Answers twice the number; refuses negative ones; writes nothing for 0."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    async def plan(self, key: WorkspaceKey, mutations: Sequence[int]) -> tuple[Plan | None, Sequence[int | Exception]]:
        self.seen += mutations
        answers = [2 * number if number >= 0 else WorkspaceNotFound(workspace="acme") for number in mutations]
        return Plan(key.workspace_id, None) if any(mutations) else None, answers


class Store:
    """Plans and commits one entry after the other."""

    def __init__(self, engine: SqliteEngine, epoch: int) -> None:
        clock = ManualClock()
        self.kind = Doubled()
        self.withdrawn: list[int] = []
        self._engine = engine
        self._epoch = epoch
        context = PlanContext(engine, clock, lambda: "id")
        self._once = Once(context, self.kind, lambda number: b"%d" % number, int, self._is_withdrawn)

    def _is_withdrawn(self, number: int) -> bool:
        return number in self.withdrawn

    async def ask(self, *asked: Asked[int]) -> list[int | str]:
        plan, answers = await self._once.plan(KEY, asked)
        if plan is not None:
            await self._engine.commit([Fence(KEY.shard_id, self._epoch)], [PlannedEntry(KEY, plan, 1)])
        return [type(answer).__name__ if isinstance(answer, Exception) else answer for answer in answers]


@pytest.fixture
async def store(tmp_path: Path):  # type: ignore[no-untyped-def]  # yields a Store
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory)
        [row] = await engine.acquire_shards([KEY.shard_id], 0, "127.0.0.1:1")
        yield Store(engine, row.epoch)
        await engine.close()


def asked(number: int, request_id: str = "", what: int | None = None) -> Asked[int]:
    if not request_id:
        return Asked(number)
    return Asked(number, RequestMark(RequestKey(METHOD, request_id), bytes([what or number & 0xFF]) * 32))


REUSED = RequestIdReused.__name__
REFUSED = WorkspaceNotFound.__name__


async def test_without_an_id_every_request_is_a_new_one(store: Store) -> None:
    assert await store.ask(asked(1), asked(1)) == [2, 2]
    assert store.kind.seen == [1, 1]


async def test_a_repeat_is_answered_from_the_record(store: Store) -> None:
    assert await store.ask(asked(1, "a"), asked(2, "b"), asked(3)) == [2, 4, 6]
    assert await store.ask(asked(2, "b"), asked(4, "c"), asked(1, "a")) == [4, 8, 2]
    assert store.kind.seen == [1, 2, 3, 4]


async def test_what_had_no_effect_is_remembered_too(store: Store) -> None:
    assert await store.ask(asked(0, "a", 7)) == [0]
    assert await store.ask(asked(5, "a", 7)) == [0]
    assert store.kind.seen == [0]


async def test_a_repeat_in_the_same_entry_gets_the_same_answer(store: Store) -> None:
    assert await store.ask(asked(1, "a"), asked(1, "a"), asked(2, "a")) == [2, 2, REUSED]
    assert store.kind.seen == [1]


async def test_a_repeat_of_a_request_that_was_withdrawn_is_the_one_that_counts(store: Store) -> None:
    """Its caller's connection was cut, and the repeat meets it in the queue."""
    store.withdrawn = [-1]
    assert await store.ask(asked(-1, "a", 9), asked(4, "a", 9), asked(5, "a", 9)) == [8, 8, 8]
    assert store.kind.seen == [4]
    assert await store.ask(asked(-1, "b", 9), asked(-1, "b", 9)) == [REFUSED, REFUSED]


async def test_another_request_under_a_known_id_is_refused(store: Store) -> None:
    await store.ask(asked(1, "a"))
    assert await store.ask(asked(2, "a"), asked(1, "a")) == [REUSED, 2]


async def test_a_refusal_is_not_remembered(store: Store) -> None:
    assert await store.ask(asked(-1, "a", 9), asked(-1, "a", 9)) == [REFUSED, REFUSED]
    assert await store.ask(asked(3, "a", 9)) == [6]


def test_a_mark_tells_requests_apart_by_all_they_say() -> None:
    def mark(**fields: object) -> RequestMark | None:
        return mark_of(METHOD, shard_pb2.SetPauseRequest(**fields))  # type: ignore[arg-type]  # fields of the message

    assert mark(workspace_id="acme") is None
    first = mark(workspace_id="acme", paused=True, request_id="r")
    assert first is not None
    assert first.key == RequestKey(METHOD, "r")
    assert first == mark(workspace_id="acme", paused=True, request_id="r")
    assert first != mark(workspace_id="acme", paused=False, request_id="r")
