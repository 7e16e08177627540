"""EventService over gRPC, on a real engine."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.status import from_rpc_error
from relayfile.v1 import event_pb2
from tests.support.store_node import Client, TestNode, started_nodes

W = "acme"


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(tmp_path, mark_interval_s=0.3) as nodes:
        await nodes[0].writer.create_workspace(W)
        yield nodes[0]


def watching(
    client: Client, after: int = 0, history_id: str = "", **fields: object
) -> "grpc.aio.UnaryStreamCall[event_pb2.WatchEventsRequest, event_pb2.WatchEventsResponse]":
    request = event_pb2.WatchEventsRequest(
        workspace_id=W,
        after_revision=after,
        history_id=history_id,
        **fields,  # type: ignore[arg-type]
    )
    return client.events.WatchEvents(request, metadata=client.metadata)


async def until(
    call: AsyncIterable[event_pb2.WatchEventsResponse], revision: int
) -> tuple[list[event_pb2.Event], list[event_pb2.Mark]]:
    """Everything up to a mark with roots at this revision."""
    events: list[event_pb2.Event] = []
    marks: list[event_pb2.Mark] = []
    async with asyncio.timeout(20):
        async for message in call:
            events += message.events
            if message.HasField("mark"):
                marks.append(message.mark)
                if message.mark.roots and message.mark.revision >= revision:
                    break
    return events, marks


async def refusal(call: AsyncIterable[object]) -> errors.RelayfileError:
    async def finish() -> None:
        async for _ in call:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await finish()
    return from_rpc_error(raised.value)


class TestWatchEvents:
    async def test_old_events_then_new_ones_with_marks_that_are_exact(self, node: TestNode) -> None:
        tree = await node.writer.put(W, {f"/a/{n}": b"1" for n in range(1_200)})
        call = watching(node.client, mark_paths=["/", "/b", "/a/7"])
        events, marks = await until(call, 1_200)
        assert [event.revision for event in events] == list(range(1, 1_201))
        assert events[6].path == "/a/6"
        assert events[6].type == event_pb2.EVENT_TYPE_FILE_CREATED
        assert events[6].content_sha256 == tree.files["/a/6"].sha256
        assert events[6].correlation_id == "c-7"
        assert events[6].event_time.seconds > 1_700_000_000
        mark = marks[-1]
        assert (mark.revision, mark.history_id) == (1_200, tree.workspace.history_id)
        assert [(root.path, root.totals.file_count) for root in mark.roots] == [("/", 1_200), ("/b", 0), ("/a/7", 1)]
        assert mark.roots[0].totals.digest == tree.digest("/").to_bytes(32, "big")
        assert mark.roots[1].totals.digest == bytes(32)
        await node.writer.put(W, {"/b/1": b"2"})
        await node.writer.delete(W, ["/a/0"])
        events, marks = await until(call, 1_202)
        assert [(event.revision, event.path) for event in events] == [(1_201, "/b/1"), (1_202, "/a/0")]
        assert marks[-1].roots[0].totals.digest == tree.digest("/").to_bytes(32, "big")
        call.cancel()

    async def test_an_idle_stream_is_marked_at_every_interval(self, node: TestNode) -> None:
        call = watching(node.client, after=-1)
        times = []
        async for message in call:
            assert not message.events
            times.append(message.mark.mark_time.ToMicroseconds())
            if len(times) == 4:
                break
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(200_000 < gap < 1_500_000 for gap in gaps), gaps
        call.cancel()

    async def test_only_what_is_new(self, node: TestNode) -> None:
        await node.writer.put(W, {"/old": b"1"})
        call = watching(node.client, after=-1)
        events, marks = await until(call, 1)
        assert (events, marks[0].revision) == ([], 1)
        await node.writer.put(W, {"/new": b"1"})
        events, _ = await until(call, 2)
        assert [event.path for event in events] == ["/new"]
        call.cancel()

    async def test_a_mark_follows_a_burst(self, tmp_path: Path) -> None:
        async with started_nodes(tmp_path, mark_interval_s=10.0) as [node]:
            await node.writer.create_workspace(W)
            call = watching(node.client, after=-1)
            await until(call, 0)
            async with asyncio.timeout(3):
                await node.writer.put(W, {"/a": b"1"})
                events, _ = await until(call, 1)
            assert len(events) == 1
            call.cancel()

    async def test_filters(self, node: TestNode) -> None:
        await node.writer.put(W, {f"/github/{n}": b"1" for n in range(1_500)} | {"/linear/1": b"2"})
        await node.writer.delete(W, ["/github/3"])
        asked = event_pb2.EventFilter(path_globs=["/linear/**", "/github/3"], types=[event_pb2.EVENT_TYPE_FILE_DELETED])
        call = watching(node.client, filter=asked)
        events, marks = await until(call, 1_502)
        assert [(event.revision, event.path) for event in events] == [(1_502, "/github/3")]
        assert marks[-1].revision == 1_502
        call.cancel()

    async def test_cursors_that_cannot_be_served(self, node: TestNode) -> None:
        tree = await node.writer.put(W, {f"/a/{n}": b"1" for n in range(20)})
        history = tree.workspace.history_id
        error = await refusal(watching(node.client, after=3, history_id="another"))
        assert isinstance(error, errors.CursorExpired)
        assert (error.history_id, error.oldest) == (history, 1)
        error = await refusal(watching(node.client, after=21, history_id=history))
        assert isinstance(error, errors.InvalidArgument)
        error = await refusal(watching(node.client, after=3))
        assert isinstance(error, errors.InvalidArgument)
        assert error.violations[0].field == "history_id"
        await node.alter("DELETE FROM event WHERE revision <= 10")
        error = await refusal(watching(node.client, after=9, history_id=history))
        assert isinstance(error, errors.CursorExpired)
        assert error.oldest == 11
        for after in (10, 0):
            call = watching(node.client, after=after, history_id=history)
            events, _ = await until(call, 20)
            assert [event.revision for event in events] == list(range(11, 21))
            call.cancel()

    @pytest.mark.parametrize("seed", range(3))
    async def test_every_event_exactly_once_and_in_order_at_any_speed(self, node: TestNode, seed: int) -> None:
        """A writer and a reader that stop and go at random; the reader also cuts its stream and goes on."""
        chance = random.Random(seed)
        total = 3_000

        async def write() -> None:
            written = 0
            while written < total:
                size = min(chance.choice((1, 5, 200, 700)), total - written)
                await node.writer.put(
                    W, {f"/f/{chance.randrange(500)}": b"%d" % n for n in range(written, written + size)}
                )
                written = node.writer.trees[W].revision
                await asyncio.sleep(chance.choice((0, 0, 0.01)))

        seen: list[int] = []
        history = ""

        async def read() -> None:
            nonlocal history
            while not seen or seen[-1] < total:
                call = watching(node.client, after=seen[-1] if seen else 0, history_id=history)
                remaining = chance.randrange(1, 30)
                async for message in call:
                    seen.extend(event.revision for event in message.events)
                    if message.HasField("mark"):
                        history = message.mark.history_id
                        assert message.mark.revision == (seen[-1] if seen else 0)
                    await asyncio.sleep(chance.choice((0, 0, 0, 0.02)))
                    remaining -= 1
                    if (seen and seen[-1] >= total) or (remaining <= 0 and history):
                        break
                call.cancel()

        async with asyncio.timeout(40), asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            tasks.create_task(read())
        assert seen == list(range(1, seen[-1] + 1))
        assert seen[-1] == node.writer.trees[W].revision


class TestListEvents:
    async def listed(self, client: Client, **fields: object) -> event_pb2.ListEventsResponse:
        request = event_pb2.ListEventsRequest(workspace_id=W, **fields)  # type: ignore[arg-type]
        return await client.events.ListEvents(request, metadata=client.metadata)

    async def test_pages(self, node: TestNode) -> None:
        await node.writer.put(W, {f"/a/{n}": b"1" for n in range(1_100)})
        seen: list[int] = []
        token = ""
        page = event_pb2.ListEventsResponse()
        for _ in range(4):
            page = await self.listed(node.client, after_revision=50, page_size=400, page_token=token)
            seen += [event.revision for event in page.events]
            token = page.next_page_token
            if not token:
                break
        assert seen == list(range(51, 1_101))
        assert page.revision == 1_100

    async def test_a_filter_and_its_token(self, node: TestNode) -> None:
        await node.writer.put(W, {f"/a/{n}": b"1" for n in range(600)} | {"/b": b""})
        asked = event_pb2.EventFilter(path_globs=["/a/1*"])
        page = await self.listed(node.client, filter=asked, page_size=100)
        assert len(page.events) == 100
        page = await self.listed(node.client, filter=asked, page_size=100, page_token=page.next_page_token)
        assert (len(page.events), page.next_page_token) == (11, "")
        page = await self.listed(node.client, filter=asked, page_size=1)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.listed(node.client, page_size=1, page_token=page.next_page_token)
        assert isinstance(from_rpc_error(raised.value), errors.PageTokenInvalid)

    async def test_another_history_is_refused(self, node: TestNode) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.listed(node.client, history_id="other")
        assert isinstance(from_rpc_error(raised.value), errors.CursorExpired)
