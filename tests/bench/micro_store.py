"""Applied changes per second of one store node alone, through `ApplyEnvelopes`.

    python -m tests.bench.micro_store [CHANGES] [--profile FILE]

The node is a process of its own on loopback. The load is serialised before the clock starts: new objects of 1 KiB over
64 workspaces, about 1 MiB a message, as many in flight as the node's credit allows. Prints one JSON line.
"""

import asyncio
import cProfile
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc.aio
import uvloop

from relayfile.placement import shard_of
from relayfile.upkeep import quiet_collector
from relayfile.v1 import shard_pb2
from tests.support.running_node import SHARDS, fold, running_node, upsert

WORKSPACES = 64
CHANGES_PER_MESSAGE = 800
CONTENT_BYTES = 1024


def serialised_load(changes: int) -> list[bytes]:
    """Messages, each with a sub-batch for every workspace's shard."""
    rng = random.Random(7)
    sequences: dict[int, int] = {}
    messages = []
    for start in range(0, changes, CHANGES_PER_MESSAGE):
        by_workspace: dict[str, list[shard_pb2.Fold]] = {}
        for number in range(start, min(start + CHANGES_PER_MESSAGE, changes)):
            content = b'{"data":"' + rng.randbytes(CONTENT_BYTES // 2).hex().encode()[: CONTENT_BYTES - 11] + b'"}'
            member = upsert(number, content)
            member.delivery_id = rng.randbytes(16).hex()
            member.correlation_id = f"correlation-{number:014d}"
            member.traceparent = f"00-{rng.randbytes(16).hex()}-{rng.randbytes(8).hex()}-00"
            member.path = f"/github/repos/acme/repo-{number % 7}/issues/{number}.json"
            by_workspace.setdefault(f"workspace-{number % WORKSPACES:03d}", []).append(fold(member))
        batches: dict[int, shard_pb2.SubBatch] = {}
        for workspace_id, folds in by_workspace.items():
            shard_id = shard_of(workspace_id, SHARDS)
            batch = batches.setdefault(shard_id, shard_pb2.SubBatch(shard_id=shard_id))
            batch.workspaces.add(workspace_id=workspace_id, folds=folds)
        for batch in batches.values():
            batch.sequence = sequences[batch.shard_id] = sequences.get(batch.shard_id, 0) + 1
        messages.append(shard_pb2.ApplyEnvelopesRequest(sub_batches=batches.values()).SerializeToString())
    return messages


async def serve(directory: str) -> None:
    """The node, until its standard input ends. Says its address, then what it used."""
    async with running_node(Path(directory)) as running:
        print(running.address, flush=True)
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.readline()
        before = resource.getrusage(resource.RUSAGE_SELF)
        await reader.readline()
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(
            json.dumps(
                {
                    "user_s": used.ru_utime - before.ru_utime,
                    "system_s": used.ru_stime - before.ru_stime,
                    "commits": running.engine.commit_count,
                    "rss_mb": used.ru_maxrss // 1024,
                }
            ),
            flush=True,
        )


async def load(address: str, messages: list[bytes], changes: int) -> float:
    """Seconds from the first message to the last answer."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/relayfile.v1.ShardService/ApplyEnvelopes",
            request_serializer=lambda raw: raw,
            response_deserializer=shard_pb2.ApplyEnvelopesResponse.FromString,
        )()
        hello = shard_pb2.ApplyEnvelopesRequest()
        hello.hello.session_id, hello.hello.ingest_id = "bench", "bench"
        await call.write(hello.SerializeToString())
        await call.read()
        started = time.perf_counter()
        in_flight = 0
        window = asyncio.Event()

        async def send() -> None:
            nonlocal in_flight
            for message in messages:
                while in_flight >= 12 * CHANGES_PER_MESSAGE:
                    window.clear()
                    await window.wait()
                in_flight += CHANGES_PER_MESSAGE
                await call.write(message)

        sending = asyncio.ensure_future(send())
        answered = 0
        while answered < changes:
            response = await call.read()
            assert isinstance(response, shard_pb2.ApplyEnvelopesResponse), response
            for ack in response.acks:
                assert not ack.HasField("refusal"), ack.refusal
                answered += len(ack.outcomes)
                in_flight -= len(ack.outcomes)
            window.set()
        await sending
        elapsed = time.perf_counter() - started
        call.cancel()
        return elapsed


def main() -> None:
    if sys.argv[1:2] == ["serve"]:
        profile = cProfile.Profile() if len(sys.argv) > 3 else None
        if profile is not None:
            profile.enable()
        quiet_collector()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(sys.argv[2]))
        if profile is not None:
            profile.disable()
            profile.dump_stats(sys.argv[3])
        return
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else 50_000
    profile_to = sys.argv[sys.argv.index("--profile") + 1 :][:1] if "--profile" in sys.argv else []
    messages = serialised_load(changes)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as directory:
        command = [sys.executable, "-m", "tests.bench.micro_store", "serve", directory, *profile_to]
        node = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert node.stdin is not None
        assert node.stdout is not None
        address = node.stdout.readline().strip()
        node.stdin.write("\n")
        node.stdin.flush()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            elapsed = runner.run(load(address, messages, changes))
        node.stdin.write("\n")
        node.stdin.close()
        used = json.loads(node.stdout.readline())
        node.wait(30)
    cpu_us = (used["user_s"] + used["system_s"]) * 1e6 / changes
    print(
        json.dumps(
            {
                "id": "micro_store",
                "value": round(changes / elapsed),
                "unit": "changes/s",
                "cpu_us_per_change": round(cpu_us, 1),
                "changes_per_commit": round(changes / used["commits"]),
                **used,
            }
        )
    )


if __name__ == "__main__":
    main()
