"""A store with a tree of files, and mirrors of it: for the benchmarks of syncd."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from relayfile.v1 import file_pb2, mirror_pb2
from tests.bench.harness import run_load, until_ended
from tests.bench.load_publish import PublishLoad
from tests.support.client import Client

OWN_FOLDER = ".relayfile"
PULL_TIMEOUT_S = 600.0


async def seed_tree(client: Client, workspace_prefix: str, files: int, shape: str = "tree") -> str:
    """Publish a tree of `files` files of about 1 KiB, with paths of `names.SHAPES`; the workspace."""
    load = PublishLoad(
        address=client.ingest_address,
        token=client.token,
        workspace_prefix=workspace_prefix,
        workspaces=1,
        envelopes=files,
        shape=shape,
    )
    workspace = load.workspace(0)
    await client.create_workspace(workspace)
    await run_load(load)
    _, missing = await until_ended(client, {workspace: files}, timeout_s=300)
    assert not missing, f"{missing} of {files} files were not stored"
    return workspace


async def create_mirror(client: Client, workspace: str, directory: Path, *, follow: bool = False) -> str:
    request = mirror_pb2.CreateMirrorRequest(
        workspace_id=workspace, directory=str(directory), follow=follow, read_only=True
    )
    response = await client.mirrors().CreateMirror(request, metadata=client.metadata, timeout=30)
    return response.mirror.mirror_id


async def pull(
    client: Client, mirror_id: str, via: mirror_pb2.PullVia.ValueType = mirror_pb2.PULL_VIA_EXPORT
) -> tuple[mirror_pb2.PullResult, float]:
    """Pull to the end; the result and the seconds it took, barrier included."""
    request = mirror_pb2.PullMirrorRequest(mirror_id=mirror_id, via=via)
    start = time.perf_counter()
    result: mirror_pb2.PullResult | None = None
    async for step in client.mirrors().PullMirror(request, metadata=client.metadata, timeout=PULL_TIMEOUT_S):
        if step.HasField("result"):
            result = step.result
    assert result is not None, "the pull ended without a result"
    return result, time.perf_counter() - start


async def audit(
    client: Client, mirror_id: str, *, repair: bool = False, sweep: bool = False
) -> tuple[mirror_pb2.MirrorAudit, float]:
    """Audit a mirror; what it found and the seconds of the call."""
    request = mirror_pb2.AuditMirrorRequest(mirror_id=mirror_id, repair=repair, sweep=sweep)
    start = time.perf_counter()
    response = await client.mirrors().AuditMirror(request, metadata=client.metadata, timeout=PULL_TIMEOUT_S)
    return response.audit, time.perf_counter() - start


def files_below(directory: Path) -> Iterator[Path]:
    """Every mirrored file; not the mirror's own."""
    for folder, folders, names in os.walk(directory):
        if Path(folder) == directory:
            folders[:] = [name for name in folders if name != OWN_FOLDER]
        yield from (Path(folder, name) for name in names)


def digest_on_disk(directory: Path) -> tuple[int, bytes]:
    """Count and digest (D9) of what is on disk, computed anew from names and bytes."""
    total = count = 0
    for path in files_below(directory):
        name = b"/" + os.fsencode(path.relative_to(directory))
        content = hashlib.sha256(path.read_bytes()).digest()
        total += int.from_bytes(hashlib.sha256(len(name).to_bytes(8, "big") + name + content).digest(), "big")
        count += 1
    return count, (total % (1 << 256)).to_bytes(32, "big")


async def digest_in_store(client: Client, workspace: str) -> tuple[int, bytes]:
    request = file_pb2.GetTreeDigestRequest(workspace_id=workspace)
    response = await client.files().GetTreeDigest(request, metadata=client.metadata, timeout=30)
    return response.directory.totals.file_count, response.directory.totals.digest


def run_and_sync(command: str, target: Path) -> float:
    """Seconds of a shell command followed by `sync -f` of the file system that it wrote to."""
    start = time.perf_counter()
    subprocess.run(["sh", "-c", f"{command} && sync -f {target}"], check=True)
    return time.perf_counter() - start
