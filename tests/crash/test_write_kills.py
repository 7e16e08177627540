"""kill -9 of a store node under concurrent writes: what was acknowledged is there, once, and a repeat says the same.

Every caller repeats a request that broke under its own request id until it is answered. Its requests are conditional on
the revision that the answer before named: one that was applied twice, or was lost, makes the next one a conflict.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from relayfile.local.system import LocalSystem
from relayfile.v1 import file_pb2
from tests.crash.storm import Storm
from tests.support.client import Client, client_of, gaps
from tests.support.system import started_system

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

CALLERS = 24
BROKEN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)
NODE = "store-0"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    async with started_system(tmp_path_factory.mktemp("writes"), nodes=1, only=frozenset({"store"})) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(system: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(system) as connected:
        yield connected


@dataclass(slots=True)
class Caller:
    """Writes, moves and deletes files of its own, one request after the other."""

    client: Client
    workspace: str
    number: int
    tree: dict[str, bytes] = field(default_factory=dict)
    """Its files as they were acknowledged."""
    revisions: dict[str, int] = field(default_factory=dict)
    revision_count: int = 0
    requests: int = 0
    repeats: int = 0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.requests += 1
            name = f"/c{self.number:02d}/{self.requests:05d}"
            choice = self.requests % 6
            if choice in (0, 3) and self.tree:
                await self._edit(next(reversed(self.tree)))
            elif choice == 4 and self.tree:
                await self._move(next(iter(self.tree)), name + "-moved")
            elif choice == 5 and len(self.tree) > 3:
                await self._delete(next(iter(self.tree)))
            elif choice == 2:
                await self._batch(name)
            else:
                await self._put(name, b"%d of %d" % (self.requests, self.number), 0)

    async def _edit(self, path: str) -> None:
        await self._put(path, self.tree[path] + b" edited %d" % self.requests, self.revisions[path])

    async def _put(self, path: str, content: bytes, at: int) -> None:
        request = file_pb2.WriteFileRequest(
            workspace_id=self.workspace, path=path, content=content, if_revision=at, request_id=self._request_id()
        )
        answer = await self._until_answered("WriteFile", request)
        assert isinstance(answer, file_pb2.WriteFileResponse)
        assert answer.changed
        self._note(path, content, answer.file.revision, 1)

    async def _move(self, path: str, to_path: str) -> None:
        request = file_pb2.MoveFileRequest(
            workspace_id=self.workspace,
            path=path,
            to_path=to_path,
            if_revision=self.revisions[path],
            request_id=self._request_id(),
        )
        answer = await self._until_answered("MoveFile", request)
        assert isinstance(answer, file_pb2.MoveFileResponse)
        del self.revisions[path]
        self._note(to_path, self.tree.pop(path), answer.file.revision, 2)

    async def _delete(self, path: str) -> None:
        request = file_pb2.DeleteFileRequest(
            workspace_id=self.workspace, path=path, if_revision=self.revisions[path], request_id=self._request_id()
        )
        await self._until_answered("DeleteFile", request)
        del self.tree[path], self.revisions[path]
        self.revision_count += 1

    async def _batch(self, name: str) -> None:
        items = [
            file_pb2.WriteFilesItem(
                write=file_pb2.WriteItem(path=f"{name}-{part}", content=b"part %d" % part), if_revision=0
            )
            for part in range(3)
        ]
        request = file_pb2.WriteFilesRequest(workspace_id=self.workspace, items=items, request_id=self._request_id())
        answer = await self._until_answered("WriteFiles", request)
        assert isinstance(answer, file_pb2.WriteFilesResponse)
        for part, result in enumerate(answer.results):
            assert result.code == 0, result
            self._note(f"{name}-{part}", b"part %d" % part, result.file.revision, 1)

    def _note(self, path: str, content: bytes, revision: int, count: int) -> None:
        self.tree[path] = content
        self.revisions[path] = revision
        self.revision_count += count

    def _request_id(self) -> str:
        return f"{self.number}-{self.requests}"

    async def _until_answered(self, rpc: str, request: object) -> object:
        while True:
            try:
                call = getattr(self.client.files(), rpc)
                return await call(request, metadata=self.client.metadata, timeout=5)
            except aio.AioRpcError as error:
                if error.code() not in BROKEN:
                    raise
                self.repeats += 1
                await asyncio.sleep(0.05)


async def judge(client: Client, workspace: str, callers: list[Caller]) -> None:
    expected = {path: content for caller in callers for path, content in caller.tree.items()}
    assert await client.contents(workspace) == expected
    files = await client.tree(workspace)
    assert {path: file.revision for path, file in files.items()} == {
        path: revision for caller in callers for path, revision in caller.revisions.items()
    }
    events = await client.all_events(workspace)
    assert not gaps(events)
    assert len(events) == sum(caller.revision_count for caller in callers), "applied twice, or not at all"
    assert (await client.workspace(workspace)).revision == len(events)


async def storm(system: LocalSystem, client: Client, workspace: str, *, kills: int) -> list[Caller]:
    await client.create_workspace(workspace)
    callers = [Caller(client, workspace, number) for number in range(CALLERS)]
    weather = Storm(system, random.Random(kills))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for caller in callers:
            tasks.create_task(caller.run(stop))
        for _ in range(kills):
            await weather.kill(NODE)
        await weather.die_at(NODE, "store.commit.before_commit:20")
        await weather.die_at(NODE, "store.commit.after_commit_before_ack:20")
        stop.set()
    return callers


async def test_kills_under_concurrent_writes(system: LocalSystem, client: Client) -> None:
    callers = await storm(system, client, "short", kills=1)
    await judge(client, "short", callers)
    assert sum(caller.repeats for caller in callers)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_many_kills_under_concurrent_writes(system: LocalSystem, client: Client) -> None:
    callers = await storm(system, client, "long", kills=25)
    await judge(client, "long", callers)
    assert sum(caller.repeats for caller in callers) > CALLERS
