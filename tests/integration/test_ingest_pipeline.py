"""The pipeline against a store node in memory, over a real socket: nothing lost, order kept, nothing applied twice."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import grpc.aio
import pytest
from structlog.testing import capture_logs

from relayfile.clock import SystemClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import Draining, Unavailable
from relayfile.ids import IdSource
from relayfile.ingest.pipeline import STREAM_QUEUE_BYTES_MAX, Pipeline
from relayfile.ingest.sending.streams import Surroundings
from relayfile.placement import shard_of
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2
from tests.fakes.shard_node import Object, ShardNode

CLOCK = SystemClock()
IDS = IdSource(CLOCK)


def connect(address: str) -> tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]:
    options = [("grpc.initial_reconnect_backoff_ms", 20), ("grpc.use_local_subchannel_pool", 1)]
    return grpc.aio.insecure_channel(address, options=options), ()


@asynccontextmanager
async def node(credit_bytes: int = 16 << 20) -> AsyncIterator[ShardNode]:
    one = ShardNode(credit_bytes=credit_bytes)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


def settings(path: Path, *nodes: ShardNode, **changes: object) -> IngestSettings:
    addresses = tuple(each.address for each in nodes)
    return IngestSettings(data_dir=path, nodes=addresses, **changes)  # type: ignore[arg-type]


@asynccontextmanager
async def running(
    chosen: IngestSettings, refused: Callable[[], Mapping[tuple[str, str], int]] = dict
) -> AsyncIterator[Pipeline]:
    """A pipeline at work; on leaving it is abandoned as it is, with what it holds."""
    with DataDirectory(chosen.data_dir) as directory:
        around = Surroundings(
            clock=CLOCK,
            connect=connect,
            session_id=IDS.new_id(),
            ingest_id="ingest-0",
            refused=refused,
        )
        pipeline = Pipeline(chosen, directory, around)
        task = asyncio.ensure_future(pipeline.run())
        try:
            yield pipeline
        finally:
            task.cancel()
            await asyncio.wait([task])
            await pipeline.close()


class Sender:
    """Numbers what it sends, and knows what must have arrived."""

    def __init__(self) -> None:
        self.sent: dict[Object, list[bytes]] = {}
        self.count = 0

    def envelope(self, workspace: str = "acme", item: int = 0, size: int = 20) -> types_pb2.Envelope:
        self.count += 1
        content = b"%d " % self.count + b"x" * size
        made = types_pb2.Envelope(
            envelope_id=IDS.new_id(), workspace_id=workspace, provider="github", delivery_id=f"d{self.count}"
        )
        made.received_at.FromMicroseconds(CLOCK.now_us())
        made.changes.add(
            kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{item}", provider_object_id=f"issue/{item}", content=content
        )
        self.sent.setdefault((workspace, "github", f"o:issue/{item}"), []).append(content)
        return made

    def check(self, *nodes: ShardNode) -> None:
        """Every change had its effect once, in the order of its object, and the newest content is there."""
        objects = {key: applied for each in nodes for key, applied in each.durable.objects.items()}
        assert objects.keys() == self.sent.keys()
        for key, contents in self.sent.items():
            numbers = [content.split(b" ")[0] for content in contents]
            assert [applied.delivery_id.encode() for applied in objects[key]] == [b"d" + number for number in numbers]
            assert objects[key][-1].content == contents[-1]
            for applied, content in zip(objects[key], contents, strict=True):
                assert applied.elided or applied.content == content


async def until(reached: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not reached():  # noqa: ASYNC110 - what is waited for happens in another process's stead
            await asyncio.sleep(0.01)


async def settled(pipeline: Pipeline) -> None:
    await until(lambda: pipeline.pending == 0)


async def test_changes_arrive_and_leave_the_spool(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        for number in range(20):
            await pipeline.accept(
                [sender.envelope(f"w{number % 3}", item) for item in range(50 * number, 50 * number + 50)]
            )
        await settled(pipeline)
        await pipeline.drain()
        sender.check(store)
        assert pipeline.dispatcher.counters.outcomes[types_pb2.OUTCOME_APPLIED] == 1_000
        assert pipeline.admission.stored_bytes == 0
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        assert pipeline.pending == 0
        assert not list(pipeline.reader.remainders())


async def test_nothing_is_sent_to_a_node_that_counts_shards_differently(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, shard_count=64)) as pipeline:
        await pipeline.accept([sender.envelope()])
        await until(lambda: store.streams >= 2)
        assert (store.sub_batches, pipeline.pending) == (0, 1)
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        await settled(pipeline)
        sender.check(store)


async def test_quick_edits_of_one_object_are_two_writes(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=1.0)) as pipeline:
        for _ in range(50):
            await pipeline.accept([sender.envelope()])
        await settled(pipeline)
        sender.check(store)
        assert store.folds == [[1, 0], [49, 48]]


async def test_memory_is_bounded_while_a_node_is_away_however_many_workspaces_wait(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, node() as other:
        await store.stop()
        async with running(settings(tmp_path, store, other)) as pipeline:
            for number in range(120):
                await pipeline.accept([sender.envelope(f"w{number}", number, size=900_000)])
            (away,) = [stream for stream in pipeline.streams if stream.address == store.address]
            await until(lambda: pipeline.pending == sum(shard_of(f"w{n}", 256) % 2 == 0 for n in range(120)))
            assert STREAM_QUEUE_BYTES_MAX <= away.queued_bytes < STREAM_QUEUE_BYTES_MAX + 1_000_000
            await store.start()
            await settled(pipeline)
            sender.check(store, other)
            assert away.queued_bytes == 0


async def test_a_node_that_is_away_loses_nothing_and_stops_nobody(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as near, node() as far:
        # Even shards live on the first node, odd ones on the second.
        even, odd = (next(f"w{n}" for n in range(99) if shard_of(f"w{n}") % 2 == parity) for parity in (0, 1))
        async with running(settings(tmp_path, near, far, envelope_workers=2)) as pipeline:
            await far.stop()
            for item in range(100):
                await pipeline.accept([sender.envelope(even, item), sender.envelope(odd, item)])
            await until(lambda: len(near.durable.deliveries) == 100)
            assert pipeline.pending == 100
            await far.start()
            await settled(pipeline)
            sender.check(near, far)


@pytest.mark.parametrize("fault", ["cut_before_answer", "cut_before_apply", "refuse", "ask_for_content"])
async def test_faults_of_a_node_change_nothing(tmp_path: Path, fault: str) -> None:
    sender = Sender()
    # Long enough for changes of one object to meet in it on a busy disk too: only then is a content left out.
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.5)) as pipeline:
        setattr(store.faults, fault, 3)
        for number in range(300):
            await pipeline.accept([sender.envelope(f"w{number % 4}", number % 7)])
        await settled(pipeline)
        assert getattr(store.faults, fault) == 0
        sender.check(store)


async def test_a_restarting_node_changes_nothing(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.05)) as pipeline:
        for number in range(400):
            await pipeline.accept([sender.envelope(f"w{number % 4}", number % 7)])
            if number % 100 == 50:
                await store.stop()
                await store.start()
        await settled(pipeline)
        sender.check(store)
        assert store.streams > 1


async def test_an_abandoned_spool_is_sent_at_the_next_start(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        store.faults.hold = asyncio.Event()
        async with running(settings(tmp_path, store)) as pipeline:
            for number in range(200):
                await pipeline.accept([sender.envelope(f"w{number % 4}", number % 7), sender.envelope("w9", number)])
            assert pipeline.pending == 400
        store.faults.hold.set()
        await asyncio.sleep(0.05)
        async with running(settings(tmp_path, store, coalesce_window_s=0.05)) as pipeline:
            assert pipeline.pending > 0
            await pipeline.accept([sender.envelope("w1", 1)])
            await settled(pipeline)
            sender.check(store)


def on_spool(path: Path, statement: str, *values: object) -> list[tuple[object, ...]]:
    """The answer to a statement on a spool that no pipeline has open."""
    connection = apsw.Connection(str(path / "spool.db"))
    try:
        return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("damage", [b"\x0a\x05\xff\xff\xff\xff\xff", b"\x0a\x7f", b"\x0a\xff", b""])
async def test_a_damaged_row_is_set_aside_and_stays_while_the_others_go_on(tmp_path: Path, damage: bytes) -> None:
    sender, lost = Sender(), Sender()
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        await store.stop()
        for item, workspace in enumerate(("acme", "acme", "umbrella")):
            await pipeline.accept([sender.envelope(workspace, item)])
        await pipeline.accept([lost.envelope("acme", 8), lost.envelope("acme", 9)])
        await pipeline.accept([sender.envelope("acme", 1)])
    [(damaged, payload)] = on_spool(tmp_path, "SELECT row_id, payload FROM batch WHERE member_count = 2")
    on_spool(tmp_path, "UPDATE batch SET payload = ? WHERE row_id = ?", damage, damaged)
    on_spool(tmp_path, "INSERT INTO settled VALUES (?, ?)", damaged, b"\x01")
    for _ in range(2):
        with capture_logs() as logs:
            async with node() as store, running(settings(tmp_path, store)) as pipeline:
                await until(lambda: pipeline.pending == pipeline.dispatcher.counters.unreadable == 1)
                async with asyncio.timeout(5):
                    await pipeline.drain()
                if sender.sent:
                    sender.check(store)
        [said] = [each["why"] for each in logs if "set aside" in each["event"]]
        assert f"row {damaged} of the spool, of workspace 'acme'" in said
        assert on_spool(tmp_path, "SELECT row_id FROM batch") == [(damaged,)]
        sender = Sender()
    on_spool(tmp_path, "UPDATE batch SET payload = ? WHERE row_id = ?", payload, damaged)
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        await settled(pipeline)
        del lost.sent["acme", "github", "o:issue/8"]  # its outcome was durable
        lost.check(store)


async def test_what_has_no_room_in_memory_waits_on_disk(tmp_path: Path) -> None:
    sender = Sender()
    async with node(credit_bytes=100_000) as store:
        store.faults.hold = asyncio.Event()
        async with running(settings(tmp_path, store, coalesce_window_s=0.05, envelope_workers=3)) as pipeline:
            for number in range(60):
                envelopes = [sender.envelope(f"w{number % 6}", 20 * number + k, 20_000) for k in range(20)]
                await pipeline.accept([*envelopes, sender.envelope(f"w{number % 6}", -1)])
            assert any(lane.has_unread for lane in pipeline.dispatcher.lanes.values())
            assert sum(stream.queued_bytes for stream in pipeline.streams) < 16 << 20
            store.faults.hold.set()
            await settled(pipeline)
            sender.check(store)
            assert sum(stream.queued_bytes for stream in pipeline.streams) == 0


async def test_large_content_travels_in_chunks(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.05)) as pipeline:
        for size in (10, 3 << 20, 10, 1 << 20, (1 << 20) + 1, 5 << 20):
            await pipeline.accept([sender.envelope("acme", 1, size), sender.envelope("acme", 2, 10)])
        await settled(pipeline)
        sender.check(store)


async def test_a_shard_that_moved_is_followed(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as old, node() as new:
        old.owner_elsewhere = lambda shard: (7, new.address)
        async with running(settings(tmp_path, old)) as pipeline:
            for number in range(100):
                await pipeline.accept([sender.envelope(f"w{number % 4}", number)])
            await settled(pipeline)
            sender.check(new)
            assert not old.durable.objects


async def test_workers_bound_the_workspaces_in_flight(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, envelope_workers=1)) as pipeline:
        for number in range(50):
            await pipeline.accept([sender.envelope(f"w{each}", number) for each in range(8)])
        await settled(pipeline)
        assert store.workspaces_in_flight_max == 1
        sender.check(store)


async def test_draining_sends_what_is_held_and_refuses_what_comes(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=60.0)) as pipeline:
        for _ in range(10):
            await pipeline.accept([sender.envelope()])
        async with asyncio.timeout(10):
            await pipeline.drain()
        with pytest.raises(Draining):
            await pipeline.accept([sender.envelope()])
        sender.sent["acme", "github", "o:issue/0"].pop()
        sender.check(store)


async def test_a_full_spool_refuses(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        store.faults.hold = asyncio.Event()
        async with running(settings(tmp_path, store, spool_bytes_max=1 << 20)) as pipeline:
            for number in range(9):
                await pipeline.accept([sender.envelope("acme", number, 50_000)])
            with pytest.raises(Unavailable, match="full"):
                await pipeline.accept([sender.envelope("acme", 20, 650_000)])
            sender.sent.popitem()
            store.faults.hold.set()
            await settled(pipeline)
            await pipeline.accept([sender.envelope("acme", 1_000)])
            await settled(pipeline)
            sender.check(store)


async def test_the_store_hears_what_is_pending(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=1.6)) as pipeline:
        for _ in range(3):
            await pipeline.accept([sender.envelope()])
        await until(lambda: store.durable.reports.get(("acme", "github")) == 2)
        await until(lambda: store.durable.reports.get(("acme", "github")) == 0)
        await until(lambda: not pipeline.dispatcher.lanes)


async def test_the_last_report_of_a_stopping_process_says_that_nothing_is_left(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=60.0)) as pipeline:
        for _ in range(3):
            await pipeline.accept([sender.envelope()])
        await until(lambda: store.durable.reports.get(("acme", "github")) == 2)
        await pipeline.drain()
        await until(lambda: store.durable.reports.get(("acme", "github")) == 0, timeout_s=0.5)


async def test_nodes_are_told_what_was_refused_for_their_workspaces(tmp_path: Path) -> None:
    refused = {("acme", "github"): 2, ("../etc", "github"): 9}
    async with node() as store, running(settings(tmp_path, store), lambda: refused):
        await until(lambda: store.durable.refused == {("acme", "github"): 2})
        refused["acme", "github"] = 3
        await until(lambda: store.durable.refused == {("acme", "github"): 3})
