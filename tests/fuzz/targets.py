"""The targets: each takes bytes, and raises when something other than the promised results comes out."""

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from relayfile.errors import DataCorrupted, InvalidArgument
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.generic_envelope import read_generic_envelope
from relayfile.ingest.providers.registry import BUILT_IN, ProviderRegistry
from relayfile.ingest.spool.payload import read_row
from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, verify
from relayfile.model import Failure
from relayfile.paths import check_write_path
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from relayfile.wire import EnvelopeRules, check_envelope
from tests.fuzz.http_target import http

CONTENT_BYTES_MAX: Final = 100_000
RULES: Final = EnvelopeRules(CONTENT_BYTES_MAX, CONTENT_BYTES_MAX)
PROVIDERS: Final = [provider for _, provider in sorted(ProviderRegistry.load(CONTENT_BYTES_MAX).items())]
HEADERS_MAX: Final = 8
DEPTH_MAX: Final = 6


def normalise(data: bytes) -> None:
    """A request of any provider: byte 0 chooses it, byte 1 its event, the rest is the body."""
    if len(data) >= 2:
        _normalise(data[0], data[1], data[2:])


def document(data: bytes) -> None:
    """As `normalise`; the body is JSON, made of the names that the provider's file uses as the bytes decide."""
    if len(data) >= 2:
        words = _words(PROVIDERS[data[0] % len(PROVIDERS)].name)
        _normalise(data[0], data[1], json.dumps(_value(iter(data[2:]), words, DEPTH_MAX)).encode())


def _normalise(choice: int, event: int, body: bytes) -> None:
    provider = PROVIDERS[choice % len(PROVIDERS)]
    for delivery in provider.normalise(RequestFacts(_event_header(provider, event), body)):
        envelope = delivery.envelope
        assert not (envelope.HasField("failure") and envelope.changes), "a failure with changes"
        envelope.workspace_id = "w"
        envelope.provider = envelope.provider or provider.name
        refused = check_envelope(envelope, RULES)
        assert refused is None, refused
        try:
            complete(envelope, Arrival(1), lambda: "id")
        except InvalidArgument:
            continue
        for change in envelope.changes:
            assert not change.path or check_write_path(change.path) is None, change.path


def signature(data: bytes) -> None:
    """A signed request of any provider: byte 0 chooses it, lines up to an empty one are header values."""
    if not data:
        return
    provider = PROVIDERS[data[0] % len(PROVIDERS)]
    head, _, body = data[1:].partition(b"\n\n")
    values = [line.decode("latin-1") for line in head.split(b"\n")[:HEADERS_MAX]]
    for scheme in provider.definition.proof.schemes:
        names = [scheme.header, scheme.timestamp_header, scheme.id_header]
        headers = {name: value for name, value in zip(names, values, strict=False) if name}
        try:
            verify(scheme, SignedRequest(headers, body, "POST", "https://example.com/"), ("secret",), 1)
        except SignatureRefused:
            continue
        raise AssertionError("a signature was guessed")


def generic(data: bytes) -> None:
    """The generic envelope's JSON, as its sender wrote it."""
    found = read_generic_envelope(data, CONTENT_BYTES_MAX)
    if isinstance(found, Failure):
        assert found.reason in ("INVALID_ENVELOPE", "MALFORMED_JSON", "TOO_LARGE"), found.reason
        assert len(found.message.encode()) <= 4_000, "a message without end"
        return
    found.workspace_id = "w"
    assert check_envelope(found, RULES) is None, "not what a service may publish"


def envelope(data: bytes) -> None:
    """What a service publishes."""
    try:
        decoded = types_pb2.Envelope.FromString(data)
    except DecodeError:
        return
    if check_envelope(decoded, RULES) is None:
        try:
            complete(decoded, Arrival(1), lambda: "id")
        except InvalidArgument:
            return
        assert decoded.envelope_id, "not completed"
        assert decoded.delivery_id, "not completed"


def spool_row(data: bytes) -> None:
    """A row of a spool whose disk lost bits."""
    try:
        placed = read_row(1, "w", 1, data)
    except DataCorrupted:
        return
    assert sum(len(each.changes) or 1 for each, _, _ in placed) == 1


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    each.__name__: each for each in (normalise, document, signature, envelope, spool_row, generic, http)
}


def _event_header(provider: Provider, choice: int) -> dict[str, str]:
    definition = provider.definition
    events = sorted(definition.rules)
    if not definition.delivery.event_header or not events:
        return {}
    return {definition.delivery.event_header: events[choice % len(events)]}


@lru_cache
def _words(provider: str) -> list[str]:
    return sorted(set(re.findall(r"[A-Za-z_0-9.:-]+", (BUILT_IN / f"{provider}.toml").read_text())))


def _value(choices: Iterator[int], words: list[str], depth: int) -> JsonValue:
    """A JSON value; null when the bytes are used up."""
    kind = next(choices, 0) % 8
    match kind:
        case 1 | 2 | 3 if depth:
            count = next(choices, 0) % 12
            names = [words[(next(choices, 0) << 8 | next(choices, 0)) % len(words)] for _ in range(count)]
            # As the rules name it: "repository.owner.login" is three objects deep.
            return {name.split(".")[0]: _value(choices, words, depth - 1) for name in names}
        case 4 if depth:
            return [_value(choices, words, depth - 1) for _ in range(next(choices, 0) % 4)]
        case 5:
            return words[(next(choices, 0) << 8 | next(choices, 0)) % len(words)]
        case 6:
            return int.from_bytes(bytes(next(choices, 0) for _ in range(next(choices, 0) % 9)), signed=True)
        case 7:
            return bytes(next(choices, 0) for _ in range(next(choices, 0))).decode("latin-1")
        case _:
            return next(choices, 0) % 2 == 0 or None
