"""A system under load that is killed again and again, and the judgement at the end."""

import asyncio
import json
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from grpc import aio

from relayfile.local.process import LocalProcess
from relayfile.local.system import LocalSystem
from relayfile.v1 import event_pb2
from tests.crash.oracle import History, OracleLoad, is_hot, read_history
from tests.support.client import Client, Counts, gaps

ROOT = Path(__file__).resolve().parents[2]
RATE_MIN_PER_S = 500.0
OFFERED_PER_S = 700.0
SETTLE_TIMEOUT_S = 30.0
QUIET_S = 0.7


@asynccontextmanager
async def oracle(
    system: LocalSystem, workspace: str, log: Path, *, seed: int, rate_per_s: float = OFFERED_PER_S, url: str = ""
) -> AsyncIterator[None]:
    """The oracle at work, until the block ends and its last requests were answered. `url`: of another ingest."""
    load = OracleLoad(
        url=url or f"http://127.0.0.1:{system.ports.ingest_http}",
        workspace=workspace,
        secret=system.layout.webhook_secret(workspace, "github"),
        log=str(log),
        rate=rate_per_s,
        seed=seed,
    )
    async with at_work(load):
        yield


@asynccontextmanager
async def at_work(load: OracleLoad) -> AsyncIterator[None]:
    """The oracle with this load, as `oracle`."""
    log = Path(load.log)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.crash.oracle", json.dumps(asdict(load)), cwd=ROOT
    )
    try:
        while not (log.exists() and log.stat().st_size):
            assert process.returncode is None, "the oracle ended at its start"
            await asyncio.sleep(0.02)
        yield
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 30) == 0, "the oracle failed"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@dataclass(slots=True)
class Storm:
    """Kills, and when the system could answer."""

    system: LocalSystem
    random: random.Random
    down: list[tuple[float, float]] = field(default_factory=list)
    """Unix seconds between which ingest was not there."""

    async def kill(self, name: str) -> None:
        """Kill -9 after a random while under load; start it again after another."""
        await asyncio.sleep(self.random.uniform(0.3, 1.0))
        start = time.time()
        await self.system.processes[name].kill()
        await asyncio.sleep(self.random.uniform(0.0, 0.2))
        await self.system.start_one(name)
        if name == "ingest":
            self.down.append((start, time.time()))

    async def die_at(self, name: str, point: str) -> None:
        """Run a process until it dies at a fault point; start it again without one."""
        process = self.system.processes[name]
        start = time.time()
        await process.kill()
        whole = process.command
        process.command = replace(whole, environment={**whole.environment, "RELAYFILE_FAULT": point})
        try:
            await self.system.start_one(name)
            await self._death(process, point)
        finally:
            process.command = whole
        await self.system.start_one(name)
        self.down.append((start, time.time()))
        await asyncio.sleep(0.3)

    @staticmethod
    async def _death(process: LocalProcess, point: str) -> None:
        try:
            code = await asyncio.wait_for(process.exit_code(), 15)
        except TimeoutError:
            raise AssertionError(f"{process.name} never came by {point}") from None
        assert code == -signal.SIGKILL, f"{process.name} ended with {code} instead of dying at {point}"

    def offered_per_s(self, history: History) -> float:
        """Requests per second while ingest was there."""
        first, last = history.sent_at[0], history.sent_at[-1]
        up = [at for at in history.sent_at if not any(start <= at <= end for start, end in self.down)]
        away = sum(end - start for start, end in self.down if start < last)
        return len(up) / max(last - first - away, 0.1)


async def judge(client: Client, workspace: str, log: Path, *, refused_may_be_stored: bool = False) -> History:
    """acked ⊆ stored ⊆ sent, each once, with the content that was sent; counted exactly; revisions without gaps.

    `refused_may_be_stored`: without a spool a change may be committed after its sender was told 503.
    """
    history = read_history(log)
    counts = await quiet_counts(client, workspace, len(history.acked))
    stored = {path: json.loads(content) for path, content in (await client.contents(workspace)).items()}
    events = await client.all_events(workspace)
    _judge_files(history, stored)
    _judge_hot(history, stored)
    _judge_events(history, stored, events)
    _judge_counts(history, counts, events, refused_may_be_stored=refused_may_be_stored)
    revision = (await client.workspace(workspace)).revision
    assert revision == len(events), f"{len(events)} events, but revision {revision}"
    assert not gaps(events)
    return history


def _judge_files(history: History, stored: dict[str, dict[str, object]]) -> None:
    once = history.once
    lost = [name for name, record in once.items() if record.acked and record.path not in stored]
    assert not lost, f"{len(lost)} acknowledged and lost: {lost[:5]}"
    invented = stored.keys() - {record.path for record in history.records.values()}
    assert not invented, f"stored and never sent: {sorted(invented)[:5]}"
    other = [record.path for record in once.values() if stored.get(record.path, record.content) != record.content]
    assert not other, f"{len(other)} with other content: {other[:5]}"


def _judge_hot(history: History, stored: dict[str, dict[str, object]]) -> None:
    for path in history.hot_paths:
        versions = history.versions(path)
        acked = [number for number, record in enumerate(versions) if record.acked]
        if acked:
            assert path in stored, f"{path} was acknowledged and is lost"
            allowed = [record.content for record in versions[acked[-1] :]]
            assert stored[path] in allowed, f"{path} is older than what was acknowledged last"


def _judge_events(history: History, stored: dict[str, dict[str, object]], events: list[event_pb2.Event]) -> None:
    hot = history.hot_paths
    created = [event.path for event in events if event.type == event_pb2.EVENT_TYPE_FILE_CREATED]
    assert sorted(created) == sorted(stored), "a file was created twice, or without an event"
    again = [event for event in events if event.type != event_pb2.EVENT_TYPE_FILE_CREATED and event.path not in hot]
    assert not again, f"applied twice: {again[:3]}"


def _judge_counts(
    history: History, counts: Counts, events: list[event_pb2.Event], *, refused_may_be_stored: bool
) -> None:
    refused = 0 if refused_may_be_stored else sum(record.refused for record in history.records.values())
    attempts = sum(record.attempts for record in history.records.values()) - refused
    # Enough to tell what was counted and did not happen: an applied change is an event, another one is of a hot object.
    hot_sent = sum(is_hot(record) for record in history.records.values())
    facts = f"{attempts} tried, {hot_sent} of them of hot objects, {len(events)} revisions"
    assert len(history.acked) <= counts.ended <= attempts, f"{len(history.acked)} acked, {facts}, {counts}"
    assert counts.accepted == counts.ended
    assert not counts.pending
    wrong = {name: counts[name] for name in ("suppressed", "unchanged", "ignored", "dead_lettered")}
    assert not any(wrong.values()), wrong
    # Every applied change made one revision; every duplicate is a delivery that was tried again.
    assert counts["applied"] == len(events), f"{facts}, {counts}"
    again = sum(record.attempts - 1 for record in history.records.values())
    assert counts["duplicate"] <= again, f"{counts['duplicate']} duplicates of {again} repeats"
    stored_once = sum(event.type == event_pb2.EVENT_TYPE_FILE_CREATED for event in events)
    assert counts["coalesced"] + counts["stale"] <= hot_sent, "only hot objects have another change"
    assert counts["applied"] <= stored_once + hot_sent


async def quiet_counts(client: Client, workspace: str, accepted_min: int) -> Counts:
    """The counts when they no longer change and cover everything that was acknowledged."""
    deadline = time.monotonic() + SETTLE_TIMEOUT_S
    last, since = -1, time.monotonic()
    while True:
        try:
            counts = await client.counts(workspace)
        except aio.AioRpcError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"no answer: {error.details()}") from None
            await asyncio.sleep(0.1)
            continue
        if counts.ended != last:
            last, since = counts.ended, time.monotonic()
        if counts.ended >= accepted_min and time.monotonic() - since >= QUIET_S:
            return counts
        assert time.monotonic() < deadline, f"{accepted_min} acknowledged, but ended are only {counts}"
        await asyncio.sleep(0.1)
