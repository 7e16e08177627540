"""What a cut stream leaves behind in the process that sent on it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import pytest
from tenacity import AsyncRetrying

from tests.integration.test_ingest_pipeline import Sender, node, running, settings, settled, until

CUTS = 4


@contextmanager
def resting_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def alive(kind: type) -> int:
    return sum(isinstance(each, kind) for each in gc.get_objects())


@pytest.mark.full
async def test_a_cut_stream_is_freed_without_the_collector(tmp_path: Path) -> None:
    """Each held a channel, a call and their tasks: 50 KB that nobody came by for days."""
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        sender = Sender()

        async def cut() -> None:
            store.faults.cut_before_answer = 1
            await pipeline.accept([sender.envelope()])
            await settled(pipeline)
            await until(lambda: pipeline.streams[0].is_connected)

        await cut()
        kinds = (grpc.aio.Channel, grpc.aio.AioRpcError, grpc.aio.StreamStreamCall, AsyncRetrying)
        with resting_collector():
            before = [alive(kind) for kind in kinds]
            for _ in range(CUTS):
                await cut()
            assert store.streams == CUTS + 2
            assert [alive(kind) for kind in kinds] == before
