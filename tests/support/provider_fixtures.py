"""Requests of providers for tests: read from `tests/fixtures/providers`, and what an adapter makes of them as values.

A fixture is `{"headers": {...}, "body": ...}`. What is expected of it is written in the tests by hand.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, verify
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2

UPSERT: Final = "upsert"
DELETE: Final = "delete"
PATCH: Final = "patch"
SIGNAL: Final = "signal"
_FIXTURES: Final = Path(__file__).parents[1] / "fixtures" / "providers"
_KINDS: Final = {
    types_pb2.CHANGE_KIND_UPSERT: UPSERT,
    types_pb2.CHANGE_KIND_DELETE: DELETE,
    types_pb2.CHANGE_KIND_PATCH: PATCH,
    types_pb2.CHANGE_KIND_SIGNAL: SIGNAL,
}


class Made(NamedTuple):
    """One change, as a test writes it."""

    kind: str
    path: str
    object_id: str
    time: str | None = None
    """RFC 3339 in UTC."""
    content: JsonValue = None
    """Decoded; None: the change has none."""
    properties: Mapping[str, str] = {}
    relations: Sequence[str] = ()


class Outcome(NamedTuple):
    """One delivery, as a test writes it: without changes and failure it is ignored."""

    delivery_id: str
    event: str
    changes: Sequence[Made] = ()
    failure: str = ""


def names(provider: str) -> list[str]:
    """The fixtures of ``provider``, without `.json`."""
    return sorted(path.stem for path in (_FIXTURES / provider).glob("*.json"))


def request(provider: str, name: str) -> RequestFacts:
    """The fixture as ingest sees it after the proof."""
    fixture = json.loads((_FIXTURES / provider / f"{name}.json").read_bytes())
    headers = {header.lower(): value for header, value in fixture["headers"].items()}
    return RequestFacts(headers, json.dumps(fixture["body"]).encode())


def outcomes(provider: Provider, facts: RequestFacts) -> list[Outcome]:
    """What ``provider`` makes of a request."""
    return [_outcome(delivery.envelope) for delivery in provider.normalise(facts)]


def outcome(provider: Provider, name: str) -> Outcome:
    """What ``provider`` makes of its fixture ``name``, which is one delivery."""
    (only,) = outcomes(provider, request(provider.name, name))
    return only


def refusal(provider: Provider, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now_s: int = 0) -> str:
    """Why a request is not proven to come from ``provider``; empty: it is."""
    scheme = provider.scheme_for(headers)
    if scheme is None:
        return "SIGNATURE_MISSING"
    try:
        verify(scheme, SignedRequest(headers, body), secrets, now_s * 1_000_000)
    except SignatureRefused as refused:
        return refused.reason
    return ""


def _outcome(envelope: types_pb2.Envelope) -> Outcome:
    return Outcome(
        envelope.delivery_id,
        envelope.event_name,
        [_made(change) for change in envelope.changes] or (),
        envelope.failure.reason,
    )


def _made(change: types_pb2.FileChange) -> Made:
    return Made(
        _KINDS[change.kind],
        change.path,
        change.provider_object_id,
        change.occurred_at.ToJsonString() if change.HasField("occurred_at") else None,
        json.loads(change.content) if change.content else None,
        dict(change.semantics.properties),
        list(change.semantics.relations) or (),
    )
