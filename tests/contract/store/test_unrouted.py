"""Dead letters of apps and their routes on a running node: whichever comes first, the delivery is tried again."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from relayfile.model import Outcome
from relayfile.route_file import TENANT_HEADER
from relayfile.store.engine import DeadLetterFilter, KeptDeadLetter
from relayfile.store.letters import replayer
from relayfile.store.letters.replayer import ReplayPolicy
from relayfile.store.order import Order
from relayfile.store.plan.letters import LetterState
from relayfile.store.routes import RouteChange, RouteChanged
from relayfile.v1 import shard_pb2, types_pb2
from tests.support.running_node import POLICY, RunningNode, Sender, running_node, sub_batch

SYSTEM = "_app/crm"
AT_ONCE = replace(POLICY, creates_workspaces=False, replay=ReplayPolicy(letters_per_second_max=10_000))
UNROUTED = types_pb2.Failure(reason="UNROUTED", message="The customer has no route.")
ORDER = Order("test", "relayfile.v1.RouteService/PutRoute", "", "", "c")


def unrouted(number: int, tenant: str) -> shard_pb2.Fold:
    """A delivery that ingest could not place."""
    headers = {"x-event": "contact"} | ({TENANT_HEADER: tenant} if tenant else {})
    member = shard_pb2.FoldMember(
        spool_ref=number.to_bytes(12, "big"),
        envelope_id=f"envelope-{number:017d}",
        delivery_id=f"delivery-{number}",
        kind=shard_pb2.MEMBER_KIND_FAILED,
        received_unix_us=1_800_000_000_000_000 + number,
        raw=types_pb2.RawDelivery(body=b"[{}]", headers=headers),
        failure=UNROUTED,
        adapter_version="crm/1",
    )
    return shard_pb2.Fold(provider="crm", change_key="n:0", members=[member])


async def put(running: RunningNode, tenant: str, workspace: str = "acme") -> RouteChanged:
    return await running.node.routes.change("crm", RouteChange(tenant, workspace, None, ORDER), None)


async def send(sender: Sender, sequence: int, *folds: shard_pb2.Fold) -> list[Outcome]:
    batch = sub_batch(SYSTEM, sequence, folds)
    await sender.send(batch)
    return [Outcome(one) for one in (await sender.answered(batch)).outcomes]


async def letters(running: RunningNode) -> list[KeptDeadLetter]:
    async with running.engine.view(running.node.ownership.local_key(SYSTEM)) as view:
        return (await view.dead_letters(DeadLetterFilter(), "", 100))[::-1]


async def states(running: RunningNode) -> dict[str, LetterState]:
    return {each.row.key.delivery_id: LetterState(each.state) for each in await letters(running)}


async def counts(running: RunningNode) -> dict[Outcome, int]:
    async with running.engine.view(running.node.ownership.local_key(SYSTEM)) as view:
        [crm] = await view.outcomes()
    return {outcome: number for outcome, number in crm.counts.items() if number}


@asynccontextmanager
async def started(path: Path, redos_max: int = 10) -> AsyncIterator[tuple[RunningNode, Sender]]:
    async with running_node(path, AT_ONCE) as running, Sender(running.address, redos_max=redos_max) as sender:
        yield running, sender


async def test_the_first_dead_letter_makes_the_system_workspace(tmp_path: Path) -> None:
    async with started(tmp_path) as (running, sender):
        assert await send(sender, 1, unrouted(1, "7")) == [Outcome.DEAD_LETTERED]
        assert await states(running) == {"delivery-1": LetterState.PENDING}
        other = sub_batch("nobody", 1, [unrouted(1, "7")])
        await sender.send(other)
        assert [Outcome(one) for one in (await sender.answered(other)).outcomes] == [Outcome.IGNORED]


async def test_a_route_takes_its_dead_letters_along(tmp_path: Path) -> None:
    async with started(tmp_path, redos_max=0) as (running, sender):
        await send(sender, 1, unrouted(1, "7"), unrouted(2, "8"), unrouted(3, "7"), unrouted(4, ""))
        assert (await put(running, "7")).replayed_count == 2
        assert await states(running) == {
            "delivery-1": LetterState.REPLAYING,
            "delivery-2": LetterState.PENDING,
            "delivery-3": LetterState.REPLAYING,
            "delivery-4": LetterState.PENDING,
        }
        assert (await put(running, "7")).replayed_count == 0
        assert (await put(running, "8")).replayed_count == 1


async def test_what_is_forwarded_ends_as_ignored(tmp_path: Path) -> None:
    async with started(tmp_path) as (running, sender):
        await send(sender, 1, unrouted(1, "7"))
        await put(running, "7")
        redo = await sender.redo()
        assert (redo.workspace_id, redo.reason, redo.envelope_id) == (SYSTEM, "UNROUTED", f"envelope-{1:017d}")
        assert redo.raw.headers[TENANT_HEADER] == "7"
        assert redo.received_unix_us == 1_800_000_000_000_001
        assert await sender.finish(redo, forwarded=True)
        assert await states(running) == {}
        assert await counts(running) == {Outcome.IGNORED: 1}


async def test_a_dead_letter_that_comes_after_its_route_is_tried_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ingest accepted it before it knew the route."""
    monkeypatch.setattr(replayer, "REST_S_MAX", 0.01)
    async with started(tmp_path) as (running, sender):
        await put(running, "7")
        await send(sender, 1, unrouted(1, "7"), unrouted(2, "8"))
        redo = await sender.redo()
        assert redo.delivery_id == "delivery-1"
        assert await sender.finish(redo, forwarded=True)
        assert await states(running) == {"delivery-2": LetterState.PENDING}


async def test_one_that_fails_while_its_route_is_made_is_tried_once_more(tmp_path: Path) -> None:
    async with started(tmp_path) as (running, sender):
        await send(sender, 1, unrouted(1, "7"))
        await put(running, "7")
        redo = await sender.redo()
        await put(running, "7", "bolt")  # finds it being replayed, and so leaves it alone
        assert await sender.finish(redo, failure=UNROUTED)
        again = await sender.redo()
        assert again.dead_letter_id == redo.dead_letter_id
        await asyncio.sleep(0.01)
        assert await sender.finish(again, failure=UNROUTED)
        [left] = await letters(running)
        assert (left.state, left.attempt_count) == (LetterState.PENDING, 3)


@pytest.mark.parametrize("reason", ["UNROUTED", "UNEXPECTED_SHAPE"])
async def test_one_that_fails_again_waits(tmp_path: Path, reason: str) -> None:
    async with started(tmp_path) as (running, sender):
        await send(sender, 1, unrouted(1, "7"))
        await put(running, "7")
        redo = await sender.redo()
        await running.node.routes.change("crm", RouteChange("7", "", None, ORDER), None)
        assert await sender.finish(redo, failure=types_pb2.Failure(reason=reason, message="no"))
        assert await states(running) == {"delivery-1": LetterState.PENDING}


async def test_acknowledged_ones_are_left_alone(tmp_path: Path) -> None:
    async with started(tmp_path) as (running, sender):
        await send(sender, 1, unrouted(1, "7"))
        key = running.node.ownership.local_key(SYSTEM)
        [letter] = await letters(running)
        await running.node.dead_letters.acknowledge(key, letter.row.dead_letter_id, ORDER)
        assert (await put(running, "7")).replayed_count == 0
        assert await states(running) == {"delivery-1": LetterState.ACKNOWLEDGED}


async def test_what_is_queued_is_queued_after_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path, redos_max=0) as (running, sender):
        await send(sender, 1, unrouted(1, "7"))
        assert (await put(running, "7")).replayed_count == 1
    async with started(tmp_path) as (running, sender):
        assert (await sender.redo()).delivery_id == "delivery-1"


@pytest.mark.parametrize("seed", range(6))
async def test_in_any_order_no_delivery_waits_whose_route_is_there(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries, routes that come and go, and tries that looked for the route some time before they report."""
    monkeypatch.setattr(replayer, "REST_S_MAX", 0.01)
    draw = random.Random(seed)
    routes: set[str] = set()
    looked: list[tuple[shard_pb2.Redo, bool]] = []
    async with started(tmp_path, redos_max=100) as (running, sender):

        async def look() -> None:
            """Take what is handed over, and look for its route as it is now."""
            replaying = list((await states(running)).values()).count(LetterState.REPLAYING)
            while len(looked) < replaying:
                redo = await sender.redo()
                looked.append((redo, redo.raw.headers[TENANT_HEADER] in routes))

        async def report() -> None:
            redo, routed = looked.pop(draw.randrange(len(looked)))
            assert await sender.finish(redo, failure=None if routed else UNROUTED, forwarded=routed)

        count = 0
        for _ in range(80):
            tenant = draw.choice("ab")
            match draw.choice(("deliver", "deliver", "route", "unroute", "look", "report", "report")):
                case "deliver":
                    count += 1
                    await send(sender, count, unrouted(count, tenant))
                case "route":
                    await put(running, tenant, draw.choice(("acme", "bolt")))
                    routes.add(tenant)
                case "unroute" if tenant in routes:
                    await running.node.routes.change("crm", RouteChange(tenant, "", None, ORDER), None)
                    routes.remove(tenant)
                case "look":
                    await look()
                case "report" if looked:
                    await report()
        await look()
        while looked:
            await report()
            await look()
        left = await letters(running)
        assert not {each.row.raw.headers[TENANT_HEADER] for each in left} & routes, "nobody tries them any more"
        assert {each.state for each in left} <= {LetterState.PENDING}
        total = await counts(running)
        assert (sum(total.values()), total.get(Outcome.DEAD_LETTERED, 0)) == (count, len(left))
