"""A real server on loopback: stages in order, reflection and health without a token, admin ports, taken ports."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import CollectorRegistry

from relayfile import errors
from relayfile.auth import EVERY_SCOPE, KeyStore, TokenSigner, TokenVerifier, current_principal
from relayfile.clock import SystemClock
from relayfile.errors import StartRefused
from relayfile.interception import current_call, not_served
from relayfile.lifecycle import Lifecycle, Phase
from relayfile.serving import LIVE, AdminPorts, CallPolicy, GrpcServer, Service, channel, write_address_file
from relayfile.settings import StoreSettings, load
from relayfile.status import from_rpc_error
from relayfile.telemetry import RpcInstruments, Tracing
from relayfile.v1 import file_pb2, file_pb2_grpc

SERVICE = "relayfile.v1.FileService"


class Files(file_pb2_grpc.FileServiceServicer):
    """Answers with what the stages told it."""

    async def GetFile(self, request: file_pb2.GetFileRequest, context: Any) -> file_pb2.GetFileResponse:
        if request.path == "/missing":
            raise errors.FileNotFound(path=request.path)
        return file_pb2.GetFileResponse(history_id=f"{current_principal().subject} {current_call().traceparent}")

    async def ExportTree(
        self, request_iterator: AsyncIterator[file_pb2.ExportTreeRequest], context: Any
    ) -> AsyncIterator[file_pb2.ExportTreeResponse]:
        async for _ in request_iterator:
            yield file_pb2.ExportTreeResponse()

    ListTree = BatchGetFiles = ReadFile = ReadFiles = GetTreeDigest = WriteFile = WriteFiles = not_served
    UploadFile = DeleteFile = MoveFile = QueryFiles = not_served


class System:
    """A running server and what is needed to call it."""

    def __init__(self, directory: Path) -> None:
        self.settings = load(StoreSettings, {"RELAYFILE_ADDRESS_FILE": str(directory / "addr.json")})
        keys = KeyStore(directory / "keys")
        self.signer = TokenSigner(keys.signing_key(), SystemClock())
        self.registry = CollectorRegistry()
        policy = CallPolicy(
            verifier=TokenVerifier(keys.public_file, SystemClock()),
            instruments=RpcInstruments.declare(self.registry),
            tracing=Tracing(),
            clock=SystemClock(),
        )
        service = Service(SERVICE, file_pb2_grpc.add_FileServiceServicer_to_server, Files())
        self.server = GrpcServer(self.settings, "127.0.0.1:0", [service], policy)
        self.admin = AdminPorts(
            self.settings,
            http_address="127.0.0.1:0",
            grpc_address="127.0.0.1:0",
            registry=self.registry,
            public=self.server,
        )
        self.channel = channel(self.server.address, self.settings)
        self.files: Any = file_pb2_grpc.FileServiceStub(self.channel)

    def token(self, workspaces: str = "acme") -> tuple[tuple[str, str], ...]:
        return (
            (
                "authorization",
                "Bearer " + self.signer.mint("agent", workspaces=workspaces, ttl_s=60, scopes=(EVERY_SCOPE,)),
            ),
        )

    async def get(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        host, _, port = self.admin.http.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(f"GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\nconnection: close\r\n\r\n".encode())
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        return int(head.split()[1]), body


@asynccontextmanager
async def running(directory: Path) -> AsyncIterator[System]:
    system = System(directory)
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(system.admin.http.serve())
        await system.admin.open(system.settings, system.server)
        try:
            yield system
        finally:
            await system.channel.close()
            await system.server.stop(0)
            await system.admin.stop()
            await serving


async def failure(call: Any) -> errors.RelayfileError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_a_call_passes_all_stages(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        request = file_pb2.GetFileRequest(workspace_id="acme", path="/a")
        answer = await system.files.GetFile(request, metadata=system.token())
        subject, traceparent = answer.history_id.split()
        assert subject == "agent"
        assert len(traceparent) == 55

        assert isinstance(await failure(system.files.GetFile(request)), errors.Unauthenticated)
        foreign = await failure(system.files.GetFile(request, metadata=system.token("other")))
        assert isinstance(foreign, errors.PermissionDenied)
        request.path = "/missing"
        missing = await failure(system.files.GetFile(request, metadata=system.token("*")))
        assert isinstance(missing, errors.FileNotFound)
        later = await failure(system.files.MoveFile(file_pb2.MoveFileRequest(), metadata=system.token()))
        assert isinstance(later, errors.ServedLater)
        assert later.rpc == "relayfile.v1.FileService/MoveFile"

        _, metrics = await system.get("/metrics")
        for code in ("OK", "UNAUTHENTICATED", "PERMISSION_DENIED", "NOT_FOUND"):
            assert f'relayfile_rpc_calls_total{{code="{code}",method="FileService/GetFile"}} 1.0' in metrics
        assert 'relayfile_rpc_open{method="FileService/GetFile"} 0.0' in metrics
        _, openmetrics = await system.get(
            "/metrics", accept="application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
        )
        assert openmetrics.endswith("# EOF\n")


async def test_each_message_of_a_stream_is_checked(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        requests = [
            file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id="acme")),
            file_pb2.ExportTreeRequest(have_complete=True),
            file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id="other")),
        ]
        call = system.files.ExportTree(iter(requests), metadata=system.token())
        assert isinstance(await call.read(), file_pb2.ExportTreeResponse)
        assert isinstance(await call.read(), file_pb2.ExportTreeResponse)
        assert isinstance(await failure(call.read()), errors.PermissionDenied)


async def test_reflection_and_health_need_no_token(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(system.channel)  # type: ignore[arg-type]
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        assert SERVICE in {service.name for service in answer.list_services_response.service}
        call.cancel()

        for address in (system.server.address, system.admin.grpc_address):
            async with channel(address, system.settings) as other:
                health: Any = health_pb2_grpc.HealthStub(other)
                states = [
                    (await health.Check(health_pb2.HealthCheckRequest(service=name))).status for name in ("", SERVICE)
                ]
                assert states == [health_pb2.HealthCheckResponse.SERVING] * 2
        await system.server.set_serving(serving=False)
        health = health_pb2_grpc.HealthStub(system.channel)
        state = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE))
        assert state.status == health_pb2.HealthCheckResponse.NOT_SERVING
        # A process that drains is not to be restarted.
        state = await health.Check(health_pb2.HealthCheckRequest(service=LIVE))
        assert state.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_admin_pages(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        assert await system.get("/healthz") == (200, "ok\n")
        assert await system.get("/readyz") == (200, "ready\n")
        system.admin.set_ready(ready=False)
        assert (await system.get("/readyz"))[0] == 503
        assert (await system.get("/other"))[0] == 404


async def test_a_ready_process_tells_where_it_is(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        write_address_file(system.settings, grpc=system.server.address, admin=system.admin)
        told = json.loads((tmp_path / "addr.json").read_text())
        assert told == {
            "grpc": system.server.address,
            "http": "",
            "admin_http": system.admin.http.address,
            "admin_grpc": system.admin.grpc_address,
        }
        assert not any(address.endswith(":0") for address in told.values())


async def test_stopping_says_so_lets_calls_end_and_sends_streams_elsewhere(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        lifecycle = Lifecycle(grace_s=5)
        system.admin.stop_with(lifecycle, system.server)
        seen: list[object] = []
        never = asyncio.Event()

        async def requests() -> AsyncIterator[file_pb2.ExportTreeRequest]:
            yield file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id="acme"))
            await never.wait()

        stream = system.files.ExportTree(requests(), metadata=system.token())
        await stream.read()

        async def while_draining() -> None:
            seen.append((await system.get("/readyz"))[0])
            request = file_pb2.GetFileRequest(workspace_id="acme")
            seen.append(type(await failure(system.files.GetFile(request, metadata=system.token()))))
            seen.append(stream.done())

        lifecycle.on_stop(Phase.DRAIN, "test", while_draining)
        ended = asyncio.ensure_future(failure(stream.read()))
        await lifecycle.stop()
        assert seen == [503, errors.Draining, False]
        assert isinstance(await ended, errors.Draining)


async def test_a_port_that_is_taken_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        from relayfile.serving import HttpListener, bind

        other = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        with pytest.raises(StartRefused, match="cannot listen"):
            bind(other, system.server.address)
        with pytest.raises(StartRefused, match="cannot listen"):
            HttpListener(system.admin._answer, system.admin.http.address)


async def test_an_rpc_without_an_entry_stops_the_start(tmp_path: Path) -> None:
    async with running(tmp_path) as system:
        strange = Service("grpc.health.v1.Health", health_pb2_grpc.add_HealthServicer_to_server, object())
        with pytest.raises(StartRefused, match="no entry"):
            GrpcServer(system.settings, "127.0.0.1:0", [strange], None)  # type: ignore[arg-type]
