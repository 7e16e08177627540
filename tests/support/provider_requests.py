"""A good request of every provider of the registry, and a way to sign any body as that provider does.

A provider is here as soon as it is built in: its request is the first of its fixtures that changes a file. Signing is
done with our own `sign`; that providers sign in just that way is what `test_provider_front` shows.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import Scheme, SignedRequest, sign
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import names, request

CONTENT_BYTES_MAX: Final = 50_000
REGISTRY: Final = ProviderRegistry.load(CONTENT_BYTES_MAX)
SECRET: Final = "whsec_c2VjcmV0LW9mLXRoZS1zaG9w"
NOW_S: Final = 1_800_000_000
_LABEL: Final = {
    "action": "created",
    "label": {"id": 7, "name": "bug"},
    "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
}
_WITHOUT_FIXTURES: Final[Mapping[str, tuple[dict[str, str], JsonValue]]] = {
    "github": ({"x-github-event": "label", "x-github-delivery": "d-1"}, _LABEL),  # type: ignore[dict-item]  # nested
    "generic": ({}, {"provider": "crm", "changes": [{"path": "/crm/1.json", "content": {"a": 1}}]}),
}
_JSON_TYPE: Final = {"content-type": "application/json"}


@dataclass(frozen=True)
class Signer:
    """One provider, by one of the schemes with which it signs."""

    provider: Provider
    scheme: Scheme
    headers: Mapping[str, str]
    """Without those of the proof."""
    document: JsonValue
    """With one event, where it has a list of them."""
    now_s: int
    """When the request was sent."""
    message_id: str = "m-1"
    """Where that is signed, too."""

    @property
    def name(self) -> str:
        return f"{self.provider.name}-{self.scheme.header}"

    @property
    def body(self) -> bytes:
        return json.dumps(self.document).encode()

    @property
    def is_timed(self) -> bool:
        """Whether an old request is known by its time."""
        return self.scheme.is_timed or self.scheme.body_time is not None

    @property
    def events(self) -> list[JsonValue] | None:
        """Those of a body that is a list of them, or has one."""
        steps, found = self.provider.definition.delivery.items, self.document
        for step in steps or ():
            assert isinstance(found, dict)
            found = found[step]
        return found if steps is not None and isinstance(found, list) else None

    def with_events(self, events: list[JsonValue]) -> JsonValue:
        """The document with other ones."""
        value: JsonValue = events
        for step in reversed(self.provider.definition.delivery.items or ()):
            value = {step: value}
        return value

    def signed(self, body: bytes, url: str, *, secret: str = SECRET, also: Mapping[str, str] = {}) -> dict[str, str]:
        """All headers with which ``body`` is sent to ``url``."""
        scheme, headers = self.scheme, {**_JSON_TYPE, **self.headers, **also}
        if scheme.is_token:
            return {**headers, scheme.header: secret}
        timestamp = str(round(self.now_s / scheme.timestamp_unit_s)) if scheme.is_timed else ""
        if scheme.timestamp_header:
            headers[scheme.timestamp_header] = timestamp
        if scheme.id_header:
            headers[scheme.id_header] = self.message_id
        return {**headers, scheme.header: sign(scheme, SignedRequest(headers, body, "POST", url), secret, timestamp)}


def every_signer() -> list[Signer]:
    """One for each scheme of each built-in provider."""
    return [
        _signer(provider, scheme)
        for _, provider in sorted(REGISTRY.items())
        for scheme in provider.definition.proof.schemes
    ]


def _signer(provider: Provider, scheme: Scheme) -> Signer:
    facts = _good(provider)
    of_the_proof = {
        name
        for each in provider.definition.proof.schemes
        for name in (each.header, each.timestamp_header, each.id_header)
    }
    document: JsonValue = json.loads(facts.body)
    now_s = NOW_S
    if scheme.body_time is not None:
        sent = scheme.body_time(document)
        assert isinstance(sent, int), f"the fixture of {provider.name} does not say when it was sent"
        now_s = round(sent * scheme.timestamp_unit_s)
    headers = {name: value for name, value in facts.headers.items() if name not in of_the_proof}
    signer = Signer(provider, scheme, headers, document, now_s)
    return signer if signer.events is None else replace(signer, document=signer.with_events(signer.events[:1]))


def _good(provider: Provider) -> RequestFacts:
    if provider.name in _WITHOUT_FIXTURES:
        headers, document = _WITHOUT_FIXTURES[provider.name]
        return RequestFacts(headers, json.dumps(document).encode())
    for name in names(provider.name):
        facts = request(provider.name, name)
        if all(delivery.envelope.changes for delivery in provider.normalise(facts)):
            return facts
    raise AssertionError(f"no fixture of {provider.name} changes a file: tests/fixtures/providers")
