"""Connections end when they are old, about every second here: what is under way goes on, exactly, unheard.

Clients reach the node through a proxy, which counts their connections.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from relayfile.auth import ALL, EVERY_SCOPE
from relayfile.client import START, Client
from relayfile.clock import SystemClock
from relayfile.connections import server_arguments
from relayfile.data_directory import DataDirectory
from relayfile.ids import IdSource
from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.sending.streams import Surroundings
from relayfile.serving import channel
from relayfile.settings import ClusterSettings, IngestSettings
from relayfile.syncd import follow
from relayfile.syncd.audit import Verdict
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import file_pb2, types_pb2, workspace_pb2
from relayfile.v1.file_pb2_grpc import FileServiceStub
from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving
from tests.support.cutting_proxy import CuttingProxy, cutting_proxy
from tests.support.running_node import running_node
from tests.support.store_node import TestNode, started_nodes

W = "acme"
CLOCK = SystemClock()
SETTINGS = ClusterSettings(stream_age_max_s=0.4, stream_age_grace_s=0.8)
"""Long enough for calls that are under way; streams without an end are cut."""
CONNECTIONS = 3
"""How many each client must have had."""
FILES = {f"/d{n % 7}/{n:04}": b"%d" % n * 50 for n in range(2_000)}


async def until(reached: Callable[[], bool], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110 - a connection's end tells nobody
            await asyncio.sleep(0.01)


@asynccontextmanager
async def aging_node(directory: Path) -> AsyncIterator[TestNode]:
    async with started_nodes(directory, arguments=server_arguments(SETTINGS), mark_interval_s=0.2) as [node]:
        await node.writer.create_workspace(W)
        await node.writer.put(W, FILES)
        yield node


async def test_the_client_library_reads_writes_and_watches_on(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        node = await stack.enter_async_context(aging_node(tmp_path))
        proxies = [await stack.enter_async_context(cutting_proxy(node.address, 0)) for _ in range(2)]
        token = node.signer.mint("test", workspaces=ALL, ttl_s=3600, scopes=(EVERY_SCOPE,))
        watcher, worker = [
            (await stack.enter_async_context(Client(proxy.address, token))).workspace(W) for proxy in proxies
        ]
        written = 0

        async def write_and_export() -> int:
            nonlocal written
            while min(proxy.connections for proxy in proxies) < CONNECTIONS:
                written += 1
                await worker.files.write("/new", b"%d" % written, force=True)
                assert (await worker.files.read("/new")).data == b"%d" % written
                found = {each.file.path: each.data async for each in worker.files.export()}
                assert found == {**FILES, "/new": b"%d" % written}
            await worker.files.delete("/new", force=True)
            return len(FILES) + written + 1

        async def watch() -> list[int]:
            seen: list[int] = []
            async with watcher.events.watch(START) as events:
                async for event in events:
                    seen.append(event.revision)
                    if event.path == "/new" and not event.content_sha256:
                        break
            return seen

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watch())
            working = tasks.create_task(write_and_export())
        assert watching.result() == list(range(1, working.result() + 1))


async def test_calls_between_processes_meet_no_error(tmp_path: Path) -> None:
    """They do not try again by themselves: an old connection takes no more of them, and ends none of them."""
    async with (
        aging_node(tmp_path) as node,
        cutting_proxy(node.address, 0) as proxy,
        channel(proxy.address, SETTINGS) as between,
    ):
        files, workspaces = FileServiceStub(between), WorkspaceServiceStub(between)
        paths = sorted(FILES)
        asked = 0
        while proxy.connections < CONNECTIONS:
            path = paths[asked % len(paths)]
            get = workspaces.GetWorkspace(
                workspace_pb2.GetWorkspaceRequest(workspace_id=W), metadata=node.client.metadata
            )
            meta = files.GetFile(file_pb2.GetFileRequest(workspace_id=W, path=path), metadata=node.client.metadata)
            assert (await get).workspace.revision == len(FILES)
            assert (await meta).file.size_bytes == len(FILES[path])
            asked += 1
        assert asked > CONNECTIONS


async def test_a_mirror_follows_on_and_shows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEALTHY_AFTER_S", 0.1)
    async with (
        aging_node(tmp_path) as node,
        cutting_proxy(node.address, 0) as proxy,
        serving(proxy.address, tmp_path, metadata=node.client.metadata) as registry,
    ):
        mirror = add(registry, tmp_path)
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
        shown: set[tuple[MirrorState, str]] = set()
        count = 0

        async def note() -> None:
            while True:
                shown.add((mirror.seen.state, str(mirror.seen.error or "")))
                await mirror.display.change()

        async with asyncio.TaskGroup() as tasks:
            noting = tasks.create_task(note())
            first = proxy.connections
            while proxy.connections < first + CONNECTIONS:
                count += 1
                await node.writer.put(W, {f"/new/{count}": b"%d" % count})
                await asyncio.sleep(0.01)
            revision = len(FILES) + count
            await until(lambda: mirror.seen.audited is not None and mirror.seen.audited.result.at.revision == revision)
            noting.cancel()
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert tree_of(tmp_path) == {**FILES, **{f"/new/{n}": b"%d" % n for n in range(1, count + 1)}}
        assert shown == {(MirrorState.FOLLOWING, "")}


def envelope(ids: IdSource, number: int) -> types_pb2.Envelope:
    made = types_pb2.Envelope(envelope_id=ids.new_id(), workspace_id=W, provider="github", delivery_id=f"d{number}")
    made.received_at.FromMicroseconds(CLOCK.now_us())
    made.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{number}", content=b"%d" % number)
    return made


@asynccontextmanager
async def ingesting(directory: Path, proxy: CuttingProxy) -> AsyncIterator[Pipeline]:
    settings = IngestSettings(data_dir=directory, nodes=(proxy.address,))

    def connect(address: str) -> tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]:
        return channel(address, settings), ()

    with DataDirectory(directory) as data:
        around = Surroundings(clock=CLOCK, connect=connect, session_id="session", ingest_id="ingest-0")
        pipeline = Pipeline(settings, data, around)
        task = asyncio.ensure_future(pipeline.run())
        try:
            yield pipeline
        finally:
            task.cancel()
            await asyncio.wait([task])
            await pipeline.close()


async def test_what_ingest_sends_is_applied_once(tmp_path: Path) -> None:
    ids = IdSource(CLOCK)
    async with (
        running_node(tmp_path / "store", arguments=server_arguments(SETTINGS)) as running,
        cutting_proxy(running.address, 0) as proxy,
        ingesting(tmp_path / "ingest", proxy) as pipeline,
    ):
        sent = 0
        while proxy.connections < CONNECTIONS:
            await pipeline.accept([envelope(ids, sent + n) for n in range(20)])
            sent += 20
            await asyncio.sleep(0.005)
        await until(lambda: pipeline.pending == 0)
        async with running.engine.view(running.node.ownership.local_key(W)) as view:
            workspace = await view.workspace()
            (github,) = await view.outcomes()
        assert workspace is not None
        assert (workspace.revision, sum(github.counts.values())) == (sent, sent)
