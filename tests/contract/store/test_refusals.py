"""What a refused call leaves behind: nothing that only the cyclic collector frees. Its pauses would stop everybody."""

import gc
from pathlib import Path

import grpc.aio
import pytest

from relayfile.errors import RelayfileError
from relayfile.store.plan.file_write import FileWrite
from relayfile.v1 import file_pb2
from tests.support.store_node import started_nodes


async def test_a_refused_write_leaves_no_cycles(tmp_path: Path) -> None:
    async with started_nodes(tmp_path) as [node]:
        await node.writer.create_workspace("acme")

        async def write(content: bytes) -> None:
            request = file_pb2.WriteFileRequest(workspace_id="acme", path="/a.md", content=content, if_revision=0)
            await node.client.files.WriteFile(request, metadata=node.client.metadata)

        await write(b"first")
        gc.collect()
        gc.disable()
        try:
            for number in range(20):
                with pytest.raises(grpc.aio.AioRpcError):
                    await write(b"%d" % number)
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = [each for each in gc.garbage if isinstance(each, RelayfileError | FileWrite | grpc.aio.AbortError)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert left == []
