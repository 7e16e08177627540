"""One provider at work: a request's facts to envelopes.

Owns applying the rules of a `ProviderDefinition`. Refuses to raise: what cannot be normalised is an envelope with a
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
from relayfile.wire import (
    DELIVERY_ID_BYTES_MAX,
    EVENT_NAME_BYTES_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    OBJECT_ID_BYTES_MAX,
    may_keep_header,
    set_us,
)

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

    def normalise(self, facts: RequestFacts) -> tuple[types_pb2.Envelope, ...]:
        """What the request amounts to, one envelope for each delivery, at least one. Never raises.

        They have delivery id, event, adapter version and changes, or a failure; neither: the rules ignore the delivery.
        ``provider`` is set only where the body says whose objects these are. The rest is for the front.
        """
        if self._definition.form is BodyForm.ENVELOPE:
            return (self._generic(facts),)
        return (self._event(facts),)

    def kept_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The allow-listed ones, to be stored with what cannot be normalised."""
        names = self._definition.delivery.kept_headers
        return {name: headers[name] for name in names if name in headers and may_keep_header(name)}

    def _generic(self, facts: RequestFacts) -> types_pb2.Envelope:
        envelope = read_generic_envelope(facts.body, self._content_bytes_max)
        if isinstance(envelope, Failure):
            return self._failed(self._header_id(facts.headers), "", envelope)
        if not envelope.delivery_id:
            envelope.delivery_id = self._header_id(facts.headers)
        envelope.adapter_version = self.adapter_version
        return envelope

    def _event(self, facts: RequestFacts) -> types_pb2.Envelope:
        source = self._definition.delivery
        delivery_id = self._header_id(facts.headers)
        event = facts.headers.get(source.event_header, "") if source.event_header else ""
        try:
            document = pinned_json.read(self._json_of(facts))
        except pinned_json.NotJson as error:
            return self._failed(delivery_id, _bounded(event), Failure("MALFORMED_JSON", f"the body {error}"))
        if not isinstance(document, dict):
            failure = Failure("UNEXPECTED_SHAPE", "the body is JSON, and no object")
            return self._failed(delivery_id, _bounded(event), failure)
        delivery_id = delivery_id or _bounded(_text(source.id, document), DELIVERY_ID_BYTES_MAX)
        event = event or _text(source.event, document)
        action = _text(source.action, document)
        event_name = _bounded(f"{event}.{action}" if action else event)
        if not event:
            failure = Failure("EVENT_MISSING", "neither the headers nor the body say which event it is")
            return self._failed(delivery_id, event_name, failure)
        envelope = types_pb2.Envelope(
            delivery_id=delivery_id, event_name=event_name, adapter_version=self.adapter_version
        )
        try:
            self._add_change(envelope, event, action, document)
        except Unexpected as error:
            return self._failed(delivery_id, event_name, Failure("UNEXPECTED_SHAPE", f"{event_name}: {error}"))
        except pinned_json.TooLong as error:
            return self._failed(delivery_id, event_name, Failure("TOO_LARGE", f"{event_name}: the file {error}"))
        return envelope

    def _failed(self, delivery_id: str, event_name: str, failure: Failure) -> types_pb2.Envelope:
        return types_pb2.Envelope(
            delivery_id=delivery_id,
            event_name=event_name,
            adapter_version=self.adapter_version,
            failure=types_pb2.Failure(reason=failure.reason, message=_cut(failure.message)),
        )

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

    def _add_change(self, envelope: types_pb2.Envelope, event: str, action: str, document: JsonValue) -> None:
        """Add the change that the first matching rule makes; none: the event is ignored."""
        for rule in self._definition.rules.get(event, ()):
            if rule.condition is not None and not is_truthy(rule.condition(document)):
                continue
            asked = rule.actions.get(action, rule.otherwise)
            if asked is not Action.IGNORE:
                _apply(envelope.changes.add(), rule, asked, document, self._content_bytes_max)
            return


def _apply(
    change: types_pb2.FileChange, rule: Rule, asked: Action, document: JsonValue, content_bytes_max: int
) -> None:
    object_id, path = rule.object_id(document), rule.path(document)
    if object_id is None or path is None:
        raise Unexpected(f"the {'object id' if object_id is None else 'path'} needs a value that is not there")
    if len(object_id.encode()) > OBJECT_ID_BYTES_MAX:
        raise Unexpected(f"the object id is longer than {OBJECT_ID_BYTES_MAX} bytes")
    change.kind = _KINDS[asked]
    change.path = path
    change.provider_object_id = object_id
    if rule.time is not None:
        occurred_us = rule.time_reader(rule.time(document))
        if occurred_us is not None:
            set_us(change.occurred_at, occurred_us)
    if asked is Action.UPSERT or asked is Action.PATCH:
        content = rule.content(document)
        if not isinstance(content, dict):
            raise Unexpected("the content is not an object")
        try:
            change.content = pinned_json.write(content, content_bytes_max)
        except pinned_json.TooLong:
            raise
        except pinned_json.NotJson as error:
            raise Unexpected(str(error)) from None
        change.content_type = JSON_CONTENT_TYPE
        _describe(change, rule, document)


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


def _cut(message: str) -> str:
    return message if len(message) * 4 <= FAILURE_MESSAGE_BYTES_MAX else _bounded(message, FAILURE_MESSAGE_BYTES_MAX)


def _bounded(text: str, bytes_max: int = EVENT_NAME_BYTES_MAX) -> str:
    """What an id or a name from outside may be: printable, and cut at its limit."""
    if text.isascii() and text.isprintable() and len(text) <= bytes_max:
        return text
    printable = "".join(character if character.isprintable() else "?" for character in text[:bytes_max])
    return printable.encode()[:bytes_max].decode(errors="ignore")
