"""P9: how long a quiet workspace's changes take while another one of the same shard brings more than is let in."""

import asyncio
import base64
import itertools
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from grpc import aio

from relayfile.local.system import LocalSystem
from relayfile.placement import shard_of
from relayfile.v1 import ingest_pb2
from tests.bench.harness import STORE_AND_INGEST, Bench, run_load, until_ended
from tests.bench.load_http import HttpLoad
from tests.bench.load_publish import METHOD, PublishLoad, framed, maker
from tests.bench.p16 import paced_load, write_secret
from tests.bench.result import Figure, Result
from tests.support.client import Client

BATCH = 10_000
BATCH_CONTENT_BYTES = 96
"""Of a batch that is one message."""
BESIDE_RATIO = 2.0
BESIDE_MS = 50.0
NOISE_LEAD_S = 1.2
"""Until the noise's process has started and there is more than is let in."""


@dataclass(slots=True)
class Scene:
    """A running system, the two workspaces, and what the noisy one has sent so far."""

    system: LocalSystem
    client: Client
    secret: str
    seconds: float
    quiet: str = "quiet-000"
    noisy: str = ""
    sent: int = 0
    runs: int = 0
    detail: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The load adds a number to the prefix of its workspaces.
        prefixes = (f"noisy-{number}-" for number in itertools.count())
        self.noisy = next(prefix for prefix in prefixes if shard_of(prefix + "000") == shard_of(self.quiet))

    @property
    def noisy_workspace(self) -> str:
        return self.noisy + "000"

    async def quiet_p99_ms(self, name: str, via: str) -> float:
        """What 20 changes per second of the quiet workspace took, from when they were due until applied."""
        self.runs += 1
        load = paced_load(self.system, self.client, self.secret, self.quiet, via=via, tag=f"r{self.runs}")
        seen = await run_load(replace(load, seconds=self.seconds, ends_within_s=10.0))
        self.detail[name] = seen
        if seen["missing"] or seen["refused"]:
            return float("inf")
        return float(seen["applied_p99_ms"])

    def publish(self, envelopes: int, *, batch: int = 500, streams: int = 8) -> PublishLoad:
        """Envelopes of the noisy workspace, numbered on from what it sent before."""
        first, self.sent = self.sent, self.sent + envelopes
        return PublishLoad(
            address=self.client.ingest_address,
            token=self.client.token,
            workspace_prefix=self.noisy,
            workspaces=1,
            envelopes=self.sent,
            first=first,
            batch=batch,
            streams=streams,
        )

    async def calm(self) -> None:
        """Wait until nothing is pending."""
        deadline = time.monotonic() + 120
        request = ingest_pb2.GetIngestStatusRequest(workspace_id=self.noisy_workspace)
        while time.monotonic() < deadline:
            status = await self.client.ingest().GetIngestStatus(request, metadata=self.client.metadata, timeout=30)
            if not sum(each.pending for each in status.providers):
                return
            await asyncio.sleep(0.1)
        raise RuntimeError("the noise did not drain")


async def run(bench: Bench) -> Result:
    backlog = 30_000 if bench.quick else 1_000_000
    async with bench.system(only=STORE_AND_INGEST) as (system, client):
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(24)).decode()
        scene = Scene(system, client, secret, seconds=2.0 if bench.quick else 20.0)
        for workspace in (scene.quiet, scene.noisy_workspace):
            await client.create_workspace(workspace)
            write_secret(system, workspace, secret)
        await scene.quiet_p99_ms("warm-up", "http")
        beside: dict[str, Figure] = {}
        for via in ("http", "grpc"):
            alone_ms = await scene.quiet_p99_ms(f"alone, {via}", via)
            async with noise(scene, via):
                beside_ms = await scene.quiet_p99_ms(f"beside noise, {via}", via)
            await scene.calm()
            bar = max(BESIDE_RATIO, BESIDE_MS / alone_ms)
            beside[via] = Figure(f"p99 beside noise ÷ alone, {via}", beside_ms / alone_ms, "ratio", bar, "at most")
        batch_ms = await during_batches(scene)
        await scene.calm()
        backlog_ms, left = await during_drain(scene, backlog)
    return Result(
        "P9",
        [
            beside["http"],
            beside["grpc"],
            Figure("p99 while a batch of 10,000 is applied", batch_ms, "ms", BESIDE_MS, "at most"),
            Figure("p99 while a backlog drains", backlog_ms, "ms", 500, "at most"),
            Figure("backlog left when the samples ended", left, "changes"),
        ],
        bench.quick,
        {**bench.detail, "runs": scene.detail, "backlog": backlog},
        scale_only=bench.quick,
    )


@asynccontextmanager
async def noise(scene: Scene, via: str) -> AsyncIterator[None]:
    """All the time more of the noisy workspace is at the door than is let in: 128 connections, or 16,000 envelopes."""
    load: HttpLoad | PublishLoad
    if via == "http":
        load = HttpLoad(
            host="127.0.0.1",
            port=scene.system.ports.ingest_http,
            workspace_prefix=scene.noisy,
            workspaces=1,
            secret=scene.secret,
            seconds=3600,
            connections=128,
            presigned=1_000,
        )
    else:
        load = scene.publish(10_000_000)
    running = asyncio.ensure_future(run_load(load))
    try:
        await asyncio.sleep(NOISE_LEAD_S)
        yield
        if running.done():
            running.result()
            raise RuntimeError("the noise ended early")
    finally:
        running.cancel()
        await asyncio.wait([running])


async def during_batches(scene: Scene) -> float:
    """While one message of 10,000 changes after the other is applied."""
    stop = asyncio.Event()
    applying = asyncio.ensure_future(send_batches(scene, stop))
    try:
        return await scene.quiet_p99_ms("beside a batch of 10,000", "http")
    finally:
        stop.set()
        await applying


async def send_batches(scene: Scene, stop: asyncio.Event) -> None:
    channel = scene.client.channel(scene.client.ingest_address)
    method: aio.StreamStreamMultiCallable[bytes, ingest_pb2.PublishEnvelopesResponse] = channel.stream_stream(
        METHOD, response_deserializer=ingest_pb2.PublishEnvelopesResponse.FromString
    )
    ended = (await scene.client.counts(scene.noisy_workspace)).ended
    while not stop.is_set():
        load = replace(scene.publish(BATCH), content_bytes=BATCH_CONTENT_BYTES)
        make = maker(load)
        message = framed([make(index) for index in range(load.first, load.envelopes)], 1)
        call = method(metadata=scene.client.metadata)
        await call.write(message)
        await call.done_writing()
        statuses = [result.status async for response in call for result in response.results]
        assert set(statuses) == {ingest_pb2.PUBLISH_STATUS_ACCEPTED}, set(statuses)
        ended += BATCH
        _, missing = await until_ended(scene.client, {scene.noisy_workspace: ended}, 60)
        assert not missing, f"{missing} changes of a batch were not applied"


async def during_drain(scene: Scene, envelopes: int) -> tuple[float, int]:
    """While what gathered with the store away drains; and how much of it was left when the samples ended."""
    before = (await scene.client.counts(scene.noisy_workspace)).ended
    await scene.system.processes["store-0"].stop(20)
    scene.detail["backlog's load"] = await run_load(scene.publish(envelopes, streams=4))
    await scene.system.start_one("store-0")
    # Until ingest has connected anew (it tries every 2 s at the latest) nothing drains.
    await until_ended(scene.client, {scene.noisy_workspace: before + 1}, 30)
    p99_ms = await scene.quiet_p99_ms("while a backlog drains", "http")
    left = before + envelopes - (await scene.client.counts(scene.noisy_workspace)).ended
    _, missing = await until_ended(scene.client, {scene.noisy_workspace: before + envelopes}, 300)
    assert not missing, f"{missing} changes of the backlog were not applied"
    return p99_ms, left
