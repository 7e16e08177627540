"""Ingest without a spool, against store nodes in memory: each situation, its answer, and what is left afterwards."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from relayfile.errors import Draining, RelayfileError, Unavailable
from relayfile.ingest.intake import Fate
from relayfile.ingest.sending.streams import Surroundings
from relayfile.ingest.through import Through
from relayfile.placement import shard_of
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2
from tests.fakes.shard_node import ShardNode
from tests.integration.test_ingest_pipeline import CLOCK, IDS, connect, node, until

DEADLINE_S = 0.4
APPLIED, DUPLICATE = types_pb2.OUTCOME_APPLIED, types_pb2.OUTCOME_DUPLICATE
REFUSED = "UNAVAILABLE"
# Even shards live on the first node, odd ones on the second.
NEAR, FAR = (next(f"w{n}" for n in range(99) if shard_of(f"w{n}") % 2 == parity) for parity in (0, 1))

Told = list[int] | str
"""Outcomes, or the reason of a refusal."""


def envelope(delivery: str, item: int = 0, workspace: str = NEAR, size: int = 20) -> types_pb2.Envelope:
    made = types_pb2.Envelope(envelope_id=IDS.new_id(), workspace_id=workspace, provider="github", delivery_id=delivery)
    made.received_at.FromMicroseconds(CLOCK.now_us())
    content = delivery.encode().ljust(size, b".")
    made.changes.add(
        kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{item}", provider_object_id=f"issue/{item}", content=content
    )
    return made


@dataclass
class Rig:
    """A running intake, and the nodes behind it."""

    near: ShardNode
    far: ShardNode
    through: Through
    tasks: list["asyncio.Task[Sequence[Fate]]"] = field(default_factory=list)

    async def send(self, *envelopes: types_pb2.Envelope) -> list[Told]:
        return [told(fate) for fate in await self.through.accept(envelopes)]

    def start(self, *envelopes: types_pb2.Envelope) -> "asyncio.Task[Sequence[Fate]]":
        task = asyncio.ensure_future(self.through.accept(envelopes))
        self.tasks.append(task)
        return task

    async def sent(self) -> None:
        """Return when a batch is on its way."""
        await until(lambda: any(lane.in_flight for lane in self.through.traffic.lanes.values()))

    async def back(self, one: ShardNode) -> None:
        """Start a node again and return when its stream is open."""
        await one.start()
        await self.back_on(one)

    async def back_on(self, one: ShardNode) -> None:
        """Return when a new stream is open."""
        streams = one.streams
        await until(lambda: one.streams > streams)

    def applied(self) -> list[str]:
        """Deliveries that had an effect, each time that they had one."""
        nodes = [self.near, self.far]
        return sorted(one.delivery_id for each in nodes for many in each.durable.objects.values() for one in many)

    def check_nothing_waits(self) -> None:
        assert self.through.figures().spool_bytes == 0
        assert (len(self.through.waits), self.through.waits.pending) == (0, 0)
        assert not any(lane.has_queued for lane in self.through.traffic.lanes.values())


def told(fate: Fate) -> Told:
    return fate.reason if isinstance(fate, RelayfileError) else [int(outcome) for outcome in fate]


@asynccontextmanager
async def rig(**changes: object) -> AsyncIterator[Rig]:
    async with node() as near, node() as far:
        settings = IngestSettings(
            data_dir=Path("/nonexistent"),
            nodes=(near.address, far.address),
            **{"accept_deadline_s": DEADLINE_S, **changes},  # type: ignore[arg-type]
        )
        around = Surroundings(clock=CLOCK, connect=connect, session_id=IDS.new_id(), ingest_id="ingest-0")
        made = Rig(near, far, Through(settings, around))
        task = asyncio.ensure_future(made.through.run())
        try:
            yield made
        finally:
            await asyncio.gather(*made.tasks, return_exceptions=True)
            task.cancel()
            await asyncio.wait([task])
            assert await made.through.close() == 0


# --- the table: what happens -> what the caller is told, and what the nodes have done afterwards


async def all_is_well(at: Rig) -> list[Told]:
    return await at.send(envelope("a"), envelope("b", 1))


async def a_delivery_came_before(at: Rig) -> list[Told]:
    return [*await at.send(envelope("a")), *await at.send(envelope("a"))]


async def the_store_is_away(at: Rig) -> list[Told]:
    await at.near.stop()
    answer = await at.send(envelope("a"))
    await at.back(at.near)
    await at.send(envelope("b"))
    return answer


async def the_store_returns_in_time(at: Rig) -> list[Told]:
    await at.near.stop()
    task = at.start(envelope("a"))
    await asyncio.sleep(0.05)
    await at.near.start()
    return [told(fate) for fate in await task]


async def the_commit_comes_after_the_answer(at: Rig) -> list[Told]:
    at.near.faults.hold = asyncio.Event()
    first = await at.send(envelope("a"))
    at.near.faults.hold.set()
    return [*first, *await at.send(envelope("a"))]


async def the_commit_is_answered_to_nobody(at: Rig) -> list[Told]:
    """Each time between commit and answer the stream is cut, for longer than the caller waits."""
    at.near.faults.cut_before_answer = 1_000
    first = await at.send(envelope("a"))
    at.near.faults.cut_before_answer = 0
    await at.back_on(at.near)
    return [*first, *await at.send(envelope("a"))]


async def the_stream_is_cut_before_the_commit(at: Rig) -> list[Told]:
    at.near.faults.cut_before_apply = 1
    return await at.send(envelope("a"))


async def the_stream_is_cut_after_the_commit(at: Rig) -> list[Told]:
    at.near.faults.cut_before_answer = 1
    return await at.send(envelope("a"))


async def the_commit_fails_once(at: Rig) -> list[Told]:
    at.near.faults.refuse = 1
    return await at.send(envelope("a"))


async def the_shard_has_moved(at: Rig) -> list[Told]:
    at.near.owner_elsewhere = lambda shard: (7, at.far.address)
    answer = await at.send(envelope("a"))
    assert not at.near.durable.objects
    return answer


async def one_of_two_nodes_is_away(at: Rig) -> list[Told]:
    await at.far.stop()
    return await at.send(envelope("a"), envelope("b", 1, FAR), envelope("c", 2), envelope("d", 3, FAR))


async def large_content_comes_in_chunks(at: Rig) -> list[Told]:
    answer = await at.send(envelope("a", size=3 << 20), envelope("b", 1), envelope("c", 2, size=1 << 20))
    sizes = {key[2]: len(many[-1].content) for key, many in at.near.durable.objects.items()}
    assert sizes == {"o:issue/0": 3 << 20, "o:issue/1": 20, "o:issue/2": 1 << 20}
    return answer


async def too_much_waits(at: Rig) -> list[Told]:
    at.near.faults.hold = asyncio.Event()
    task = at.start(envelope("a", size=700_000))
    await at.sent()
    started = CLOCK.monotonic()
    answer = await at.send(envelope("b", 1, size=400_000))
    assert CLOCK.monotonic() - started < DEADLINE_S / 2
    at.near.faults.hold.set()
    return [*[told(fate) for fate in await task], *answer, *await at.send(envelope("b", 1, size=400_000))]


async def one_workspace_is_past_its_share(at: Rig) -> list[Told]:
    """Over half of 1 MiB: who has most of it waits, the others go on."""
    at.near.faults.hold = at.far.faults.hold = asyncio.Event()
    task = at.start(envelope("a", size=600_000))
    await at.sent()
    noisy = at.start(envelope("b", 1, size=100_000), envelope("c", 2, FAR, size=100_000))
    await asyncio.sleep(0)
    at.near.faults.hold.set()
    return [told(fate) for each in (task, noisy) for fate in await each]


async def the_provider_is_paused_and_resumed(at: Rig) -> list[Told]:
    await at.near.pause({NEAR: ["github"]})
    await until(lambda: at.through.traffic.pauses.is_paused(NEAR, "github"))
    answer = await at.send(envelope("a"), envelope("b", 1, FAR))
    await at.near.pause({})
    await until(lambda: not at.through.traffic.pauses.is_paused(NEAR, "github"))
    return [*answer, *await at.send(envelope("a"))]


async def a_pause_comes_while_callers_wait(at: Rig) -> list[Told]:
    """What was sent is committed, what was not is refused without waiting for the deadline."""
    at.near.faults.hold = asyncio.Event()
    first = at.start(envelope("a"))
    await at.sent()
    second = at.start(envelope("b", 1))
    await asyncio.sleep(0)
    await at.near.pause({NEAR: [""]})
    refused = await second
    at.near.faults.hold.set()
    return [told(fate) for fates in (await first, refused) for fate in fates]


async def a_pause_was_made_before_the_process_was_connected(at: Rig) -> list[Told]:
    await at.near.stop()
    task = at.start(envelope("a"))
    await asyncio.sleep(0)
    at.near.paused = {NEAR: ["github"]}
    await at.near.start()
    return [told(fate) for fate in await task]


async def a_caller_leaves_before_its_turn(at: Rig) -> list[Told]:
    at.near.faults.hold = asyncio.Event()
    first = at.start(envelope("a"))
    await at.sent()
    gone, stays = at.start(envelope("b", 1)), at.start(envelope("c", 2))
    await asyncio.sleep(0)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    at.near.faults.hold.set()
    return [told(fate) for task in (first, stays) for fate in await task]


async def a_caller_leaves_with_its_changes_on_their_way(at: Rig) -> list[Told]:
    at.near.faults.hold = asyncio.Event()
    gone = at.start(envelope("a"))
    await at.sent()
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    at.near.faults.hold.set()
    return await at.send(envelope("a"))


async def the_process_stops(at: Rig) -> list[Told]:
    """What waits gets its answer, what comes is refused."""
    at.near.faults.hold = asyncio.Event()
    task = at.start(envelope("a"))
    await at.sent()
    draining = asyncio.ensure_future(at.through.drain())
    await asyncio.sleep(0)
    with pytest.raises(Draining):
        await at.send(envelope("b"))
    assert not draining.done()
    at.near.faults.hold.set()
    await draining
    return [told(fate) for fate in await task]


async def the_process_stops_with_the_store_away(at: Rig) -> list[Told]:
    await at.near.stop()
    task = at.start(envelope("a"))
    await asyncio.sleep(0)
    async with asyncio.timeout(2 * DEADLINE_S):
        await at.through.drain()
    return [told(fate) for fate in await task]


async def a_failed_and_an_ignored_delivery(at: Rig) -> list[Told]:
    failed, ignored = (types_pb2.Envelope(workspace_id=NEAR, provider="github") for _ in range(2))
    for number, each in enumerate((failed, ignored)):
        each.envelope_id, each.delivery_id = IDS.new_id(), f"n{number}"
        each.received_at.FromMicroseconds(CLOCK.now_us())
    failed.failure.reason = "NOT_JSON"
    failed.raw.body = b"?" * (2 << 20)
    return await at.send(failed, ignored)


SITUATIONS: list[tuple[Callable[[Rig], Awaitable[list[Told]]], list[Told], list[str]]] = [
    (all_is_well, [[APPLIED], [APPLIED]], ["a", "b"]),
    (a_delivery_came_before, [[APPLIED], [DUPLICATE]], ["a"]),
    (the_store_is_away, [REFUSED], ["b"]),
    (the_store_returns_in_time, [[APPLIED]], ["a"]),
    (the_commit_comes_after_the_answer, [REFUSED, [DUPLICATE]], ["a"]),
    (the_commit_is_answered_to_nobody, [REFUSED, [DUPLICATE]], ["a"]),
    (the_stream_is_cut_before_the_commit, [[APPLIED]], ["a"]),
    (the_stream_is_cut_after_the_commit, [[APPLIED]], ["a"]),
    (the_commit_fails_once, [[APPLIED]], ["a"]),
    (the_shard_has_moved, [[APPLIED]], ["a"]),
    (one_of_two_nodes_is_away, [[APPLIED], REFUSED, [APPLIED], REFUSED], ["a", "c"]),
    (large_content_comes_in_chunks, [[APPLIED]] * 3, ["a", "b", "c"]),
    (too_much_waits, [[APPLIED], REFUSED, [APPLIED]], ["a", "b"]),
    (one_workspace_is_past_its_share, [[APPLIED], "OVERLOADED", [APPLIED]], ["a", "c"]),
    (the_provider_is_paused_and_resumed, ["PAUSED", [APPLIED], [APPLIED]], ["a", "b"]),
    (a_pause_comes_while_callers_wait, [[APPLIED], "PAUSED"], ["a"]),
    (a_pause_was_made_before_the_process_was_connected, ["PAUSED"], []),
    (a_caller_leaves_before_its_turn, [[APPLIED], [APPLIED]], ["a", "c"]),
    (a_caller_leaves_with_its_changes_on_their_way, [[DUPLICATE]], ["a"]),
    (the_process_stops, [[APPLIED]], ["a"]),
    (the_process_stops_with_the_store_away, [REFUSED], []),
    (a_failed_and_an_ignored_delivery, [[APPLIED], [APPLIED]], ["n0", "n1"]),
]

SETTINGS: dict[Callable[[Rig], Awaitable[list[Told]]], dict[str, object]] = {
    one_workspace_is_past_its_share: {"through_queue_bytes_max": 1 << 20},
    too_much_waits: {"through_queue_bytes_max": 1 << 20},
    # Connecting again takes its time; these are over as soon as that is done.
    the_store_returns_in_time: {"accept_deadline_s": 10.0},
    a_pause_comes_while_callers_wait: {"accept_deadline_s": 10.0},
    a_pause_was_made_before_the_process_was_connected: {"accept_deadline_s": 10.0},
    the_stream_is_cut_before_the_commit: {"accept_deadline_s": 10.0},
    the_stream_is_cut_after_the_commit: {"accept_deadline_s": 10.0},
}


@pytest.mark.parametrize(
    ("situation", "answer", "applied"), SITUATIONS, ids=[situation.__name__ for situation, _, _ in SITUATIONS]
)
async def test_each_situation_has_its_answer_and_leaves_nothing(
    situation: Callable[[Rig], Awaitable[list[Told]]], answer: list[Told], applied: list[str]
) -> None:
    async with rig(**SETTINGS.get(situation, {})) as at:
        assert await situation(at) == answer
        assert at.applied() == applied
        at.check_nothing_waits()


async def test_a_refusal_comes_at_the_deadline_and_says_when_to_come_back() -> None:
    async with rig() as at:
        await at.near.stop()
        started = CLOCK.monotonic()
        [fate] = await at.through.accept([envelope("a")])
        assert 0.9 * DEADLINE_S < CLOCK.monotonic() - started < 2.5 * DEADLINE_S
        assert isinstance(fate, Unavailable)
        assert fate.retry_after_s >= 1


async def test_changes_of_an_object_keep_their_order_over_cuts() -> None:
    async with rig(accept_deadline_s=20.0) as at:
        at.near.faults.delay_s = 0.002
        tasks = []
        for number in range(200):
            tasks.append(at.start(envelope(f"d{number}", number % 7)))
            await asyncio.sleep(0)
            at.near.faults.cut_before_answer += number == 25
            at.near.faults.cut_before_apply += number == 125
        fates = [told(fate) for task in tasks for fate in await task]
        assert fates == [[APPLIED]] * 200
        for key, many in at.near.durable.objects.items():
            item = int(key[2].partition("/")[2])
            assert [one.delivery_id for one in many] == [f"d{n}" for n in range(200) if n % 7 == item]
        # What waits for the same answer goes together, one batch of a workspace at a time.
        assert at.near.workspaces_in_flight_max == 1
        assert at.near.sub_batches < 100


async def test_what_was_sent_and_given_up_is_bounded_and_does_not_come_before_its_retry() -> None:
    async with rig() as at:
        await at.near.stop()
        for number in range(2):
            assert await at.send(envelope(f"d{number}")) == [REFUSED]
            at.check_nothing_waits()
        await at.back(at.near)
        assert await at.send(envelope("d0")) == [[APPLIED]]
        assert at.applied() == ["d0"]


async def test_an_idle_lane_is_forgotten() -> None:
    async with rig() as at:
        await at.send(envelope("a"))
        await until(lambda: not at.through.traffic.lanes)
