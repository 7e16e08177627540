"""kill -9 of ingest and of a store node under load: nothing acknowledged is lost, nothing is applied twice (R1–R3)."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relayfile.local.system import LocalSystem
from relayfile.placement import node_of, shard_of
from tests.crash.storm import RATE_MIN_PER_S, Storm, judge, oracle
from tests.support.client import Client, client_of
from tests.support.system import started_system

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

NODES = 2
# A short window: folds are made and flushed between two kills.
SETTINGS = {"RELAYFILE_COALESCE_WINDOW": "300ms"}

FAULTS = [
    ("ingest", "ingest.spool.after_insert_before_fsync:40"),
    ("ingest", "ingest.spool.after_fsync_before_answer:40"),
    ("ingest", "ingest.stream.after_send_before_ack:20"),
    ("store", "store.commit.before_commit:20"),
    ("store", "store.commit.after_commit_before_ack:20"),
]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    root = tmp_path_factory.mktemp("crash")
    async with started_system(root, nodes=NODES, overrides=SETTINGS, only=frozenset({"store", "ingest"})) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(system: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(system) as connected:
        yield connected


def owner(workspace: str) -> str:
    """The name of the process that owns the workspace."""
    return f"store-{node_of(shard_of(workspace), NODES)}"


async def storm(system: LocalSystem, client: Client, log: Path, *, kills: int, seed: int) -> None:
    """As many kills of ingest as of the node that owns the workspace, in random order."""
    workspace = f"storm-{seed}"
    await client.create_workspace(workspace)
    victims = ["ingest", owner(workspace)] * kills
    weather = Storm(system, random.Random(seed))
    weather.random.shuffle(victims)
    async with oracle(system, workspace, log, seed=seed):
        for victim in victims:
            await weather.kill(victim)
    history = await judge(client, workspace, log)
    rate = weather.offered_per_s(history)
    assert rate >= RATE_MIN_PER_S, f"only {rate:.0f} requests/s were offered"
    assert history.acked


async def test_kills_at_random_moments(system: LocalSystem, client: Client, tmp_path: Path) -> None:
    await storm(system, client, tmp_path / "oracle.log", kills=4, seed=20261123)


@pytest.mark.full
@pytest.mark.timeout(400)
async def test_many_kills_at_random_moments(system: LocalSystem, client: Client, tmp_path: Path) -> None:
    await storm(system, client, tmp_path / "oracle.log", kills=20, seed=7)


@pytest.mark.parametrize(("kind", "point"), FAULTS, ids=[point for _, point in FAULTS])
async def test_a_kill_at_a_fault_point(
    system: LocalSystem, client: Client, tmp_path: Path, kind: str, point: str
) -> None:
    workspace = "at-" + point.partition(":")[0]
    await client.create_workspace(workspace)
    victim = "ingest" if kind == "ingest" else owner(workspace)
    log = tmp_path / "oracle.log"
    async with oracle(system, workspace, log, seed=3):
        await Storm(system, random.Random(3)).die_at(victim, point)
    history = await judge(client, workspace, log)
    assert history.acked
