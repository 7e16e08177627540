"""A real syncd process on the fake store, to be killed and started again on the same data."""

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

from relayfile.auth import KeyStore, ServiceCredentials, TokenSigner
from relayfile.clock import SystemClock
from relayfile.v1 import mirror_pb2
from relayfile.v1.mirror_pb2_grpc import MirrorServiceStub
from tests.fakes.registry import until

READY_TIMEOUT_S = 60.0


class Syncd:
    """A syncd process on the fake store, with its data in ``directory``."""

    def __init__(self, directory: pathlib.Path, store_address: str, fault: str = "", **settings: str) -> None:
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
            **settings,
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
        request = mirror_pb2.CreateMirrorRequest(
            workspace_id="acme", directory=str(self._directory / "mirror"), follow=True
        )
        async with self._channel() as channel:
            await MirrorServiceStub(channel).CreateMirror(request, metadata=self._metadata(), timeout=10)

    async def approve(self) -> None:
        """Whatever deletes a mirror waits with."""
        async with self._channel() as channel:
            service = MirrorServiceStub(channel)
            answer = await service.ListMirrors(mirror_pb2.ListMirrorsRequest(), metadata=self._metadata(), timeout=10)
            for mirror in answer.mirrors:
                if mirror.halt.delete_plan.plan_id:
                    request = mirror_pb2.ApproveDeletesRequest(
                        mirror_id=mirror.mirror_id,
                        plan_id=mirror.halt.delete_plan.plan_id,
                        decision=mirror_pb2.DELETE_DECISION_APPROVE,
                    )
                    await service.ApproveDeletes(request, metadata=self._metadata(), timeout=10)

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        clock = SystemClock()
        signer = TokenSigner(KeyStore(self._directory / "keys").signing_key(), clock)
        return ServiceCredentials("test", clock, signer=signer).metadata()

    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(json.loads(self._address_file.read_text())["grpc"])


def status(directory: pathlib.Path) -> dict[str, object]:
    """What the mirror shows of itself; empty before it shows anything."""
    try:
        found: dict[str, object] = json.loads((directory / "mirror" / ".relayfile" / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found
