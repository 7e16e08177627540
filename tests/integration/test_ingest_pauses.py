"""Pauses against a store node in memory: what is sent, what stays in the spool, what it costs, and that order stays."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.sending import dispatch
from relayfile.ingest.spool import backlog
from relayfile.ingest.spool.left_spool import StoppingSpool
from relayfile.ingest.spool.payload import parse_changes
from relayfile.v1 import types_pb2
from tests.fakes.shard_node import ShardNode
from tests.integration.test_ingest_pipeline import CLOCK, IDS, node, running, settings, settled, until

GITHUB, LINEAR, CRM = "github", "linear", "crm"
EVERYTHING = ""
TIMEOUT_S = 30.0
LANE_BYTES = 40_000


class Providers:
    """Sends as several providers, and knows what must have arrived."""

    def __init__(self) -> None:
        self.sent: dict[tuple[str, str, str], list[bytes]] = {}
        self.count = 0

    def envelope(self, provider: str, item: int = 0, workspace: str = "acme", size: int = 20) -> types_pb2.Envelope:
        self.count += 1
        content = b"%d " % self.count + b"x" * size
        made = types_pb2.Envelope(
            envelope_id=IDS.new_id(), workspace_id=workspace, provider=provider, delivery_id=f"d{self.count}"
        )
        made.received_at.FromMicroseconds(CLOCK.now_us())
        made.changes.add(
            kind=types_pb2.CHANGE_KIND_UPSERT,
            path=f"/{provider}/{item}",
            provider_object_id=f"issue/{item}",
            content=content,
        )
        self.sent.setdefault((workspace, provider, f"o:issue/{item}"), []).append(content)
        return made

    def arrived(self, store: ShardNode, provider: str, workspace: str = "acme") -> int:
        return sum(
            len(applied)
            for (name, by, _), applied in store.durable.objects.items()
            if (name, by) == (workspace, provider)
        )

    def check(self, store: ShardNode) -> None:
        """Everything once, in the order of its object."""
        objects = store.durable.objects
        assert objects.keys() == self.sent.keys()
        for key, contents in self.sent.items():
            numbers = [content.split(b" ")[0] for content in contents]
            assert [applied.delivery_id.encode() for applied in objects[key]] == [b"d" + number for number in numbers]
            assert objects[key][-1].content == contents[-1]


async def connected(pipeline: Pipeline) -> None:
    await until(lambda: any(stream.is_connected for stream in pipeline.streams))


async def pause(store: ShardNode, pipeline: Pipeline, paused: Mapping[str, Sequence[str]]) -> None:
    """The node tells it, and the process has heard."""
    await store.pause(paused)
    expected = {workspace: set(providers) for workspace, providers in paused.items()}
    await until(lambda: dict(pipeline.dispatcher.pauses.table) == expected)


async def one_by_one(pipeline: Pipeline, envelopes: Sequence[types_pb2.Envelope]) -> None:
    """Each in a row of its own."""
    for envelope in envelopes:
        await pipeline.accept([envelope])


async def test_only_the_other_providers_go_and_a_resume_sends_the_rest_in_order(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.05)) as pipeline:
        await connected(pipeline)
        await pause(store, pipeline, {"acme": [GITHUB]})
        for number in range(30):
            await pipeline.accept([sender.envelope(GITHUB, number % 3), sender.envelope(LINEAR, number % 3)])
        await until(lambda: pipeline.pending == 30)
        assert sender.arrived(store, LINEAR) == 30
        assert sender.arrived(store, GITHUB) == 0
        await pause(store, pipeline, {})
        await settled(pipeline)
        sender.check(store)
        assert not pipeline.dispatcher.lanes["acme"].left_rows


async def test_a_whole_workspace_and_no_other(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        await connected(pipeline)
        await pause(store, pipeline, {"acme": [EVERYTHING]})
        for provider in (GITHUB, LINEAR):
            await pipeline.accept([sender.envelope(provider), sender.envelope(provider, workspace="umbrella")])
        await until(lambda: pipeline.pending == 2)
        assert sender.arrived(store, GITHUB, "umbrella") == sender.arrived(store, LINEAR, "umbrella") == 1
        await pause(store, pipeline, {"acme": [LINEAR]})
        await until(lambda: pipeline.pending == 1)
        assert sender.arrived(store, LINEAR) == 0
        await pause(store, pipeline, {})
        await settled(pipeline)
        sender.check(store)


async def test_nothing_leaks_over_a_restart_with_the_store_away(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store:
        async with running(settings(tmp_path, store)) as pipeline:
            await connected(pipeline)
            await pause(store, pipeline, {"acme": [GITHUB]})
            await pipeline.accept([sender.envelope(GITHUB), sender.envelope(LINEAR)])
            await until(lambda: pipeline.pending == 1)
        await store.stop()
        async with running(settings(tmp_path, store)) as pipeline:
            assert pipeline.dispatcher.pauses.is_paused("acme", GITHUB)
            assert pipeline.pending == 1
            await pipeline.accept([sender.envelope(GITHUB), sender.envelope(LINEAR)])
            await store.start()
            await until(lambda: pipeline.pending == 2)
            assert sender.arrived(store, LINEAR) == 2
            await pause(store, pipeline, {})
            await settled(pipeline)
        sender.check(store)


async def test_a_pause_that_was_made_while_the_process_was_away_is_known_before_anything_is_sent(
    tmp_path: Path,
) -> None:
    sender = Providers()
    async with node() as store:
        await store.stop()
        async with running(settings(tmp_path, store)) as pipeline:
            await pipeline.accept([sender.envelope(GITHUB), sender.envelope(LINEAR)])
            store.paused = {"acme": [GITHUB]}
            await store.start()
            await until(lambda: pipeline.pending == 1)
            assert sender.arrived(store, GITHUB) == 0
            await pause(store, pipeline, {})
            await settled(pipeline)
        sender.check(store)


async def test_of_a_row_that_is_handed_over_only_what_has_no_outcome_is_not_pending_any_more(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store:
        await store.stop()
        async with running(settings(tmp_path, store)) as pipeline:
            await pipeline.accept([sender.envelope(GITHUB), sender.envelope(LINEAR), sender.envelope(GITHUB, 1)])
            store.paused = {"acme": [GITHUB]}
            await store.start()
            await until(lambda: pipeline.pending == 2)
            assert sender.arrived(store, LINEAR) == 1
            left = StoppingSpool(pipeline)
            ((workspace, [row_id]),) = left.left().items()
            row = left.row(row_id)
            assert row is not None
            left.taken(workspace, row)
            assert pipeline.pending == 0
            assert pipeline.dispatcher.lanes["acme"].pending == {GITHUB: 0, LINEAR: 0}
            assert left.row(row_id) is None


async def test_a_long_pause_costs_no_memory(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.02)) as pipeline:
        await connected(pipeline)
        await pipeline.accept([sender.envelope(GITHUB, 1), sender.envelope(GITHUB, 1), sender.envelope(LINEAR)])
        await pause(store, pipeline, {"acme": [GITHUB]})
        for number in range(300):
            mixed = [sender.envelope(GITHUB, number % 7), sender.envelope(LINEAR, number % 7)]
            await pipeline.accept([*mixed, sender.envelope(CRM, number), sender.envelope(GITHUB, number)])
        await until(lambda: pipeline.pending <= 602)
        lane = pipeline.dispatcher.lanes["acme"]
        await until(lambda: not len(pipeline.dispatcher.ledger) and not pipeline.coalescer.objects)
        assert (lane.queued_bytes, pipeline.streams[0].queued_bytes, len(lane.left_rows)) == (0, 0, 1)
        assert not lane.has_unread
        # Rows that were begun since hold one provider each: those of the others are gone, and none has bits to keep.
        await until(lambda: len(list(pipeline.reader.remainders())) <= 301)
        rows = list(pipeline.reader.remainders())
        assert all(parse_changes(row.providers).keys() == {GITHUB} for row in rows[1:])
        assert not any(row.bits for row in rows[1:])
        await pause(store, pipeline, {})
        await settled(pipeline)
        sender.check(store)


async def test_what_is_in_memory_when_the_pause_comes_leaves_it_and_what_is_in_flight_ends(tmp_path: Path) -> None:
    sender = Providers()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.3)) as pipeline:
        store.faults.hold = asyncio.Event()
        await connected(pipeline)
        # The first one is in flight, more wait in the lane, and the third of each object is held in a window.
        for _ in range(3):
            for item in range(5):
                await pipeline.accept([sender.envelope(GITHUB, item, size=10_000), sender.envelope(LINEAR, item)])
        lane = pipeline.dispatcher.lanes["acme"]
        await until(lambda: lane.in_flight and lane.has_queued)
        before = lane.queued_bytes
        await pause(store, pipeline, {"acme": [GITHUB]})
        await until(lambda: not pipeline.coalescer.objects)
        assert lane.queued_bytes < before / 3
        store.faults.hold.set()
        store.faults.hold = None
        await until(lambda: sender.arrived(store, LINEAR) == 15)
        await until(lambda: not len(pipeline.dispatcher.ledger))
        assert 0 < pipeline.pending < 15
        await pause(store, pipeline, {})
        await settled(pipeline)
        sender.check(store)


async def test_a_large_backlog_is_read_back_beside_what_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READ_BYTES", 20_000)
    monkeypatch.setattr(dispatch, "LANE_BYTES_MAX", LANE_BYTES)
    monkeypatch.setattr(backlog, "HEADS_PER_TURN", 7)
    sender = Providers()
    chosen = {"coalesce_window_s": 0.0, "batch_bytes_max": 64 << 10}
    async with node() as store, running(settings(tmp_path, store, **chosen)) as pipeline:
        await connected(pipeline)
        await pause(store, pipeline, {"acme": [GITHUB, CRM]})
        for number in range(200):
            await pipeline.accept([sender.envelope(GITHUB, number % 9, size=5_000), sender.envelope(CRM, number % 4)])
        store.faults.hold = asyncio.Event()
        await pause(store, pipeline, {"acme": [CRM]})
        lane = pipeline.dispatcher.lanes["acme"]
        await until(lambda: lane.in_flight and lane.queued_bytes >= LANE_BYTES)
        for _ in range(10):
            await pipeline.accept([sender.envelope(LINEAR)])
        store.faults.hold.set()
        await until(lambda: sender.arrived(store, LINEAR) == 10 and sender.arrived(store, GITHUB) == 200)
        order = [provider for _, provider, _, _ in store.durable.deliveries]
        assert order[-1] == GITHUB, "what arrives must not wait for the whole backlog"
        assert sender.arrived(store, CRM) == 0
        await pause(store, pipeline, {})
        await settled(pipeline)
        sender.check(store)


async def test_what_arrives_of_a_resumed_provider_waits_behind_what_was_left_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "READ_BYTES", 20_000)
    monkeypatch.setattr(dispatch, "LANE_BYTES_MAX", LANE_BYTES)
    sender = Providers()
    chosen = {"coalesce_window_s": 0.0, "batch_bytes_max": 64 << 10}
    async with node() as store, running(settings(tmp_path, store, **chosen)) as pipeline:
        await connected(pipeline)
        await pause(store, pipeline, {"acme": [GITHUB]})
        await one_by_one(pipeline, [sender.envelope(GITHUB, number % 9, size=5_000) for number in range(60)])
        store.faults.hold = asyncio.Event()
        await pause(store, pipeline, {})
        lane = pipeline.dispatcher.lanes["acme"]
        await until(lambda: lane.in_flight and lane.queued_bytes >= LANE_BYTES)
        assert lane.left_rows, "most of it waits in the spool"
        await one_by_one(pipeline, [sender.envelope(provider) for _ in range(9) for provider in (GITHUB, LINEAR)])
        store.faults.hold.set()
        await settled(pipeline)
        sender.check(store)


@pytest.mark.parametrize("seed", range(4))
async def test_any_order_of_pauses_restarts_and_faults(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    sender = Providers()
    providers = (GITHUB, LINEAR, CRM)
    async with asyncio.timeout(TIMEOUT_S), node() as store:
        for _ in range(3):
            window_s = chance.choice((0.0, 0.02, 0.2))
            async with AsyncExitStack() as stack:
                if chance.random() < 0.3:
                    await store.stop()
                pipeline = await stack.enter_async_context(
                    running(settings(tmp_path, store, coalesce_window_s=window_s))
                )
                for _ in range(60):
                    await step(chance, sender, store, pipeline, providers)
                await store.stop()
                await store.start()
        await store.pause({})
        async with running(settings(tmp_path, store, coalesce_window_s=0.0)) as pipeline:
            await settled(pipeline)
            assert not list(pipeline.admission.shares)
        sender.check(store)


async def step(
    chance: random.Random, sender: Providers, store: ShardNode, pipeline: Pipeline, providers: Sequence[str]
) -> None:
    """Something happens."""
    what = chance.random()
    if what < 0.7:
        batch = [
            sender.envelope(chance.choice(providers), chance.randrange(3), chance.choice(("acme", "umbrella")), size)
            for size in (chance.choice((5, 3_000)) for _ in range(chance.randrange(1, 6)))
        ]
        await pipeline.accept(batch)
    elif what < 0.9:
        paused = {
            workspace: [provider for provider in (*providers, EVERYTHING) if chance.random() < 0.3]
            for workspace in ("acme", "umbrella")
        }
        await store.pause({workspace: names for workspace, names in paused.items() if names})
    elif what < 0.95:
        fault = chance.choice(("cut_before_answer", "cut_before_apply", "refuse"))
        setattr(store.faults, fault, 1)
    else:
        await asyncio.sleep(chance.choice((0.0, 0.01, 0.05)))
