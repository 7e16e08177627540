"""The short way of a webhook that nothing is wrong with: no task, no ASGI, the same steps (D2).

Owns which requests may go it: whole in one read, signed in their head, for a workspace that is known.
Whatever else a request is, or as soon as a step fails, it goes the usual way, which takes the steps again and answers.
Refuses to answer what was not offered to the intake: all refusals but the intake's own are the usual way's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter

from relayfile.errors import AppNotFound, RelayfileError
from relayfile.ingest.delivery import Arrival
from relayfile.ingest.intake import PromptIntake
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.webhooks import http_answer
from relayfile.ingest.webhooks.express_turns import ExpressTurns
from relayfile.ingest.webhooks.http_protocol import Reply
from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, check_body_time, verify
from relayfile.ingest.webhooks.webhook import (
    Reception,
    Route,
    WebhookFront,
    correlation_id_of,
    route_of,
)
from relayfile.ingest.webhooks.webhook_span import begin_express, tell
from relayfile.placement import check_workspace_id
from relayfile.telemetry import SpanHandle, get_logger
from relayfile.telemetry.exemplars import observe

TARGETS_MAX: Final = 10_000
"""URLs that are remembered with what they mean."""
_OF_THE_URL: Final = frozenset({"url", "method"})
_UNDECIDED: Final = SpanHandle("")
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Target:
    """What a URL means."""

    route: Route
    provider: Provider
    path: str
    accepted: Counter
    """Requests of the provider that were accepted."""


class Express:
    """See `http_protocol.Express`."""

    def __init__(self, front: WebhookFront, intake: PromptIntake, reception: Reception) -> None:
        self.front = front
        self.intake = intake
        self.reception = reception
        self.turns = ExpressTurns()
        self._targets: dict[bytes, _Target] = {}

    def take(self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, reply: Reply) -> bool:
        """See `http_protocol.Express.take`."""
        try:
            return self._take(url, headers, body, reply)
        except (SignatureRefused, RelayfileError):
            return False
        except Exception:  # noqa: BLE001 - the usual way meets it again, logs it with an id, and answers
            return False

    def _take(self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, reply: Reply) -> bool:
        reception, target = self.reception, self._targets.get(url) or self._find(url)
        if target is None or not body or len(body) > reception.limits.body_bytes_max:
            return False
        head = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        at, route, provider = reception.at, target.route, target.provider
        scheme = provider.scheme_for(head)
        if scheme is None or "content-encoding" in head or not _OF_THE_URL.isdisjoint(scheme.signed):
            return False
        secrets = reception.access.secrets.of(route.workspace, route.provider)
        if not secrets or not reception.access.workspaces.is_known(route.workspace):
            return False
        at.turns.lone()
        visit = _Visit(self, target, head, len(body), reply)
        now_us, tolerance_s = at.clock.now_us(), reception.limits.signature_tolerance_s
        verify(scheme, SignedRequest(head, body), secrets, now_us, tolerance_s)
        reading = provider.read(RequestFacts(head, body))
        if reading.failure is not None or provider.challenge_answer(reading) is not None:
            return False
        check_body_time(scheme, reading.document, now_us, tolerance_s)
        # Decided only now: what goes the usual way after all is decided on there, and once.
        visit.span = begin_express(at.tracing, head, url)
        arrival = Arrival(at.arrivals.now_us(), correlation_id_of(head), visit.span.traceparent)
        envelopes = [
            self.front.completed(route, provider, reading, delivery, arrival)
            for delivery in provider.deliveries(reading)
        ]
        first = envelopes[0]
        visit.envelope_id, visit.correlation_id = first.envelope_id, first.correlation_id
        reception.room.take(len(body))
        try:
            self.intake.offer(envelopes, visit.done)
        except BaseException:
            reception.room.give_back(len(body))
            raise
        return True

    def _find(self, url: bytes) -> _Target | None:
        if b"%" in url or not url.isascii():
            return None
        try:
            route = route_of(url.decode(), self.reception.access.apps.apps)
        except AppNotFound:
            return None
        provider = self.reception.providers.get(route.provider) if route is not None else None
        if route is None or provider is None:
            return None
        if route.app is None and check_workspace_id(route.workspace) is not None:
            return None
        if provider.definition.delivery.items is not None:
            return None  # a body may hold thousands of deliveries, between which others have their turn
        counter = self.reception.answers(route.provider, 200)
        if len(self._targets) >= TARGETS_MAX:
            self._targets.clear()
        found = self._targets[url] = _Target(route, provider, url.decode(), counter)
        return found


class _Visit:
    """A request that was offered to the intake."""

    __slots__ = (
        "_express", "_headers", "_reply", "_size_bytes", "_started_s", "_target", "correlation_id", "envelope_id",
        "span",
    )  # fmt: skip

    def __init__(
        self, express: Express, target: _Target, headers: Mapping[str, str], size_bytes: int, reply: Reply
    ) -> None:
        self._express = express
        self._target = target
        self._headers = headers
        self._size_bytes = size_bytes
        self._reply = reply
        self._started_s = express.reception.at.clock.monotonic()
        self.span = _UNDECIDED
        self.envelope_id = ""
        self.correlation_id = ""

    def done(self, failure: Exception | None) -> None:
        """The intake's answer becomes the sender's. Does not raise: others wait for theirs."""
        express = self._express
        express.reception.room.give_back(self._size_bytes)
        try:
            if failure is None:
                self._target.accepted.inc()
                at = express.reception.at
                observe(at.instruments.accept_seconds, at.clock.monotonic() - self._started_s, self.span.traceparent)
                answer, correlation_id = http_answer.accepted(self.envelope_id), self.correlation_id
            else:
                answer, correlation_id = self._refusal(failure)
            self._reply(http_answer.head_of(answer, correlation_id), answer.body)
            route = self._target.route
            tell(self.span, "POST", self._target.path, route.workspace, route.provider, answer.status)
            self.span.end()
        except Exception:  # noqa: BLE001 - whatever it is, the next one waits for its answer
            _log.exception("a webhook could not be answered", correlation_id=self.correlation_id)

    def _refusal(self, failure: Exception) -> tuple[http_answer.Answer, str]:
        """The answer and the correlation id with which it is sent: the sender's; for what is our fault, always one."""
        express, route, correlation_id = self._express, self._target.route, correlation_id_of(self._headers)
        if isinstance(failure, RelayfileError):
            answer, reason = http_answer.refusal(failure, correlation_id, closes=False), failure.reason
        else:
            reason, correlation_id = "INTERNAL", self.correlation_id
            _log.error("a webhook request failed", correlation_id=correlation_id, exc_info=failure)
            answer = http_answer.refused(http_answer.UNEXPECTED, reason, correlation_id)
        reception = express.reception
        reception.answers(route.provider, answer.status).inc()
        reception.reject(route, reason, answer.status, self._size_bytes, correlation_id)
        return answer, correlation_id
