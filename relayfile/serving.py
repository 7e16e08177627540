"""What every process listens with: its gRPC server, its HTTP listener, its admin ports, and channels to others.

Owns the order of the stages around a call (telemetry, errors, access), reflection, health per service, and port 0. What
both ends of a connection are told is `connections`. Refuses to know what is served: servicers and ASGI apps are handed
in.
"""

import asyncio
import json
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import grpc
import grpc.aio
import uvicorn
from google.protobuf import descriptor_pool
from grpc_channelz.v1 import channelz
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from relayfile.asgi import AsgiApp, Receive, Scope, Send
from relayfile.auth import RateLimits, Rates, TokenVerifier, auth_stage, rate_stage, require_entries
from relayfile.clock import Clock
from relayfile.connections import channel_arguments, server_arguments
from relayfile.errors import StartRefused
from relayfile.ids import IdSource
from relayfile.interception import CallInterceptor
from relayfile.lifecycle import Lifecycle, Phase
from relayfile.settings import ClusterSettings
from relayfile.status import error_stage
from relayfile.telemetry import RpcInstruments, Tracing, get_logger, telemetry_stage
from relayfile.tls import channel_credentials, server_credentials

_log = get_logger(__name__)

HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
LIVE = "live"
"""Health of this name says only that the process turns, for liveness probes: SERVING from the start of serving to the
end, also while the process drains and whatever is wrong with a store."""
OPEN_SERVICES = frozenset({HEALTH, REFLECTION})
"""Served without a token: they tell what the API is and whether it is up, and nothing of anybody's."""
STREAM_GRACE_S = 2.0
"""How long calls without a streamed answer may take to end once streams are closed."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service to serve: ``Service("relayfile.v1.FileService", add_FileServiceServicer_to_server, servicer)``."""

    name: str
    add: Callable[[Any, Any], None]
    servicer: object

    def methods(self) -> list[str]:
        """Full method names, of all RPCs that the API has."""
        described = descriptor_pool.Default().FindServiceByName(self.name)
        return [f"/{self.name}/{method.name}" for method in described.methods]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPolicy:
    """What surrounds every served call."""

    verifier: TokenVerifier
    instruments: RpcInstruments
    tracing: Tracing
    clock: Clock
    rates: RateLimits = RateLimits()
    service_names: frozenset[str] = frozenset()
    """Names in certificates of the cluster's processes."""

    def interceptor(self) -> CallInterceptor:
        """Telemetry outermost, so that it sees the status; then errors; then access, whose refusals are errors; then
        rates, of those who may."""
        access = auth_stage(self.verifier, self.service_names)
        stages = [telemetry_stage(self.instruments, self.tracing, self.clock), error_stage, access]
        if self.rates:
            stages.append(rate_stage(Rates(self.rates), self.clock))
        return CallInterceptor(stages, IdSource(self.clock).new_id, OPEN_SERVICES)


class HandlersByName:
    """What generated code adds a service to, without registering each of its methods with the core.

    gRPC waits anew on one pending call for every registered method whenever a call arrives (grpc/grpc#43092): with the
    methods of a store node that costs a fifth of a unary call. Handlers are found by name all the same.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """As the server's own."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, object]) -> None:
        """Left out on purpose."""


class GrpcServer:
    """A public gRPC port. Make and use it inside the running loop.

    ``interceptors`` come after the policy: they see only calls that it let through.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        address: str,
        services: Sequence[Service],
        policy: CallPolicy,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        require_entries(method for service in services for method in service.methods())
        self.names = tuple(service.name for service in services)
        self.health = health.aio.HealthServicer()
        self._calls = policy.interceptor()
        self._server = grpc.aio.server(interceptors=[self._calls, *interceptors], options=server_arguments(settings))
        for service in services:
            service.add(service.servicer, HandlersByName(self._server))
        by_name: Any = HandlersByName(self._server)  # as much of a server as adding to one takes
        health_pb2_grpc.add_HealthServicer_to_server(self.health, by_name)
        reflection.enable_server_reflection([*self.names, HEALTH, REFLECTION], by_name)
        self.address = bind(self._server, address, server_credentials(settings))

    async def start(self) -> None:
        """Accept connections; health says NOT_SERVING until ``set_serving``."""
        await self.set_serving(serving=False)
        await self._server.start()

    async def set_serving(self, *, serving: bool) -> None:
        """Health of every service, and of the server as a whole (the empty name)."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self.names):
            await self.health.set(name, state)

    def refuse_new(self) -> None:
        """New calls end as ``Draining``; open ones go on. Health and reflection still answer."""
        self._calls.refuse_new()

    async def stop(self, grace_s: float) -> None:
        """End streamed answers as ``Draining``; other calls have ``grace_s``. Always call it before the loop ends."""
        self._calls.end_streams()
        await self._server.stop(grace_s)


KEEP_ALIVE_S = 75.0
"""How long an HTTP connection may be idle; longer than the load balancers in front of it keep theirs."""


class HttpListener:
    """An ASGI app on a port of this loop (uvicorn with httptools), without uvicorn's own signal handling."""

    def __init__(
        self,
        app: AsgiApp,
        address: str,
        *,
        backlog: int = 2048,
        protocol: Callable[..., asyncio.Protocol] | Literal["httptools"] = "httptools",
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        """``protocol``: what speaks HTTP on a connection, where uvicorn's own is not strict enough."""
        self._socket = _listening(address, backlog)
        self.address = _bound_address(address, self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            http=cast(Any, protocol),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=cast(int, keep_alive_s),
            timeout_graceful_shutdown=None,
            backlog=backlog,
        )
        self._server = uvicorn.Server(config)
        self._begun = False
        self._ended = asyncio.Event()

    async def serve(self) -> None:
        """Serve until ``stop``; run it in a task of the process's group."""
        self._begun = True
        try:
            await self._server._serve([self._socket])  # noqa: SLF001 - serve() would take the process's signal handlers
        finally:
            self._socket.close()
            self._ended.set()

    async def stop(self) -> None:
        """Accept nothing more, let what is being answered end, and return when ``serve`` has."""
        self._server.should_exit = True
        if not self._begun:
            self._socket.close()
            return
        await self._ended.wait()


class AdminPorts:
    """The two ports for operators: HTTP /healthz, /readyz, /metrics; gRPC health in plain text, and channelz."""

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        http_address: str,
        grpc_address: str,
        registry: CollectorRegistry,
        public: GrpcServer,
    ) -> None:
        self.http = HttpListener(self._answer, http_address, backlog=64)
        self._registry = registry
        self._ready = False
        self._server = grpc.aio.server(options=[*server_arguments(settings), ("grpc.enable_channelz", 1)])
        health_pb2_grpc.add_HealthServicer_to_server(public.health, self._server)
        channelz.add_channelz_servicer(self._server)
        self.grpc_address = bind(self._server, grpc_address)

    def set_ready(self, *, ready: bool) -> None:
        """What /readyz says; set it together with the public server's health."""
        self._ready = ready

    def stop_with(self, lifecycle: Lifecycle, public: GrpcServer) -> None:
        """Register how the public server and these ports stop: health first, calls next, streams after the drain."""

        async def not_serving() -> None:
            self.set_ready(ready=False)
            await public.set_serving(serving=False)

        async def refuse_new() -> None:
            public.refuse_new()

        async def close_streams() -> None:
            await public.stop(STREAM_GRACE_S)

        lifecycle.on_stop(Phase.NOT_SERVING, "health", not_serving)
        lifecycle.on_stop(Phase.STOP_ACCEPTING, "new calls", refuse_new)
        lifecycle.on_stop(Phase.CLOSE_STREAMS, "gRPC server", close_streams)
        lifecycle.on_stop(Phase.CLOSE_ENGINE, "admin ports", self.stop)

    async def open(self, settings: ClusterSettings, public: GrpcServer, *, http: str = "") -> None:
        """The last step of a start: accept calls here and at ``public``, say so, and tell the addresses.

        ``http`` is the address of a public HTTP port. ``self.http.serve`` is a task of its own.
        """
        await public.start()
        await public.health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        await public.set_serving(serving=True)
        self.set_ready(ready=True)
        write_address_file(settings, grpc=public.address, http=http, admin=self)
        public_http = {"http": http} if http else {}
        _log.info(
            "serving",
            grpc=public.address,
            **public_http,
            admin_http=self.http.address,
            admin_grpc=self.grpc_address,
        )

    async def stop(self) -> None:
        """Close both ports."""
        await self._server.stop(1.0)
        await self.http.stop()

    async def _answer(self, scope: Scope, _receive: Receive, send: Send) -> None:
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept").decode("latin-1")
        status, content_type, body = self._page(scope["path"], accept)
        headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _page(self, path: str, accept: str) -> tuple[int, bytes, bytes]:
        match path:
            case "/healthz":
                return 200, b"text/plain", b"ok\n"
            case "/readyz":
                return (200, b"text/plain", b"ready\n") if self._ready else (503, b"text/plain", b"not ready\n")
            case "/metrics":
                encode, content_type = choose_encoder(accept)  # OpenMetrics, which has exemplars, for who asks for it
                return 200, content_type.encode(), encode(self._registry)
            case _:
                return 404, b"text/plain", b"/healthz, /readyz or /metrics\n"


def channel(address: str, settings: ClusterSettings, *, ahead_bytes: int = 0) -> grpc.aio.Channel:
    """A channel to one of our processes. It reconnects quickly, and leaves retries of calls to their owner.

    ``ahead_bytes`` may be under way on a stream before it is read, and no more, however far the link; 0: 64 KiB, and
    more where gRPC finds the link far. A message of more than that costs a second round trip. It is also what a stream
    may hold that nobody reads.
    """
    options = channel_arguments(settings, ahead_bytes=ahead_bytes)
    credentials = channel_credentials(settings)
    if credentials is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=options)
    return grpc.aio.secure_channel(address, credentials, options=options)


def bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None = None) -> str:
    """Bind ``server``; returns the address with the port that it got. ``StartRefused`` when it is taken."""
    try:
        if credentials is None or address.startswith("unix:"):
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartRefused(why=f"cannot listen on {address}: {error}") from error
    return _bound_address(address, port)


def _listening(address: str, backlog: int) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        family = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
            listener.listen(backlog)
            listener.setblocking(False)
        except OSError:
            listener.close()
            raise
    except (OSError, ValueError) as error:
        raise StartRefused(why=f"cannot listen on {address}: {error}") from error
    return listener


def _bound_address(address: str, port: int) -> str:
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def write_address_file(settings: ClusterSettings, *, grpc: str, admin: AdminPorts, http: str = "") -> None:
    """Tell where a ready process is bound, in ``RELAYFILE_ADDRESS_FILE`` if that is set; whole or not at all."""
    if settings.address_file is None:
        return
    told = {"grpc": grpc, "http": http, "admin_http": admin.http.address, "admin_grpc": admin.grpc_address}
    draft = settings.address_file.with_name(f".{settings.address_file.name}.draft")
    draft.write_text(json.dumps(told))
    draft.replace(settings.address_file)
