"""A thousand watchers of one workspace on one node: one commit reaches all at a bounded cost, and those that do not
read cost no memory."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import grpc.aio
import pytest

from relayfile.v1 import event_pb2, event_pb2_grpc, file_pb2, file_pb2_grpc, workspace_pb2, workspace_pb2_grpc

WATCHERS = 1_000
CHANNELS = 20
"""A connection takes a hundred streams at once by default."""
CPU_S_MAX = 2.0
"""Of the node, for one commit that all are told of: their events, and the mark after it."""
STALLED = 100
STALLED_BYTES_MAX = 64 << 10
"""Of one that has not read while thousands of events came."""
W = "acme"

if TYPE_CHECKING:
    Watch: TypeAlias = grpc.aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse]


class Running:
    """A node in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, token: str) -> None:
        self._process = process
        self.metadata = (("authorization", f"Bearer {token}"),)
        self.channels = [
            grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(CHANNELS)
        ]

    async def asked(self, question: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question.encode() + b"\n")
        return int(await self._process.stdout.readline())

    async def write(self, first: int, count: int, text: str = "x") -> None:
        stub: file_pb2_grpc.FileServiceAsyncStub = file_pb2_grpc.FileServiceStub(self.channels[0])
        items = [
            file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path=f"/{number}.txt", content=text.encode()))
            for number in range(first, first + count)
        ]
        await stub.WriteFiles(file_pb2.WriteFilesRequest(workspace_id=W, items=items), metadata=self.metadata)

    def watch(self, number: int) -> "Watch":
        stub: event_pb2_grpc.EventServiceAsyncStub = event_pb2_grpc.EventServiceStub(self.channels[number % CHANNELS])
        request = event_pb2.WatchEventsRequest(workspace_id=W, after_revision=-1)
        return stub.WatchEvents(request, metadata=self.metadata)


async def read(call: "Watch") -> event_pb2.WatchEventsResponse:
    message = await call.read()
    assert isinstance(message, event_pb2.WatchEventsResponse)
    return message


@asynccontextmanager
async def node_process(directory: Path) -> AsyncIterator[Running]:
    command = [sys.executable, "-m", "tests.support.store_process", str(directory)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    found = json.loads(await process.stdout.readline())
    running = Running(process, found["address"], found["token"])
    try:
        stub: workspace_pb2_grpc.WorkspaceServiceAsyncStub = workspace_pb2_grpc.WorkspaceServiceStub(
            running.channels[0]
        )
        request = workspace_pb2.CreateWorkspaceRequest(workspace_id=W)
        await stub.CreateWorkspace(request, metadata=running.metadata)
        yield running
    finally:
        for channel in running.channels:
            await channel.close()
        process.stdin.close()
        await asyncio.wait_for(process.wait(), 20)


@pytest.mark.timeout(120)
async def test_one_commit_wakes_a_thousand(tmp_path: Path) -> None:
    async with node_process(tmp_path) as running:
        calls = [running.watch(number) for number in range(WATCHERS)]
        first = await asyncio.gather(*(read(call) for call in calls))
        assert {message.mark.revision for message in first} == {0}
        await asyncio.sleep(0.5)
        before = await running.asked("cpu")
        await running.write(1, 1)

        async def told(call: "Watch") -> list[int]:
            events: list[int] = []
            while True:
                message = await read(call)
                events += [event.revision for event in message.events]
                if message.HasField("mark") and message.mark.revision == 1:
                    return events

        async with asyncio.timeout(30):
            assert await asyncio.gather(*(told(call) for call in calls)) == [[1]] * WATCHERS
        cpu_s = (await running.asked("cpu") - before) / 1e6
        print(f"CPU of a commit told to {WATCHERS}: {cpu_s:.3f} s")
        assert cpu_s < CPU_S_MAX
        for call in calls:
            call.cancel()


@pytest.mark.timeout(120)
async def test_watchers_that_do_not_read_cost_no_memory(tmp_path: Path) -> None:
    async with node_process(tmp_path) as running:
        calls = [running.watch(number) for number in range(STALLED)]
        await asyncio.gather(*(call.read() for call in calls))
        await running.write(1, 500)
        await asyncio.sleep(0.5)
        await running.asked("mark")
        for number in range(8):
            await running.write(1, 500, str(number))
        await asyncio.sleep(1.0)
        grown = await running.asked("peak")
        print(f"{grown / STALLED / 1024:.0f} KiB for each watcher that does not read")
        assert grown < STALLED * STALLED_BYTES_MAX + (32 << 20)
        for call in calls:
            call.cancel()
