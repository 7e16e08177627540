"""All sample payloads as signed webhooks, in several orders: one outcome each, and the tree that a short fold says.

With the usual window of 3 s: objects that want one path keep their order inside a window, and with the short one of the
other tests a slow machine spreads these deliveries over many.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from relayfile.local.delivery import Sender
from relayfile.local.system import LocalSystem
from tests.support.client import Client, Counts, client_of, gaps
from tests.support.fold import fold
from tests.support.sample_changes import arrivals, normalised
from tests.support.system import started_system
from tests.support.webhooks import SAMPLE_COUNT, Sample, samples, shuffled

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.needs_data]

ORDERS = {"name": None, "shuffle-1": 1, "shuffle-2": 2, "shuffle-3": 3}


async def send(system: LocalSystem, workspace: str, order: Sequence[Sample]) -> None:
    """One after the other: the order of sending is the order of arrival."""
    secret = system.layout.webhook_secret(workspace, "github")
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        for sample in order:
            answer = await sender.post(sample.delivery(workspace, secret))
            assert answer.status == 200, f"{sample.name}: {answer}"


async def one_order(system: LocalSystem, client: Client, workspace: str, order: Sequence[Sample]) -> Counts:
    """Send everything, compare the tree, send it again, compare again. The counts after the first time."""
    accepted = sum(max(1, len(normalised(sample).changes)) for sample in order)
    ignored = sum(not normalised(sample).changes for sample in order)
    await send(system, workspace, order)
    counts = await client.settled(workspace, accepted)
    assert counts["dead_lettered"] == counts["duplicate"] == counts["suppressed"] == 0, counts
    assert counts["ignored"] == ignored
    tree = {path: json.loads(content) for path, content in (await client.contents(workspace)).items()}
    wanted = fold(arrivals(order))
    assert tree.keys() == wanted.keys()
    assert [path for path, content in wanted.items() if tree[path] != content] == []
    before = await client.workspace(workspace)
    await send(system, workspace, order)
    again = await client.settled(workspace, 2 * accepted)
    after = await client.workspace(workspace)
    assert (after.revision, after.totals) == (before.revision, before.totals)
    assert again["duplicate"] == accepted, again
    events = await client.all_events(workspace)
    assert len(events) == after.revision
    assert not gaps(events)
    return counts


async def test_every_sample_in_every_order(tmp_path: Path, shared_data: Path) -> None:
    found = samples(shared_data / "github-webhooks")
    assert len(found) == SAMPLE_COUNT
    orders = {name: found if seed is None else shuffled(found, seed) for name, seed in ORDERS.items()}
    only = frozenset({"store", "ingest"})
    async with (
        started_system(tmp_path, only=only) as system,
        client_of(system) as client,
        asyncio.TaskGroup() as group,
    ):
        for name, order in orders.items():
            group.create_task(one_order(system, client, f"samples-{name}", order))
