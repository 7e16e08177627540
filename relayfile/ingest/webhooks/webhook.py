"""The public HTTP port: a provider's request to durable envelopes (D1, D2).

Owns the order of the steps and the answer. A request is answered 200 only after `Intake.accept` returned. Refuses to
know providers (their files say how they sign and what they mean) and what becomes of an envelope.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import Counter

from relayfile.asgi import Receive, Scope, Send
from relayfile.auth import PUBLISH_SCOPE, TokenVerifier, authorise_workspace, bearer_token, require_scope
from relayfile.clock import Clock
from relayfile.errors import (
    AppNotFound,
    ProviderNotFound,
    RelayfileError,
    Unauthenticated,
    WorkspaceNotFound,
)
from relayfile.ids import IdSource
from relayfile.ingest.apps.app_deliveries import AppDeliveries, accept_apart
from relayfile.ingest.apps.apps import App, Apps
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.intake import Intake, raise_refusal
from relayfile.ingest.providers.adapter import Delivery, Provider, Reading, RequestFacts
from relayfile.ingest.providers.definition import Handshake
from relayfile.ingest.publishing.turns import Turns
from relayfile.ingest.status.rejected import RejectedRequests
from relayfile.ingest.webhooks import http_answer
from relayfile.ingest.webhooks.http_answer import Answer
from relayfile.ingest.webhooks.http_protocol import REFUSED
from relayfile.ingest.webhooks.request_body import BodyReader, BodyRoom, Disconnected
from relayfile.ingest.webhooks.secret_file import HandshakeRefused
from relayfile.ingest.webhooks.signature import (
    TOLERANCE_DEFAULT_S,
    Scheme,
    SignatureRefused,
    SignedRequest,
    check_body_time,
    verify,
)
from relayfile.ingest.webhooks.webhook_secrets import WebhookSecrets
from relayfile.ingest.webhooks.webhook_span import facts_of, tell
from relayfile.ingest.workspaces import WorkspaceDirectory
from relayfile.pinned_json import JsonValue
from relayfile.placement import check_workspace_id
from relayfile.route_file import TENANT_HEADER
from relayfile.telemetry import IngestInstruments, SpanHandle, Tracing, get_logger
from relayfile.telemetry.exemplars import observe
from relayfile.v1 import types_pb2

GENERIC: Final = "generic"
UNREAD_BYTES_MAX: Final = 1 << 20
"""Of a body that is refused unread so much is taken off the wire, so that the sender sees the answer and no reset."""
UNREAD_WAIT_S: Final = 0.5
STRIDE: Final = 200
"""Deliveries of one body that are normalised in one go, some 5 ms: then others have their turn in the loop."""
_CORRELATION_CHARACTERS_MAX: Final = 128
_METHOD_NOT_ALLOWED: Final = ((b"allow", b"POST"),)
_log = get_logger(__name__)


class SignatureWrong(Unauthenticated):
    """The request is not proven to come from its sender: {why}."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes."""

    workspace: str
    provider: str
    app: App | None = None
    """Of a request for an app: its deliveries go where their routes lead, ``workspace`` is the app's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontLimits:
    """What one request may be."""

    body_bytes_max: int
    signature_tolerance_s: float = TOLERANCE_DEFAULT_S
    """How old or early a signed time may be, where the provider sets no tighter window."""
    public_url: str = ""
    """Base of the URL that providers sign; empty: https and the Host of the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What proves where a request comes from and whether it is wanted."""

    secrets: WebhookSecrets
    tokens: TokenVerifier
    workspaces: WorkspaceDirectory
    """Knows the system workspaces of ``apps``."""
    apps: AppDeliveries


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontSurroundings:
    """What every part of the process shares."""

    clock: Clock
    arrivals: Clock
    """Gives receive times: without a provider's time they say which change of an object is the newer one, so that they
    must not go back when somebody sets the machine's clock. One for all of a process."""
    ids: IdSource
    tracing: Tracing
    instruments: IngestInstruments
    turns: Turns = field(default_factory=Turns)
    """Of what is published; lone webhooks are told to it."""


@dataclass(slots=True)
class _Exchange:
    """One request on its way."""

    headers: Mapping[str, str]
    correlation_id: str
    route: Route | None = None
    body: BodyReader | None = None
    reason: str = ""
    """Why it is refused, for the log of refused requests."""
    is_read: bool = False


class Reception:
    """What both ways of a request share: whom it knows, what it takes, and how what it answered is counted."""

    def __init__(
        self,
        providers: Mapping[str, Provider],
        access: Access,
        limits: FrontLimits,
        rejected: RejectedRequests,
        room: BodyRoom,
        surroundings: FrontSurroundings,
    ) -> None:
        self.providers = providers
        self.access = access
        self.limits = limits
        self.room = room
        self.at = surroundings
        self._rejected = rejected
        self._counters: dict[tuple[str, int], Counter] = {}

    def answers(self, provider: str, status: int) -> Counter:
        """Counts the answers of ``status`` to requests for ``provider``; all that do not exist together."""
        key = (provider if provider in self.providers else "unknown", status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = self.at.instruments.requests_total.labels(key[0], str(status))
        return counter

    def reject(self, route: Route | None, reason: str, status: int, body_bytes: int, correlation_id: str) -> None:
        """Remember a refusal; what is our own fault is none."""
        if status == http_answer.UNEXPECTED:
            return
        route = route or Route("", "")
        self._rejected.add(
            self.at.clock.now_us(),
            workspace=route.workspace,
            provider=route.provider,
            reason=reason,
            http_status=status,
            body_bytes=body_bytes,
            correlation_id=correlation_id,
            is_known_provider=route.provider in self.providers,
        )


class WebhookFront:
    """The ASGI app."""

    def __init__(self, intake: Intake, reception: Reception) -> None:
        self._intake = intake
        self._reception = reception
        self._providers = reception.providers
        self._access = reception.access
        self._limits = reception.limits
        self._at = reception.at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        exchange = _Exchange(headers, correlation_id_of(headers))
        try:
            method, path = scope["method"], scope["path"]
            incoming = headers.get("traceparent", "")
            with self._at.tracing.begin(method, incoming, attributes=facts_of(method, path)) as span:
                try:
                    answer = await self._answer(scope, receive, exchange, span)
                except RelayfileError as error:
                    exchange.reason = error.why if isinstance(error, SignatureWrong) else error.reason
                    answer = http_answer.refusal(error, exchange.correlation_id, closes=not exchange.is_read)
                except Disconnected:
                    if REFUSED not in scope.get("state", {}):
                        exchange.reason = "DISCONNECTED"
                        self._reject(exchange, 0)
                    return
                except Exception:  # noqa: BLE001 - the end of a request: logged with its id, answered 500
                    exchange.correlation_id = exchange.correlation_id or self._at.ids.new_id()
                    _log.exception("a webhook request failed", correlation_id=exchange.correlation_id)
                    exchange.reason = "INTERNAL"
                    answer = http_answer.refused(
                        http_answer.UNEXPECTED, "INTERNAL", exchange.correlation_id, closes=not exchange.is_read
                    )
                route = exchange.route or Route("", "")
                tell(span, method, path, route.workspace, route.provider, answer.status)
            self._reception.answers(route.provider, answer.status).inc()
            if exchange.reason:
                self._reject(exchange, answer.status)
        finally:
            if exchange.body is not None:
                exchange.body.close()
        await http_answer.send_answer(answer, exchange.correlation_id, send, ends=not answer.closes)
        if answer.closes:
            await _discard(receive)
            await send({"type": "http.response.body", "body": b""})

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange, span: SpanHandle) -> Answer:
        route = exchange.route = None if _hides_a_slash(scope) else route_of(scope["path"], self._access.apps.apps)
        if route is None:
            exchange.reason = "NOT_FOUND"
            return http_answer.refused(404, "NOT_FOUND", exchange.correlation_id, closes=_has_body(exchange.headers))
        provider = self._providers.get(route.provider)
        if scope["method"] != "POST":
            if scope["method"] == "HEAD" and provider is not None and provider.definition.proof.answers_head:
                return http_answer.plain("")
            exchange.reason = "METHOD_NOT_ALLOWED"
            return http_answer.refused(
                405,
                "METHOD_NOT_ALLOWED",
                exchange.correlation_id,
                headers=_METHOD_NOT_ALLOWED,
                closes=_has_body(exchange.headers),
            )
        if provider is None:
            raise ProviderNotFound(provider=route.provider[:64])
        if route.app is None and check_workspace_id(route.workspace) is not None:
            raise WorkspaceNotFound(workspace=route.workspace[:128])
        secrets = self._access.secrets.of(route.workspace, route.provider)
        handshake = provider.handshake if provider.scheme_for(exchange.headers) is None else None
        if handshake is not None and self._access.secrets.awaits_handshake(route.workspace, route.provider):
            await self._access.workspaces.admit(route.workspace, has_secret=True)
            raw, body = await self._read(exchange, receive)
            return await self._shake_hands(route, provider, handshake, RequestFacts(exchange.headers, body))
        is_proven = await self._proven_by_head(exchange.headers, route, provider, bool(secrets))
        raw, body = await self._read(exchange, receive)
        started = self._at.clock.monotonic()
        received_us = self._at.arrivals.now_us()
        if handshake is not None and not is_proven and provider.handshake_secret(RequestFacts(exchange.headers, body)):
            raise SignatureWrong(why="HANDSHAKE_NOT_AWAITED")
        scheme = None if is_proven else self._verify(scope, exchange.headers, provider, (raw, body), secrets)
        if not is_proven and not self._access.workspaces.is_known(route.workspace):
            await self._access.workspaces.admit(route.workspace, has_secret=True)
        reading = provider.read(RequestFacts(exchange.headers, body))
        if scheme is not None and reading.failure is None:
            self._check_time(scheme, reading.document)
        challenge = provider.challenge_answer(reading)
        if isinstance(challenge, str | dict):
            return http_answer.plain(challenge)
        arrival = Arrival(received_us, exchange.correlation_id, span.traceparent)
        envelopes = await self._envelopes(route, provider, reading, arrival)
        if route.app is None:
            raise_refusal(await self._intake.accept(envelopes))
        else:
            await accept_apart(self._intake, envelopes)
        observe(self._at.instruments.accept_seconds, self._at.clock.monotonic() - started, span.traceparent)
        exchange.correlation_id = exchange.correlation_id or envelopes[0].correlation_id
        return http_answer.accepted(envelopes[0].envelope_id)

    async def _read(self, exchange: _Exchange, receive: Receive) -> tuple[bytes, bytes]:
        """The body as sent, and as meant; the same object where it is not compressed."""
        exchange.body = BodyReader(self._reception.room, self._limits.body_bytes_max)
        exchange.body.expect(int(exchange.headers.get("content-length", "0")))
        raw = await exchange.body.read(receive)
        exchange.is_read = True
        encoding = exchange.headers.get("content-encoding", "").strip().lower()
        return raw, await exchange.body.decoded(raw, encoding) if encoding else raw

    async def _shake_hands(self, route: Route, provider: Provider, handshake: Handshake, facts: RequestFacts) -> Answer:
        """Take over the secret that an awaited, unsigned request brings, durably, and then answer."""
        secret = provider.handshake_secret(facts)
        if not secret:
            raise SignatureWrong(why="SIGNATURE_MISSING")
        try:
            await self._access.secrets.take_over(route.workspace, route.provider, secret)
        except HandshakeRefused as refused:
            raise SignatureWrong(why=refused.reason) from None
        return http_answer.plain({}, header=(handshake.header, secret) if handshake.header else None)

    async def _proven_by_head(
        self, headers: Mapping[str, str], route: Route, provider: Provider, has_secret: bool
    ) -> bool:
        """Refuse before the body is read what its head decides; whether a token proves the request already."""
        if provider.accepts_token and "authorization" in headers and provider.scheme_for(headers) is None:
            principal = await self._access.tokens.identify(bearer_token(headers["authorization"]))
            authorise_workspace(principal, route.workspace)
            require_scope(principal, PUBLISH_SCOPE)
            await self._access.workspaces.admit(route.workspace, has_secret=has_secret)
            return True
        if not has_secret:
            # Who may not even sign learns whether the workspace exists only as 404 against 401, as with any path.
            await self._access.workspaces.admit(route.workspace, has_secret=False)
            unawaited = provider.handshake is not None and provider.scheme_for(headers) is None
            raise SignatureWrong(why="HANDSHAKE_NOT_AWAITED" if unawaited else "SECRET_MISSING")
        return False

    def _verify(
        self,
        scope: Scope,
        headers: Mapping[str, str],
        provider: Provider,
        bodies: tuple[bytes, bytes],
        secrets: tuple[str, ...],
    ) -> Scheme:
        """By the scheme that decides; of a compressed body, as sent and as meant, senders sign one or the other."""
        scheme = provider.scheme_for(headers)
        if scheme is None:
            raise SignatureWrong(why="SIGNATURE_MISSING")
        raw, body = bodies
        now_us, tolerance_s = self._at.clock.now_us(), self._limits.signature_tolerance_s
        url = signed_url(scope, headers, self._limits.public_url)
        try:
            try:
                verify(scheme, SignedRequest(headers, raw, scope["method"], url), secrets, now_us, tolerance_s)
            except SignatureRefused as refused:
                if raw is body or refused.reason != "SIGNATURE_MISMATCH":
                    raise
                verify(scheme, SignedRequest(headers, body, scope["method"], url), secrets, now_us, tolerance_s)
        except SignatureRefused as refused:
            raise SignatureWrong(why=refused.reason) from None
        return scheme

    def _check_time(self, scheme: Scheme, document: JsonValue) -> None:
        try:
            check_body_time(scheme, document, self._at.clock.now_us(), self._limits.signature_tolerance_s)
        except SignatureRefused as refused:
            raise SignatureWrong(why=refused.reason) from None

    async def _envelopes(
        self, route: Route, provider: Provider, reading: Reading, arrival: Arrival
    ) -> Sequence[types_pb2.Envelope]:
        """Complete ones; the loop has its turn between some hundred of them."""
        envelopes: list[types_pb2.Envelope] = []
        for delivery in provider.deliveries(reading):
            if len(envelopes) % STRIDE == STRIDE - 1:
                await asyncio.sleep(0)
            envelopes.append(self.completed(route, provider, reading, delivery, arrival))
        return envelopes

    def completed(
        self, route: Route, provider: Provider, reading: Reading, delivery: Delivery, arrival: Arrival
    ) -> types_pb2.Envelope:
        """The delivery's envelope as the intake takes it."""
        envelope = delivery.envelope
        if route.app is None:
            envelope.workspace_id, raw, tenant = route.workspace, delivery.raw, ""
        else:
            raw, tenant = self._access.apps.address(route.app, provider, reading, delivery)
        if not envelope.provider:
            envelope.provider = route.provider
        if envelope.HasField("failure"):
            envelope.raw.body = raw
            envelope.raw.headers.update(reading.headers)
            if tenant:
                envelope.raw.headers[TENANT_HEADER] = tenant
        complete(envelope, arrival, self._at.ids.new_id)
        return envelope

    def _reject(self, exchange: _Exchange, status: int) -> None:
        body_bytes = exchange.body.read_bytes if exchange.body is not None else 0
        self._reception.reject(exchange.route, exchange.reason, status, body_bytes, exchange.correlation_id)


def route_of(path: str, apps: Apps) -> Route | None:
    """Where a request to ``path`` goes; None: nowhere. `AppNotFound` for an app that is not configured."""
    match path.split("/"):
        case ["", "v1", "apps", name, "webhooks"] if name:
            app = apps.get(name)
            if app is None:
                raise AppNotFound(app=name[:64])
            return Route(app.workspace, app.provider, app)
        case ["", "v1", "workspaces", workspace, "webhooks", provider] if workspace and provider:
            return Route(workspace, provider)
        case ["", "v1", "workspaces", workspace, "envelopes"] if workspace:
            return Route(workspace, GENERIC)
        case _:
            return None


def _hides_a_slash(scope: Scope) -> bool:
    """Whether the path has other segments than it shows: what guards paths before us would not know it by them."""
    return b"%2f" in scope["raw_path"].lower()


def signed_url(scope: Scope, headers: Mapping[str, str], public_url: str) -> str:
    """The URL as its sender wrote it: below ``public_url``, or without one below https and the Host of the request."""
    url = (public_url or f"https://{headers.get('host', '')}") + scope["raw_path"].decode("latin-1")
    return f"{url}?{scope['query_string'].decode('latin-1')}" if scope["query_string"] else url


def correlation_id_of(headers: Mapping[str, str]) -> str:
    """The sender's correlation id, if it may be shown; else empty."""
    given = headers.get("x-correlation-id", "")
    usable = len(given) <= _CORRELATION_CHARACTERS_MAX and given.isascii() and given.isprintable()
    return given if usable and '"' not in given and "\\" not in given else ""


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


async def _discard(receive: Receive) -> None:
    """Take a part of an unread body off the wire after its answer was sent."""
    taken = 0
    try:
        async with asyncio.timeout(UNREAD_WAIT_S):
            while taken < UNREAD_BYTES_MAX:
                message = await receive()
                taken += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
    except TimeoutError:
        return
