"""What ingest costs from `accept` to the settled row, without a front: spool, coalescer, stream, answers.

The store node is a process of its own that reads every sub-batch and answers at once. Prints one JSON line per shape.

python -m tests.bench.micro_ingest [--profile] [envelopes]
"""

import asyncio
import cProfile
import json
import pstats
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter, process_time

import grpc.aio
import uvloop

from relayfile.clock import SystemClock
from relayfile.data_directory import DataDirectory
from relayfile.ids import IdSource
from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.sending.streams import Surroundings
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2
from tests.fakes.answering_node import AnsweringNode

BATCH = 50
CLIENTS = 16
WORKSPACES = 64
CONTENT = b'{"title":"' + b"x" * 1012 + b'"}'
CLOCK = SystemClock()
IDS = IdSource(CLOCK)


def connect(address: str) -> tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]:
    """As the process does, without a token."""
    return grpc.aio.insecure_channel(address, options=[("grpc.max_send_message_length", 8 << 20)]), ()


def envelope(number: int, workspace: int, item: int) -> types_pb2.Envelope:
    """1 KiB for one object, as a provider's adapter makes it."""
    made = types_pb2.Envelope(
        envelope_id=IDS.new_id(),
        workspace_id=f"workspace-{workspace}",
        provider="github",
        delivery_id=f"0b989ba4-242f-11e5-81e1-{number:012x}",
        correlation_id=IDS.new_id(),
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        adapter_version="github/1",
        event_name="issues.edited",
    )
    made.received_at.FromMicroseconds(CLOCK.now_us())
    path = f"/github/repos/octo/hello/issues/{item}.json"
    change = made.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=path, provider_object_id=f"issue/{item}")
    change.content, change.content_type = CONTENT, "application/json"
    change.occurred_at.FromMicroseconds(CLOCK.now_us() - 1_000_000)
    return made


def distinct_mixed(number: int) -> types_pb2.Envelope:
    """Every envelope another object, batches of many workspaces."""
    return envelope(number, number % WORKSPACES, number)


def distinct_alone(number: int) -> types_pb2.Envelope:
    """Every envelope another object, each batch of one workspace."""
    return envelope(number, number // BATCH % WORKSPACES, number)


def hot(number: int) -> types_pb2.Envelope:
    """200 objects in one window."""
    return envelope(number, number % 8, number % 200)


async def measure(shape: str, envelopes: list[types_pb2.Envelope], address: str, *, profiled: bool) -> None:
    """Send everything with a few clients, wait until it is settled, print what it cost."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder, DataDirectory(Path(folder)) as directory:
        settings = IngestSettings(data_dir=directory.path, nodes=(address,))
        around = Surroundings(clock=CLOCK, connect=connect, session_id=IDS.new_id(), ingest_id="b")
        pipeline = Pipeline(settings, directory, around)
        running = asyncio.ensure_future(pipeline.run())
        await asyncio.sleep(0.2)
        # Decoded just before, as a front does: objects that were made long ago would be cold in the processor's caches.
        batches = [
            types_pb2.EnvelopeBatch(envelopes=envelopes[at : at + BATCH]).SerializeToString()
            for at in range(0, len(envelopes), BATCH)
        ]
        total = len(envelopes)
        envelopes.clear()

        async def client() -> None:
            while batches:
                await pipeline.accept(types_pb2.EnvelopeBatch.FromString(batches.pop()).envelopes)

        batches.reverse()
        profile = cProfile.Profile() if profiled else None
        if profile is not None:
            profile.enable()
        started, cpu = perf_counter(), process_time()
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        accepted_s = perf_counter() - started
        while pipeline.pending:  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.005)
        settled_s, cpu = perf_counter() - started, process_time() - cpu
        if profile is not None:
            profile.disable()
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
        spool = pipeline.spool.counters
        detail = {
            "accepted_per_s": round(total / accepted_s),
            "cpu_us": round(cpu * 1e6 / total, 2),
            "transactions": spool.transactions,
            "fsyncs": spool.fsyncs,
            "rows": spool.rows,
            "folds": pipeline.dispatcher.counters.folds,
            "batches": sum(stream.batches_sent for stream in pipeline.streams),
        }
        line = {"id": "micro_ingest", "shape": shape, "value": round(total / settled_s), "unit": "envelopes/s"}
        print(json.dumps({**line, "detail": detail}), flush=True)
        running.cancel()
        await asyncio.wait([running])
        await pipeline.close()


async def serve() -> None:
    """The other process."""
    node = AnsweringNode()
    print(await node.start(), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Run every shape, or be the node."""
    if "--node" in sys.argv:
        uvloop.run(serve())
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    total = numbers[0] if numbers else 100_000
    command = [sys.executable, "-m", "tests.bench.micro_ingest", "--node"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as node:
        try:
            assert node.stdout is not None
            address = node.stdout.readline().strip()
            for make in (distinct_mixed, distinct_alone, hot):
                envelopes = [make(number) for number in range(total)]
                uvloop.run(measure(make.__name__, envelopes, address, profiled="--profile" in sys.argv))
        finally:
            node.kill()


if __name__ == "__main__":
    main()
