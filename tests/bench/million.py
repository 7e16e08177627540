"""A store of 1,000,000 files, built once in a run and used by every benchmark that asks what size costs.

Paths as providers' adapters make them (`names.tree_path`), 1 KiB each, all through `ApplyEnvelopes`, so that every file
has its object, its event and its delivery row. The 20 wide directories lie in the first workspace, 25,000 files each;
the other half of the files is spread over all workspaces. Delivery ids look random, as those of providers do.
"""

import asyncio
import hashlib
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import grpc.aio

from relayfile.placement import shard_of
from relayfile.v1 import shard_pb2
from tests.bench.harness import Bench
from tests.bench.load_publish import content_of
from tests.bench.names import tree_path
from tests.support.system import started_system
from tests.support.tokens import mint

FILES = 1_000_000
QUICK_FILES = 100_000
WORKSPACES = 64
CONTENT_BYTES = 1024
MESSAGE_FILES = 800
BASE_US = 1_760_000_000_000_000
_BUILT = "built"


@dataclass(frozen=True, slots=True)
class Million:
    """Where it is."""

    root: Path
    """The data of a system with one node; start one on it, or on a copy, with the same layout."""
    files: int
    workspaces: tuple[str, ...]


def workspace_names(prefix: str = "bench-") -> tuple[str, ...]:
    return tuple(f"{prefix}{number:03d}" for number in range(WORKSPACES))


def workspace_of(index: int) -> int:
    """Which workspace file `index` is in."""
    return 0 if index % 2 == 0 else index // 2 % WORKSPACES


async def million(bench: Bench) -> Million:
    """The store, built now or by an earlier benchmark of this run. Nothing runs on it when this returns."""
    files = QUICK_FILES if bench.quick else FILES
    root = (bench.million or bench.folder.parent) / f"million-{files}"
    found = Million(root, files, workspace_names())
    if not (root / _BUILT).exists():
        root.mkdir(parents=True, exist_ok=True)
        async with started_system(root, nodes=1, only=frozenset({"store"})) as system:
            token = mint(system.layout, service="ingest")
            await fill(system.ports.node_addresses[0], token, files)
        (root / _BUILT).touch()
    return found


async def fill(address: str, token: str, files: int) -> None:
    """Send all files as an ingest process would, and return when every one of them has its outcome."""
    names = workspace_names()
    sequences: dict[int, int] = {}
    under_way: deque[int] = deque()
    arrived = asyncio.Event()
    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.stream_stream(
            "/relayfile.v1.ShardService/ApplyEnvelopes",
            request_serializer=shard_pb2.ApplyEnvelopesRequest.SerializeToString,
            response_deserializer=shard_pb2.ApplyEnvelopesResponse.FromString,
        )(metadata=(("authorization", f"Bearer {token}"),))
        hello = shard_pb2.StreamHello(session_id="million", ingest_id="million")
        await call.write(shard_pb2.ApplyEnvelopesRequest(hello=hello))
        await call.read()

        async def answers() -> None:
            ended = 0
            while ended < files:
                response = await call.read()
                assert isinstance(response, shard_pb2.ApplyEnvelopesResponse), response
                for ack in response.acks:
                    assert not ack.HasField("refusal"), ack.refusal
                    ended += len(ack.outcomes)
                    under_way.append(len(ack.outcomes))
                arrived.set()

        reading = asyncio.ensure_future(answers())
        in_flight = 0
        for start in range(0, files, MESSAGE_FILES):
            message = message_of(range(start, min(start + MESSAGE_FILES, files)), names, sequences)
            while in_flight >= 10 * MESSAGE_FILES:
                arrived.clear()
                if not under_way:
                    await arrived.wait()
                while under_way:
                    in_flight -= under_way.popleft()
            in_flight += min(MESSAGE_FILES, files - start)
            await call.write(message)
        await reading
        call.cancel()


def message_of(indexes: range, names: tuple[str, ...], sequences: dict[int, int]) -> shard_pb2.ApplyEnvelopesRequest:
    """The files of these numbers, with a sub-batch for each workspace."""
    by_workspace: dict[int, list[shard_pb2.Fold]] = {}
    for index in indexes:
        by_workspace.setdefault(workspace_of(index), []).append(fold_of(index))
    message = shard_pb2.ApplyEnvelopesRequest()
    for number, folds in by_workspace.items():
        shard_id = shard_of(names[number])
        sequences[shard_id] = sequences.get(shard_id, 0) + 1
        batch = message.sub_batches.add(shard_id=shard_id, sequence=sequences[shard_id])
        batch.workspaces.add(workspace_id=names[number], folds=folds)
    return message


def fold_of(index: int) -> shard_pb2.Fold:
    """One new file."""
    identity = hashlib.md5(b"%d" % index, usedforsecurity=False).hexdigest()
    member = shard_pb2.FoldMember(
        spool_ref=index.to_bytes(12, "big"),
        envelope_id=f"0{identity[:25].upper()}",
        delivery_id=f"{identity[:8]}-{identity[8:12]}-{identity[12:16]}-{identity[16:20]}-{identity[20:]}",
        kind=shard_pb2.MEMBER_KIND_UPSERT,
        path=tree_path(index),
        provider_object_id=f"file/{index}",
        received_unix_us=BASE_US + index,
        occurred_unix_us=BASE_US + index,
        content=content_of(index, 0, CONTENT_BYTES),
        content_type="application/json",
        correlation_id=f"0{identity[:25].upper()}",
        traceparent=f"00-{identity}-{identity[:16]}-00",
    )
    return shard_pb2.Fold(provider="generic", change_key=f"o:file/{index}", members=[member])


def leave_page_cache(root: Path) -> None:
    """Drop what the system keeps of these files in memory: whoever opens them next reads the disk."""
    for folder, _, names in os.walk(root):
        for name in names:
            descriptor = os.open(Path(folder) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)


def store_bytes(root: Path) -> int:
    """Bytes of everything below `root`."""
    return sum((Path(folder) / name).stat().st_size for folder, _, names in os.walk(root) for name in names)
