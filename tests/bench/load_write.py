"""Load of `WriteFile`, in a process of its own: `python -m tests.bench.load_write JSON`.

Each caller writes, waits for the answer, and writes again: half of the writes make a file, half edit the last one under
its revision. Requests are serialised from one message, so that the load costs little. Prints one JSON line.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

import uvloop
from grpc import aio

from relayfile.v1 import file_pb2

METHOD = "/relayfile.v1.FileService/WriteFile"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteLoad:
    """What to write."""

    address: str
    token: str
    workspace: str
    writes: int
    callers: int = 100
    content_bytes: int = 1024
    folder: str = "/notes"
    """A top-level directory: of a provider, each write also makes an operation."""
    channels: int = 4


@dataclass(slots=True)
class Written:
    """What happened."""

    acked: int = 0
    failed: int = 0
    started_s: float = 0.0
    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)


async def _caller(channel: aio.Channel, load: WriteLoad, number: int, left: list[int], written: Written) -> None:
    call = channel.unary_unary(
        METHOD,
        request_serializer=file_pb2.WriteFileRequest.SerializeToString,
        response_deserializer=file_pb2.WriteFileResponse.FromString,
    )
    metadata = (("authorization", f"Bearer {load.token}"),)
    filler = b"x" * (load.content_bytes - 40)
    revision, count = 0, 0
    while left[0] > 0:
        left[0] -= 1
        count += 1
        if count % 2:
            revision = 0
        path = f"{load.folder}/teams/team-{number % 10}/caller-{number:04d}-{(count + 1) // 2:06d}.json"
        content = b'{"caller":"%06d","count":"%08d"}' % (number, count) + filler
        request = file_pb2.WriteFileRequest(
            workspace_id=load.workspace, path=path, content=content, if_revision=revision
        )
        started = time.perf_counter()
        try:
            answer = await call(request, metadata=metadata)
        except aio.AioRpcError:
            written.failed += 1
            continue
        written.latencies_ms.append((time.perf_counter() - started) * 1000)
        written.acked += 1
        revision = answer.file.revision


async def send(load: WriteLoad) -> Written:
    """Write it all."""
    written = Written()
    left = [load.writes]
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [aio.insecure_channel(load.address, options=options) for _ in range(load.channels)]
    try:
        for channel in channels:
            await channel.channel_ready()
        written.started_s = time.time()
        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(load.callers):
                group.create_task(_caller(channels[number % load.channels], load, number, left, written))
        written.seconds = time.perf_counter() - start
    finally:
        for channel in channels:
            await channel.close()
    return written


async def main(load: WriteLoad) -> None:
    written = await send(load)
    ordered = sorted(written.latencies_ms) or [0.0]
    print(
        json.dumps(
            {
                "acked": written.acked,
                "failed": written.failed,
                "started_s": written.started_s,
                "seconds": written.seconds,
                "cpu_s": time.process_time(),
                "p50_ms": ordered[len(ordered) // 2],
                "p99_ms": ordered[len(ordered) * 99 // 100],
            }
        )
    )


if __name__ == "__main__":
    uvloop.run(main(WriteLoad(**json.loads(sys.argv[1]))))
