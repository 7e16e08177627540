"""kill -9 of a real syncd at each of its fault points: nothing half-written is seen, and it ends digest-equal."""

import asyncio
import json
import os
import pathlib
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from relayfile.auth import KeyStore, ServiceCredentials, TokenSigner
from relayfile.clock import SystemClock
from relayfile.v1 import mirror_pb2
from relayfile.v1.mirror_pb2_grpc import MirrorServiceStub
from tests.fakes.mirror import tree_of
from tests.fakes.registry import until
from tests.fakes.store import FakeStore

READY_TIMEOUT_S = 30.0


class Syncd:
    """A syncd process on the fake store, with its data in ``directory``."""

    def __init__(self, directory: pathlib.Path, store_address: str, fault: str = "") -> None:
        self._directory = directory
        self._address_file = directory / "syncd.addr.json"
        self._environment = {
            **os.environ,
            "RELAYFILE_DATA_DIR": str(directory / "data"),
            "RELAYFILE_KEYS_DIR": str(directory / "keys"),
            "RELAYFILE_NODES": store_address,
            "RELAYFILE_SYNCD_ADDRESS": "127.0.0.1:0",
            "RELAYFILE_SYNCD_ADMIN_HTTP_ADDRESS": "127.0.0.1:0",
            "RELAYFILE_SYNCD_ADMIN_GRPC_ADDRESS": "127.0.0.1:0",
            "RELAYFILE_ADDRESS_FILE": str(self._address_file),
            "RELAYFILE_LOG_LEVEL": "warning",
            "RELAYFILE_FAULT": fault,
        }

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.subprocess.Process]:
        self._address_file.unlink(missing_ok=True)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relayfile", "syncd", env=self._environment
        )
        try:
            await until(lambda: self._address_file.exists() or process.returncode is not None, READY_TIMEOUT_S)
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            await process.wait()

    async def add_mirror(self) -> None:
        clock = SystemClock()
        signer = TokenSigner(KeyStore(self._directory / "keys").signing_key(), clock)
        metadata = ServiceCredentials("test", clock, signer=signer).metadata()
        request = mirror_pb2.CreateMirrorRequest(
            workspace_id="acme", directory=str(self._directory / "mirror"), follow=True
        )
        address = json.loads(self._address_file.read_text())["grpc"]
        async with grpc.aio.insecure_channel(address) as channel:
            await MirrorServiceStub(channel).CreateMirror(request, metadata=metadata, timeout=10)


def status(directory: pathlib.Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads((directory / "mirror" / ".relayfile" / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


KILLS = [
    pytest.param("syncd.stage.after_write_before_journal:3", id="written", marks=pytest.mark.full),
    pytest.param("syncd.journal.after_commit:3", id="while-staging"),
    pytest.param("syncd.apply.after_rename_before_journal:1", id="placed"),
    pytest.param("syncd.stage.before_barrier", id="staged", marks=pytest.mark.full),
    pytest.param("syncd.stage.after_barrier_before_rename", id="durable", marks=pytest.mark.full),
    pytest.param("syncd.apply.after_rename_before_journal:2", id="removed", marks=pytest.mark.full),
    pytest.param("syncd.apply.after_rename_before_journal:3", id="replaced", marks=pytest.mark.full),
]


@pytest.mark.parametrize("fault", KILLS)
async def test_a_killed_mirror_ends_exact(tmp_path: pathlib.Path, fault: str) -> None:
    store = FakeStore()
    store.fill({f"/d{index % 3}/{index:05}": f"{index}:".encode() + bytes(2_000) for index in range(4_000)})
    store.put("/top", "1")
    versions = {path: {file.content} for path, file in store.files.items()}
    async with store.served() as address:
        syncd = Syncd(tmp_path, address, fault)
        async with syncd.running() as process:
            await syncd.add_mirror()
            if fault.startswith("syncd.apply") and not fault.endswith(":1"):
                await until(lambda: status(tmp_path).get("state") == "following", READY_TIMEOUT_S)
                store.delete("/d1/00001")
                store.put("/top", "2")
                store.put("/new/file", "3")
                versions |= {"/top": {b"1", b"2"}, "/new/file": {b"3"}}
                await store.notify()
            async with asyncio.timeout(READY_TIMEOUT_S):
                assert await process.wait() == -signal.SIGKILL
        for path, content in tree_of(tmp_path).items():
            assert content in versions[path], f"{path} is half written"
        store.put("/while/dead", "4")
        async with Syncd(tmp_path, address).running():
            await until(
                lambda: (
                    status(tmp_path).get("verdict") == "exact" and status(tmp_path).get("revision") == store.revision
                ),
                READY_TIMEOUT_S,
            )
        assert tree_of(tmp_path) == contents(store)
    if fault.startswith("syncd.journal"):
        assert len(store.exports_after) == 2
        resumed_at = sorted(store.files).index(store.exports_after[1])
        assert resumed_at > 500, "what was staged and journalled is not fetched again"
