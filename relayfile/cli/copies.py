"""`relayfile backup | restore`: copies of what store nodes hold, and new data directories of them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relayfile.cli.running_system import DATA_DIR

if TYPE_CHECKING:
    from relayfile.cli.connection import Credentials
    from relayfile.v1.admin_pb2 import BackupResult
    from relayfile.v1.admin_pb2_grpc import AdminServiceAsyncStub

COPY = typer.Argument(help="Where the copies go: a directory that is empty or not there.")
REASON = typer.Option("", "--reason", help="Why, for the record of administrative actions.")


def backup(
    to: Path = COPY,
    reason: str = REASON,
    quiet: bool = typer.Option(False, "--quiet", help="Print nothing but the end."),
    data_dir: Path = DATA_DIR,
) -> None:
    """Copy what every store node of a running system holds, verified, into TO/node-I. `relayfile restore` reads it."""
    from relayfile.store.sqlite.restore import require_empty

    require_empty(to)
    asyncio.run(_backup(to, reason, data_dir, quiet=quiet))


async def _backup(to: Path, reason: str, data_dir: Path, *, quiet: bool) -> None:
    from relayfile.cli.connection import connect, open_channel
    from relayfile.v1 import topology_pb2
    from relayfile.v1.admin_pb2_grpc import AdminServiceStub
    from relayfile.v1.topology_pb2_grpc import TopologyServiceStub

    system = connect(data_dir)
    shown = system.credentials
    async with open_channel(system.store) as channel:
        answer = await TopologyServiceStub(channel).GetTopology(topology_pb2.GetTopologyRequest(), metadata=shown)
        topology = answer.topology
        for node in topology.nodes:
            directory = to / f"node-{node.node_index}"
            to.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700)  # it holds everything, as the data directory does
            result = await _copy_node(AdminServiceStub(channel), shown, directory, node.node_index, reason, quiet)
            _describe(directory, result, node.node_index, len(topology.nodes), topology.cluster_id)
            print(
                f"node {node.node_index}: {result.workspace_count} workspaces, {result.size_bytes} bytes,"
                f" sha256 {result.sha256.hex()}"
            )


async def _copy_node(
    stub: "AdminServiceAsyncStub", shown: "Credentials", directory: Path, index: int, reason: str, quiet: bool
) -> "BackupResult":
    """Receive one node's copy, and check it against what the node says of it."""
    import hashlib

    from relayfile.errors import DataCorrupted
    from relayfile.store.sqlite.engine import DATABASE_NAME
    from relayfile.v1 import admin_pb2

    request = admin_pb2.BackupRequest(node_index=index, target=admin_pb2.BACKUP_TARGET_STREAM, reason=reason)
    digest = hashlib.sha256()
    with (directory / DATABASE_NAME).open("wb") as file:
        async for message in stub.Backup(request, metadata=shown):
            match message.WhichOneof("item"):
                case "chunk":
                    digest.update(message.chunk.data)
                    await asyncio.to_thread(file.write, message.chunk.data)
                case "progress" if not quiet:
                    progress = message.progress
                    print(f"node {index}: {progress.step} {progress.done_bytes} of {progress.total_bytes} bytes")
                case "result":
                    if message.result.sha256 != digest.digest():
                        raise DataCorrupted(what=f"what arrived of node {index} is not what it sent")
                    return message.result
    raise DataCorrupted(what=f"the copy of node {index} ended too early")


def _describe(directory: Path, result: "BackupResult", index: int, count: int, cluster_id: str) -> None:
    """Write the manifest, and make all of it durable."""
    from relayfile import __version__
    from relayfile.store.integrity.copy import Manifest
    from relayfile.store.sqlite.backup import write_manifest
    from relayfile.store.sqlite.engine import DATABASE_NAME

    write_manifest(
        directory,
        Manifest(
            backup_id=result.backup_id,
            node_index=index,
            node_count=count,
            cluster_id=cluster_id,
            version=__version__,
            snapshot_us=result.snapshot_time.ToMicroseconds(),
            file_name=DATABASE_NAME,
            size_bytes=result.size_bytes,
            sha256=result.sha256.hex(),
            workspace_count=result.workspace_count,
        ),
    )


def restore(
    copy: Path = typer.Argument(
        help="What `relayfile backup` wrote, or one node's copy.", exists=True, file_okay=False
    ),
    into: Path = typer.Argument(help="The new data directory, empty or not there: of a whole system, or of one node."),
) -> None:
    """Make a data directory of a copy. Every workspace gets a new history: cursors of before are refused."""
    from relayfile.clock import SystemClock
    from relayfile.ids import IdSource
    from relayfile.local.layout import Layout
    from relayfile.store.integrity.copy import MANIFEST_NAME
    from relayfile.store.sqlite.restore import read_manifest, require_empty
    from relayfile.store.sqlite.restore import restore as restore_node

    new_id = IdSource(SystemClock()).new_id
    if (copy / MANIFEST_NAME).exists():
        targets = {copy: into}
    else:
        copies = {read_manifest(each).node_index: each for each in sorted(copy.glob("node-*"))}
        count = read_manifest(next(iter(copies.values()), copy)).node_count
        _require_all(copy, set(copies), count)
        require_empty(into)
        layout = Layout(into)
        layout.create(count)
        targets = {each: layout.data(f"store-{index}") for index, each in copies.items()}
    for source, target in targets.items():
        restored = restore_node(source, target, new_id)
        print(f"{target}: {restored.workspace_count} workspaces, as of {_moment(restored.manifest.snapshot_us)}")


def _require_all(copy: Path, found: set[int], count: int) -> None:
    from relayfile.errors import StartRefused

    missing = sorted(set(range(count)) - found)
    if missing:
        raise StartRefused(why=f"{copy} holds no copy of node {missing[0]}, and the system had {count} nodes")


def _moment(us: int) -> str:
    from relayfile.cli.shown import moment

    return moment(us)
