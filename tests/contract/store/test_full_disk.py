"""A node whose disk is full under the writes of agents: refused clearly, nothing acknowledged lost, then as before."""

import errno
import os
from pathlib import Path

import grpc.aio
import pytest

from relayfile.errors import RelayfileError, StartRefused, Unavailable
from relayfile.status import from_rpc_error
from relayfile.v1 import admin_pb2, file_pb2
from tests.support.power_cut import Disk
from tests.support.store_node import TestNode, started_nodes

W = "acme"
SIZE = 200_000

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_loop_mount]


async def write(node: TestNode, path: str, content: bytes) -> RelayfileError | None:
    """Why it was refused."""
    request = file_pb2.WriteFileRequest(workspace_id=W, path=path, content=content, force=True)
    try:
        await node.client.files.WriteFile(request, metadata=node.client.metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    return None


async def fill(node: TestNode, prefix: str) -> dict[str, bytes]:
    """Write until it is refused; what was acknowledged."""
    written: dict[str, bytes] = {}
    for number in range(1_000):
        path, content = f"/{prefix}/{number}.bin", os.urandom(SIZE)
        refusal = await write(node, path, content)
        if refusal is not None:
            assert isinstance(refusal, Unavailable), refusal
            return written
        written[path] = content
    raise AssertionError("never full")


async def read(node: TestNode, paths: list[str]) -> dict[str, bytes]:
    found = {}
    for path in paths:
        request = file_pb2.ReadFileRequest(workspace_id=W, path=path)
        messages = [each async for each in node.client.files.ReadFile(request, metadata=node.client.metadata)]
        found[path] = b"".join(each.data for each in messages)
    return found


def occupy(place: Path) -> None:
    """Take what is left, to the last block: closing the node gave the room of its log back."""
    with place.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


async def test_a_full_disk_refuses_writes_and_loses_none(tmp_path: Path) -> None:
    disk = Disk.made(tmp_path, 48 << 20)
    with disk.mounted():
        filler, spare = disk.place / "filler", disk.place / "spare"
        filler.write_bytes(bytes(12 << 20))
        spare.write_bytes(bytes(3 << 20))
        async with started_nodes(disk.place) as [node]:
            await node.writer.create_workspace(W)
            written = await fill(node, "first")
            assert len(written) > 20
            assert await read(node, list(written)) == written, "reads go on"
            for _ in range(5):
                assert isinstance(await write(node, "/more", os.urandom(SIZE)), Unavailable), "and so again"
            filler.unlink()
            again = await fill(node, "second")
            assert len(again) > 5, "without anybody's help"
            written |= again
            assert await read(node, list(written)) == written
        occupy(disk.place / "rest")
        with pytest.raises(StartRefused, match=r"store\.db cannot be written .*full.* make room"):
            async with started_nodes(disk.place):
                pass
        spare.unlink()
        async with started_nodes(disk.place) as [node]:
            assert await read(node, list(written)) == written, "also after a start with little room"
            checks = [check for check in admin_pb2.AuditCheck.values() if check]
            order = admin_pb2.AuditRequest(checks=checks, strict=True)
            messages = [each async for each in node.client.admin.Audit(order, metadata=node.client.metadata)]
            assert messages[-1].result.clean, messages
