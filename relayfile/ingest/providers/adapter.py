"""One provider at work: a request's facts to deliveries of changes.

Owns applying the rules of a `ProviderDefinition`. Refuses to raise: what cannot be normalised is a delivery with a
failure, which becomes a dead letter with its reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from relayfile import pinned_json
from relayfile.ingest.providers.definition import Action, BodyForm, ProviderDefinition, Rule
from relayfile.ingest.providers.expression import Expression, is_truthy
from relayfile.ingest.providers.generic_envelope import read_generic_envelope
from relayfile.ingest.signature import Scheme
from relayfile.model import Failure
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from relayfile.wire import DELIVERY_ID_BYTES_MAX, EVENT_NAME_BYTES_MAX, OBJECT_ID_BYTES_MAX, may_keep_header, set_us

JSON_CONTENT_TYPE: Final = "application/json"
_FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
_PROPERTY_CHARACTERS_MAX: Final = 1_000
_KINDS: Final = {
    Action.UPSERT: types_pb2.CHANGE_KIND_UPSERT,
    Action.DELETE: types_pb2.CHANGE_KIND_DELETE,
    Action.PATCH: types_pb2.CHANGE_KIND_PATCH,
    Action.SIGNAL: types_pb2.CHANGE_KIND_SIGNAL,
}


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A request that is proven to come from its sender. Header names are in lower case; the body is decompressed."""

    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one delivery amounts to. No changes and no failure: the provider's rules ignore it."""

    delivery_id: str = ""
    """Empty where the provider gives none."""
    event_name: str = ""
    changes: tuple[types_pb2.FileChange, ...] = ()
    failure: Failure | None = None
    provider: str = ""
    """Whose objects these are, where the body says it; empty: the provider of the request."""
    correlation_id: str = ""


class Unexpected(Exception):
    """The event is not shaped as its rule expects; the message says what is missing."""


class Provider:
    """A compiled provider file. Immutable; one serves all requests."""

    def __init__(self, definition: ProviderDefinition, content_bytes_max: int) -> None:
        self._definition = definition
        self._content_bytes_max = content_bytes_max
        self.name: Final = definition.name
        self.adapter_version: Final = f"{definition.name}/{definition.version}"

    @property
    def scheme(self) -> Scheme | None:
        """How it signs; None: only tokens prove its requests."""
        return self._definition.scheme

    @property
    def accepts_token(self) -> bool:
        """Whether a bearer token may stand in for the signature."""
        return self._definition.accepts_token

    def normalise(self, facts: RequestFacts) -> tuple[Delivery, ...]:
        """What the request amounts to; at least one delivery. Never raises."""
        if self._definition.form is BodyForm.ENVELOPE:
            return (self._generic(facts),)
        return (self._event(facts),)

    def kept_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The allow-listed ones, to be stored with what cannot be normalised."""
        names = self._definition.delivery.kept_headers
        return {name: headers[name] for name in names if name in headers and may_keep_header(name)}

    def _generic(self, facts: RequestFacts) -> Delivery:
        delivery_id = self._header_id(facts.headers)
        envelope = read_generic_envelope(facts.body, self._content_bytes_max)
        if isinstance(envelope, Failure):
            return Delivery(delivery_id, failure=envelope)
        return Delivery(
            delivery_id=envelope.delivery_id or delivery_id,
            event_name=envelope.event_name,
            changes=tuple(envelope.changes),
            provider=envelope.provider,
            correlation_id=envelope.correlation_id,
        )

    def _event(self, facts: RequestFacts) -> Delivery:
        source = self._definition.delivery
        delivery_id = self._header_id(facts.headers)
        event = facts.headers.get(source.event_header, "") if source.event_header else ""
        try:
            document = pinned_json.read(self._json_of(facts))
        except pinned_json.NotJson as error:
            return Delivery(delivery_id, _bounded(event), failure=Failure("MALFORMED_JSON", f"the body {error}"))
        if not isinstance(document, dict):
            failure = Failure("UNEXPECTED_SHAPE", "the body is JSON, and no object")
            return Delivery(delivery_id, _bounded(event), failure=failure)
        delivery_id = delivery_id or _bounded(_text(source.id, document), DELIVERY_ID_BYTES_MAX)
        event = event or _text(source.event, document)
        action = _text(source.action, document)
        event_name = _bounded(f"{event}.{action}" if action else event)
        if not event:
            failure = Failure("EVENT_MISSING", "neither the headers nor the body say which event it is")
            return Delivery(delivery_id, event_name, failure=failure)
        try:
            change = self._change(event, action, document)
        except Unexpected as error:
            failure = Failure("UNEXPECTED_SHAPE", f"{event_name}: {error}")
            return Delivery(delivery_id, event_name, failure=failure)
        if change is not None and len(change.content) > self._content_bytes_max:
            failure = Failure(
                "TOO_LARGE",
                f"{event_name}: the file would have {len(change.content)} bytes;"
                f" at most {self._content_bytes_max} are accepted",
            )
            return Delivery(delivery_id, event_name, failure=failure)
        return Delivery(delivery_id, event_name, () if change is None else (change,))

    def _json_of(self, facts: RequestFacts) -> bytes:
        field = self._definition.delivery.form_field
        if not field or not facts.headers.get("content-type", "").startswith(_FORM_CONTENT_TYPE):
            return facts.body
        try:
            values = parse_qs(facts.body.decode(), strict_parsing=True, max_num_fields=16)[field]
        except (ValueError, KeyError):
            raise pinned_json.NotJson(f"is a form without the field {field!r}") from None
        return values[0].encode()

    def _header_id(self, headers: Mapping[str, str]) -> str:
        for name in self._definition.delivery.id_headers:
            if (value := headers.get(name)) is not None:
                return _bounded(value, DELIVERY_ID_BYTES_MAX)
        return ""

    def _change(self, event: str, action: str, document: JsonValue) -> types_pb2.FileChange | None:
        """The change that the first matching rule makes; None: the event is ignored."""
        for rule in self._definition.rules.get(event, ()):
            if rule.condition is not None and not is_truthy(rule.condition(document)):
                continue
            asked = rule.actions.get(action, rule.otherwise)
            return None if asked is Action.IGNORE else _apply(rule, asked, document)
        return None


def _apply(rule: Rule, asked: Action, document: JsonValue) -> types_pb2.FileChange:
    object_id, path = rule.object_id(document), rule.path(document)
    if object_id is None or path is None:
        raise Unexpected(f"the {'object id' if object_id is None else 'path'} needs a value that is not there")
    if len(object_id.encode()) > OBJECT_ID_BYTES_MAX:
        raise Unexpected(f"the object id is longer than {OBJECT_ID_BYTES_MAX} bytes")
    change = types_pb2.FileChange(kind=_KINDS[asked], path=path, provider_object_id=object_id)
    if rule.time is not None:
        occurred_us = rule.time_reader(rule.time(document))
        if occurred_us is not None:
            set_us(change.occurred_at, occurred_us)
    if asked is Action.UPSERT or asked is Action.PATCH:
        content = rule.content(document)
        if not isinstance(content, dict):
            raise Unexpected("the content is not an object")
        try:
            change.content = pinned_json.write(content)
        except pinned_json.NotJson as error:
            raise Unexpected(str(error)) from None
        change.content_type = JSON_CONTENT_TYPE
        _describe(change, rule, document)
    return change


def _describe(change: types_pb2.FileChange, rule: Rule, document: JsonValue) -> None:
    for name, expression in rule.properties:
        value = expression(document)
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int):
            value = str(value)
        if isinstance(value, str) and (text := value.strip()[:_PROPERTY_CHARACTERS_MAX]):
            change.semantics.properties[name] = text
    for relation in rule.relations:
        if (path := relation(document)) is not None:
            change.semantics.relations.append(path)


def _text(expression: Expression | None, document: JsonValue) -> str:
    value = expression(document) if expression is not None else None
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) else ""


def _bounded(text: str, bytes_max: int = EVENT_NAME_BYTES_MAX) -> str:
    """What an id or a name from outside may be: printable, and cut at its limit."""
    if text.isascii() and text.isprintable() and len(text) <= bytes_max:
        return text
    printable = "".join(character if character.isprintable() else "?" for character in text[:bytes_max])
    return printable.encode()[:bytes_max].decode(errors="ignore")
