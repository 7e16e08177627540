"""A first pull from a store that is far away: it waits for few round trips, and the disk works while messages travel.

A round trip (`ROUND_TRIP_S`) is the time from a question's first byte leaving syncd to an answer's first byte arriving,
on a connection that is open, through a link that delays every byte by 50 ms each way and is not narrow. Questions under
way at the same time share one.
"""

import asyncio
import pathlib
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

import pytest

from relayfile.settings import SyncdSettings
from relayfile.syncd.audit import Verdict
from relayfile.syncd.feed import Feed
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.stage import Stage, StagedBatch
from relayfile.v1.file_pb2 import FileWithContent
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving
from tests.support.distant_link import distant
from tests.support.store_node import TestNode, started_nodes

ROUND_TRIP_S = 0.1
FILES_PER_MESSAGE = 100
CONCURRENCY = 16
FILES = {f"/d{index % 9}/{index:05}.json": b"%d" % index * 40 for index in range(2 * CONCURRENCY * FILES_PER_MESSAGE)}
ATTEMPTS = 5
"""The machine may be busy with something else; the quickest of so many pulls counts."""


@pytest.fixture
def memory() -> Iterator[pathlib.Path]:
    """A directory on a file system without a disk where there is one: a barrier there takes no time."""
    shared = pathlib.Path("/dev/shm")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="relayfile-", dir=shared if shared.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


async def timed_pull(node: TestNode, address: str, directory: pathlib.Path, via: Via) -> float:
    """Seconds from the call to the proof, on an open connection."""
    directory.mkdir()
    settings = SyncdSettings(
        data_dir=directory, sync_batch_files_max=FILES_PER_MESSAGE, sync_read_concurrency=CONCURRENCY
    )
    async with serving(address, directory, settings, metadata=node.client.metadata) as registry:
        mirror = add(registry, directory, follow=False)
        await mirror.look()
        assert mirror.opened is not None
        await mirror.opened.feed.workspace()
        started = asyncio.get_running_loop().time()
        progress = await mirror.pull(full=False, via=via)
        seconds = asyncio.get_running_loop().time() - started
        assert (progress.via, progress.written[0]) == (via, len(FILES))
        assert verdict(mirror) is Verdict.EXACT
        return seconds


def verdict(mirror: Mirror) -> Verdict:
    assert mirror.seen.audited is not None
    return mirror.seen.audited.result.verdict


class Questions:
    """When each question was asked, and when the first message of its answer was there."""

    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def heed(self, patch: pytest.MonkeyPatch) -> None:
        for name in ("workspace", "held", "digest"):
            patch.setattr(Feed, name, self._of_call(getattr(Feed, name)))
        for name in ("export", "list_tree", "read_files", "events"):
            patch.setattr(Feed, name, self._of_stream(getattr(Feed, name)))

    def one_after_the_other(self) -> int:
        """The longest chain in which each question was asked after the answer to the one before had begun."""
        chain, free_at = 0, 0.0
        for answered, asked in sorted((answered, asked) for asked, answered in self.spans):
            if asked >= free_at:
                chain, free_at = chain + 1, answered
        return chain

    def _of_call(self, call: Callable[..., Awaitable[object]]) -> Callable[..., Awaitable[object]]:
        async def heeded(*args: object, **named: object) -> object:
            asked = time.monotonic()
            answer = await call(*args, **named)
            self.spans.append((asked, time.monotonic()))
            return answer

        return heeded

    def _of_stream(self, call: Callable[..., AsyncIterator[object]]) -> Callable[..., AsyncIterator[object]]:
        async def heeded(*args: object, **named: object) -> AsyncIterator[object]:
            asked = time.monotonic()
            begun = False
            async for message in call(*args, **named):
                if not begun:
                    self.spans.append((asked, time.monotonic()))
                    begun = True
                yield message

        return heeded


@pytest.mark.parametrize("via", [Via.TREE, Via.EXPORT])
async def test_a_pull_waits_for_its_reads_and_three_round_trips_more(
    memory: pathlib.Path, monkeypatch: pytest.MonkeyPatch, via: Via
) -> None:
    """Where the workspace is, the first page, the proof; all reads are under way together, as many as may be.

    What the same pull takes without the link is work, not waiting, and is allowed for; so is one round trip's time.
    """
    trips = len(FILES) / (FILES_PER_MESSAGE * CONCURRENCY) + 3
    near: list[float] = []
    far: list[float] = []
    chains: list[int] = []
    async with started_nodes(memory, mark_interval_s=1.0) as [node], distant(node.address, 50.0) as link:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", FILES)
        for number in range(ATTEMPTS):
            near.append(await timed_pull(node, node.address, memory / f"near-{number}", via))
            with monkeypatch.context() as patch:
                questions = Questions()
                questions.heed(patch)
                far.append(await timed_pull(node, link, memory / f"far-{number}", via))
            chains.append(questions.one_after_the_other() - 1)  # without the one that opens the connection
            if min(chains) <= trips and (min(far) - min(near)) / ROUND_TRIP_S <= trips + 1:
                return
    pytest.fail(f"at most {trips:g} round trips are enough; {chains} were waited for; {near} s near, {far} s far")


async def test_messages_come_while_the_disk_writes_and_the_disk_writes_before_all_has_come(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged by order, not by time: the first write ends only after messages were received that came behind its own."""
    files = {f"/d{index % 7}/{index:05}.bin": index.to_bytes(4, "big") * 5_000 for index in range(1_000)}
    behind = 2 << 20
    mirror: Mirror | None = None
    come = threading.Event()
    come_at_first_write: list[int] = []
    write = Stage.write

    def slow(
        self: Stage, batch: Sequence[FileWithContent], disk_paths: Sequence[str] | None, barrier: int, now_us: int
    ) -> StagedBatch:
        if not come_at_first_write:
            assert come.wait(20), "nothing comes while the disk is busy"
            assert mirror is not None
            assert mirror.progress is not None
            come_at_first_write.append(mirror.progress.wire_bytes)
        return write(self, batch, disk_paths, barrier, now_us)

    async def look(running: Mirror) -> None:
        while running.progress is None or running.progress.wire_bytes < behind:  # noqa: ASYNC110 - a counter tells nobody
            await asyncio.sleep(0.002)
        come.set()

    monkeypatch.setattr(Stage, "write", slow)
    async with started_nodes(tmp_path, mark_interval_s=1.0) as [node], distant(node.address, 5.0) as far:
        await node.writer.create_workspace("acme")
        await node.writer.put("acme", files)
        async with serving(far, tmp_path, metadata=node.client.metadata) as registry:
            mirror = add(registry, tmp_path, follow=False)
            async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                looking = tasks.create_task(look(mirror))
                progress = await mirror.pull(full=False, via=Via.EXPORT)
                looking.cancel()
            assert tree_of(tmp_path) == files
    assert behind <= come_at_first_write[0] < progress.wire_bytes / 2
