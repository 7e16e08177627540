"""The real HTTP front on a real port, with an intake that only remembers: what its tests and its benchmark stand on."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from prometheus_client import CollectorRegistry

from relayfile.auth import KeyStore, TokenSigner, TokenVerifier
from relayfile.clock import ManualClock, SteadyClock
from relayfile.errors import RelayfileError
from relayfile.ids import IdSource
from relayfile.ingest.apps.app_deliveries import AppDeliveries
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.intake import Fate
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.status.rejected import RejectedRequests
from relayfile.ingest.webhooks.express import Express
from relayfile.ingest.webhooks.http_protocol import HttpLimits, bounded_protocol
from relayfile.ingest.webhooks.request_body import BodyRoom
from relayfile.ingest.webhooks.webhook import Access, FrontLimits, FrontSurroundings, Reception, WebhookFront
from relayfile.ingest.webhooks.webhook_secrets import WebhookSecrets
from relayfile.ingest.workspaces import WorkspaceDirectory
from relayfile.serving import HttpListener
from relayfile.settings import ProviderSecrets
from relayfile.settings.apps import parse_apps
from relayfile.telemetry import IngestInstruments, Tracing
from relayfile.v1 import types_pb2

NOW_US = 1_800_000_000_000_000
WORKSPACE = "acme"
SECRETS = (
    ProviderSecrets(WORKSPACE, "github", ("new secret", "old secret")),
    ProviderSecrets(WORKSPACE, "generic", ("whsec_c2VjcmV0",)),
    ProviderSecrets("unborn", "github", ("secret",)),
)


@dataclass
class FakeIntake:
    """Remembers what it accepted; raises ``failure`` instead when one is set."""

    accepted: list[types_pb2.Envelope] = field(default_factory=list)
    failure: Exception | None = None
    delay_s: float = 0.0
    calls: int = 0

    async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
        self.calls += 1
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        self.accepted += envelopes
        return ()

    def offer(self, envelopes: Sequence[types_pb2.Envelope], done: Callable[[Exception | None], None]) -> None:
        self.calls += 1
        if self.failure is None:
            self.accepted += envelopes
        asyncio.get_running_loop().call_later(self.delay_s, done, self.failure)


@dataclass
class FakeStore:
    """Knows workspaces, remembers what was learned, and may be away."""

    existing: set[str] = field(default_factory=lambda: {WORKSPACE, "quiet"})
    away: RelayfileError | None = None
    asked: list[str] = field(default_factory=list)
    learned: list[str] = field(default_factory=list)

    async def exists(self, workspace: str) -> bool:
        self.asked.append(workspace)
        if self.away is not None:
            raise self.away
        return workspace in self.existing

    async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
        self.learned += workspaces


@dataclass
class Front:
    """Everything that a test looks at."""

    address: str
    intake: FakeIntake
    store: FakeStore
    rejected: RejectedRequests
    clock: ManualClock
    signer: TokenSigner
    registry: CollectorRegistry
    stop: Callable[[], Awaitable[None]]
    """Stops the listener, as SIGTERM does."""


def app_deliveries(apps: str, providers: ProviderRegistry, routes: Mapping[str, Mapping[str, str]]) -> AppDeliveries:
    """Apps as the setting says them, with these routes (app to tenant to workspace)."""
    table = RouteTable(100)
    for name, of_app in routes.items():
        for tenant, workspace in of_app.items():
            table.put(name, tenant, workspace)
    return AppDeliveries(Apps.load(parse_apps(apps), providers), table)


@dataclass(frozen=True)
class MadeFront:
    """A front that nothing listens for, and everything that a test looks at."""

    app: WebhookFront
    express: Express
    intake: FakeIntake
    store: FakeStore
    rejected: RejectedRequests
    clock: ManualClock
    signer: TokenSigner
    registry: CollectorRegistry

    def refused(self, status: int, reason: str) -> None:
        """See `http_protocol.Refused`."""
        self.rejected.add(self.clock.now_us(), workspace="", provider="", reason=reason, http_status=status)


def made_front(
    directory: Path,
    *,
    body_bytes_max: int = 100_000,
    bodies_bytes_max: int = 1_000_000,
    creates: bool = False,
    known: Sequence[str] = (),
    providers_dir: Path | None = None,
    public_url: str = "",
    apps: str = "",
    routes: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> MadeFront:
    """A front with files below ``directory``; of ``known`` workspaces it knows from the start that they exist."""
    clock = ManualClock(NOW_US)
    keys = KeyStore(directory / "keys")
    signer = TokenSigner(keys.signing_key(), clock)
    intake, store, rejected, registry = FakeIntake(), FakeStore(), RejectedRequests(100), CollectorRegistry()
    providers, room = ProviderRegistry.load(50_000, providers_dir), BodyRoom(bodies_bytes_max)
    deliveries = app_deliveries(apps, providers, routes)
    front_limits = FrontLimits(body_bytes_max=body_bytes_max, public_url=public_url)
    own = [each.workspace for each in deliveries.apps.values()]
    access = Access(
        secrets=WebhookSecrets(SECRETS, directory / "secrets", clock),
        tokens=TokenVerifier(keys.public_file, clock),
        workspaces=WorkspaceDirectory([*own, *known], store, store, clock, creates=creates),
        apps=deliveries,
    )
    around = FrontSurroundings(
        clock=clock,
        arrivals=SteadyClock(clock),
        ids=IdSource(clock),
        tracing=Tracing(),
        instruments=IngestInstruments.declare(registry),
    )
    reception = Reception(providers, access, front_limits, rejected, room, around)
    app = WebhookFront(intake, reception)
    express = Express(app, intake, reception)
    return MadeFront(app, express, intake, store, rejected, clock, signer, registry)


@asynccontextmanager
async def running_front(
    directory: Path,
    *,
    body_bytes_max: int = 100_000,
    bodies_bytes_max: int = 1_000_000,
    head_bytes_max: int = 8_192,
    request_timeout_s: float = 5.0,
    connections_max: int = 100,
    creates: bool = False,
    providers_dir: Path | None = None,
    public_url: str = "",
    is_prompt: bool = True,
    keep_alive_s: float = 75,
    idle_grace_s: float = 0.0,
    apps: str = "",
    routes: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> AsyncIterator[Front]:
    """A front that listens on a free loopback port."""
    made = made_front(
        directory,
        body_bytes_max=body_bytes_max,
        bodies_bytes_max=bodies_bytes_max,
        creates=creates,
        providers_dir=providers_dir,
        public_url=public_url,
        apps=apps,
        routes=routes,
    )
    limits = HttpLimits(head_bytes_max, request_timeout_s, connections_max, idle_grace_s)
    protocol = bounded_protocol(limits, made.refused, made.express if is_prompt else None)
    listener = HttpListener(made.app, "127.0.0.1:0", protocol=protocol, keep_alive_s=keep_alive_s)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.serve())
        yield Front(
            listener.address,
            made.intake,
            made.store,
            made.rejected,
            made.clock,
            made.signer,
            made.registry,
            listener.stop,
        )
        await listener.stop()


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection, byte by byte in the hands of the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, address: str) -> "Client":
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> Response | None:
        """The next answer; None when the connection ended instead."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:] if line)
        }
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Response(int(lines[0].split()[1]), headers, body)

    async def responses(self) -> AsyncIterator[Response]:
        """All that come until the connection ends."""
        while (response := await self.response()) is not None:
            yield response

    async def is_closed(self) -> bool:
        """Whether the server has nothing more to say; waits for the end of the stream."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


def request_bytes(
    path: str, body: bytes = b"", headers: dict[str, str] | None = None, *, method: str = "POST", length: bool = True
) -> bytes:
    """A request as it goes over the wire."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "host: test",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    if length:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it holds, for a few seconds at most."""
    for _ in range(500):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def ask(address: str, data: bytes) -> Response:
    """Send ``data`` on a new connection and return the answer."""
    client = await Client.connect(address)
    try:
        client.send(data)
        response = await client.response()
        assert response is not None, "the connection ended without an answer"
        return response
    finally:
        await client.close()
