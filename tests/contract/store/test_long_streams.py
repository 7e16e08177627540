"""What long streams cost a node: memory that does not grow with the tree, and a log that does not grow with a stop."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc.aio
import pytest

from relayfile.v1 import file_pb2
from tests.support.store_node import Client, TestNode, started_nodes

W = "acme"
MEMORY_GROWTH_BYTES_MAX = 32 << 20
FIRST_PAGE_CPU_US_MAX = 50_000
"""A page of 1,000 entries takes some milliseconds; a whole tree of 50,000 takes twenty times that."""
WAL_BYTES_MAX = 64 << 20


async def _export(client: Client) -> AsyncIterator[file_pb2.ExportTreeResponse]:
    async def start() -> AsyncIterator[file_pb2.ExportTreeRequest]:
        yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W), have_complete=True)

    async for message in client.files.ExportTree(start(), metadata=client.metadata):
        yield message


def _list(client: Client) -> "grpc.aio.UnaryStreamCall[file_pb2.ListTreeRequest, file_pb2.ListTreeResponse]":
    return client.files.ListTree(file_pb2.ListTreeRequest(workspace_id=W), metadata=client.metadata)


def _pages(client: Client) -> AsyncIterator[file_pb2.ListTreeResponse]:
    return aiter(_list(client))


async def _fill(node: TestNode, files: int, content: bytes) -> None:
    await node.writer.create_workspace(W)
    node.writer.trees[W].keep_content = False
    for start in range(0, files, 10_000):
        numbers = range(start, min(start + 10_000, files))
        await node.writer.put(
            W, {f"/github/repos/app-{n % 97}/issues/{n:07}.json": b"%d" % n + content for n in numbers}
        )


class _Process:
    """A node in another process."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.store_process", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.where: dict[str, str] = json.loads(self._line())

    def ask(self, line: str) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return int(self._line())

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


@contextmanager
def _process(directory: Path) -> Iterator[_Process]:
    process = _Process(directory)
    try:
        yield process
    finally:
        process.end()


@pytest.mark.alone
@pytest.mark.parametrize("files", [50_000, pytest.param(300_000, marks=[pytest.mark.full, pytest.mark.timeout(240)])])
async def test_memory_does_not_grow_with_the_tree_and_the_first_page_is_quick(tmp_path: Path, files: int) -> None:
    async with started_nodes(tmp_path) as [node]:
        await _fill(node, files, b"x" * 1_000)
    with _process(tmp_path) as process:
        client = Client(process.where["address"], process.where["token"])
        async for _ in _pages(client):
            break  # connected, and every code path warm
        process.ask("mark")
        first_pages = []
        for _ in range(5):
            # What the node computes, not how long it takes: others may have the machine.
            before_us = process.ask("cpu")
            call = _list(client)
            await anext(aiter(call))
            first_pages.append(process.ask("cpu") - before_us)
            call.cancel()
        listed = sum([len(page.entries) async for page in _pages(client)])
        exported = sum([len(message.files) async for message in _export(client)])
        growth = process.ask("peak")
        await client.channel.close()
    assert (listed, exported) == (files, files)
    assert growth <= MEMORY_GROWTH_BYTES_MAX, f"{growth / (1 << 20):.1f} MiB"
    assert min(first_pages) <= FIRST_PAGE_CPU_US_MAX, first_pages


@pytest.mark.timeout(180)
@pytest.mark.parametrize("log_sizes", [2, pytest.param(20, marks=[pytest.mark.full, pytest.mark.timeout(600)])])
async def test_readers_that_stop_under_write_load_do_not_keep_the_log(tmp_path: Path, log_sizes: int) -> None:
    """As much is written as fills a log that only grows so many times, however long that takes."""
    async with started_nodes(tmp_path) as [node]:
        await _fill(node, 20_000, b"x" * 1_000)
        stopped: list[AsyncIterator[object]] = [_pages(node.client), _export(node.client)]
        for call in stopped:
            await anext(call)
        log = node.database.with_name(node.database.name + "-wal")
        largest = written = number = 0
        content = b"y" * 16_000
        while written <= log_sizes * WAL_BYTES_MAX:
            number += 1
            await node.writer.put(W, {f"/load/{n}": b"%d" % number + content for n in range(200)})
            written += 200 * len(content)
            largest = max(largest, log.stat().st_size)
            await asyncio.sleep(0)
        assert largest < WAL_BYTES_MAX, f"{largest / (1 << 20):.1f} MiB"
        pages = stopped[0]
        count = 1_000
        async for page in pages:
            assert isinstance(page, file_pb2.ListTreeResponse)
            count += len(page.entries)
        assert count >= 20_000
