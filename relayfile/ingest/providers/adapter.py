"""One provider at work: a request's facts to envelopes.

Owns applying the rules of a `ProviderDefinition`, to each element of a body that is a list. Refuses to raise: what
cannot be normalised is an envelope with a failure, which becomes a dead letter with its reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qs

import msgspec

from relayfile import pinned_json
from relayfile.ingest.providers.definition import (
    Action,
    BodyForm,
    Challenge,
    Handshake,
    ProviderDefinition,
    Rule,
    Unexpected,
)
from relayfile.ingest.providers.expression import Expression, is_truthy
from relayfile.ingest.providers.generic_envelope import read_generic_envelope
from relayfile.ingest.webhooks.signature import Scheme
from relayfile.model import Failure
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from relayfile.wire import (
    CHANGES_MAX,
    DELIVERY_ID_BYTES_MAX,
    EVENT_NAME_BYTES_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    OBJECT_ID_BYTES_MAX,
    set_us,
)

JSON_CONTENT_TYPE: Final = "application/json"
ITEMS_MAX: Final = 10_000
"""Deliveries of one body. One with more is one dead letter."""
_FORM_CONTENT_TYPE: Final = "application/x-www-form-urlencoded"
_PROPERTY_CHARACTERS_MAX: Final = 1_000
_KINDS: Final = {
    Action.UPSERT: types_pb2.CHANGE_KIND_UPSERT,
    Action.DELETE: types_pb2.CHANGE_KIND_DELETE,
    Action.PATCH: types_pb2.CHANGE_KIND_PATCH,
    Action.SIGNAL: types_pb2.CHANGE_KIND_SIGNAL,
}


class RequestFacts(NamedTuple):
    """A request that is proven to come from its sender. Header names are in lower case; the body is decompressed."""

    headers: Mapping[str, str]
    body: bytes


class Reading(NamedTuple):
    """A request, decoded once."""

    headers: Mapping[str, str]
    """The kept ones: nothing else of a request's head counts, so that a dead letter can be normalised again."""
    body: bytes
    document: JsonValue = None
    """What the body holds; None for a generic envelope, and with a failure."""
    failure: Failure | None = None


class Delivery(NamedTuple):
    """One delivery of a request."""

    envelope: types_pb2.Envelope
    """Delivery id, event, adapter version and changes, or a failure; neither: the rules ignore it. ``provider`` is set
    only where the body says whose objects these are. The rest is for the front."""
    document: JsonValue
    """The event as the provider wrote it: the body, or its element. None where there is no JSON."""
    raw: bytes
    """Of a failed one the body to keep: the whole, or where it is one of several a body with it alone, written anew.
    `normalise` makes the same one delivery of it."""


class Provider:
    """A compiled provider file. Immutable; one serves all requests."""

    def __init__(self, definition: ProviderDefinition, content_bytes_max: int) -> None:
        self.definition: Final = definition
        self._content_bytes_max = content_bytes_max
        self.name: Final = definition.name
        self.adapter_version: Final = f"{definition.name}/{definition.version}"

    @property
    def scheme(self) -> Scheme | None:
        """How it signs first of all; None: only tokens prove its requests."""
        schemes = self.definition.proof.schemes
        return schemes[0] if schemes else None

    @property
    def accepts_token(self) -> bool:
        """Whether a bearer token may stand in for the signature."""
        return self.definition.proof.accepts_token

    @property
    def handshake(self) -> Handshake | None:
        """How it hands over the secret with which it will sign; None: the secret is configured."""
        return self.definition.proof.handshake

    def scheme_for(self, headers: Mapping[str, str]) -> Scheme | None:
        """The one that decides: the first whose header is there. None: the request is not signed."""
        for scheme in self.definition.proof.schemes:
            if scheme.header in headers:
                return scheme
        return None

    def handshake_secret(self, facts: RequestFacts) -> str:
        """The secret that an unsigned handshake brings; empty: it is none. Never raises."""
        handshake = self.handshake
        if handshake is None:
            return ""
        if handshake.secret is None:
            return facts.headers.get(handshake.header, "")
        try:
            return _text(handshake.secret, pinned_json.read(facts.body))
        except pinned_json.NotJson:
            return ""

    def read(self, facts: RequestFacts) -> Reading:
        """Decode a request. Never raises."""
        headers = self.kept_headers(facts.headers)
        if self.definition.form is BodyForm.ENVELOPE:
            return Reading(headers, facts.body)
        try:
            return Reading(headers, facts.body, pinned_json.read(self._json_of(headers, facts.body)))
        except pinned_json.NotJson as error:
            return Reading(headers, facts.body, failure=Failure("MALFORMED_JSON", f"the body {error}"))

    def challenge_answer(self, reading: Reading) -> JsonValue:
        """What a signed challenge is to be answered with, a text or an object; None: it is no challenge."""
        challenge: Challenge | None = self.definition.proof.challenge
        if challenge is None or self._event_of(reading.headers, reading.document)[0] not in challenge.events:
            return None
        answer = challenge.answer(reading.document)
        return answer if answer and isinstance(answer, str | dict) else None

    def normalise(self, facts: RequestFacts) -> tuple[Delivery, ...]:
        """What the request amounts to: at least one delivery. Never raises. The kept headers suffice."""
        return tuple(self.deliveries(self.read(facts)))

    def deliveries(self, reading: Reading) -> Iterator[Delivery]:
        """`normalise`, one after the other: some 20 us each, and there may be 10,000."""
        document, steps = reading.document, self.definition.delivery.items
        if self.definition.form is BodyForm.ENVELOPE:
            yield self._whole(reading, self._generic(reading))
        elif reading.failure is not None:
            yield self._whole(reading, self._failed_unread(reading, reading.failure))
        elif steps is None:
            yield self._whole(reading, self._event(reading.headers, document))
        else:
            elements = _elements(document, steps)
            if isinstance(elements, Failure):
                yield self._whole(reading, self._failed_unread(reading, elements))
            elif not elements:
                yield self._whole(reading, types_pb2.Envelope(adapter_version=self.adapter_version))
            else:
                for element in elements:
                    delivery = Delivery(self._event(reading.headers, element), element, b"")
                    failed = delivery.envelope.HasField("failure")
                    yield delivery._replace(raw=self.raw_of(delivery, reading)) if failed else delivery

    def kept_headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """The allow-listed ones, to be stored with what cannot be normalised."""
        return {name: headers[name] for name in self.definition.delivery.kept_headers if name in headers}

    def raw_of(self, delivery: Delivery, reading: Reading) -> bytes:
        """The body to keep of a delivery that fails, here or after this."""
        steps = self.definition.delivery.items
        return reading.body if steps is None else _alone(delivery.document, steps, reading.body)

    def _whole(self, reading: Reading, envelope: types_pb2.Envelope) -> Delivery:
        return Delivery(envelope, reading.document, reading.body if envelope.HasField("failure") else b"")

    def _generic(self, reading: Reading) -> types_pb2.Envelope:
        envelope = read_generic_envelope(reading.body, self._content_bytes_max)
        if isinstance(envelope, Failure):
            return self._failed_unread(reading, envelope)
        if not envelope.delivery_id:
            envelope.delivery_id = self._header_id(reading.headers)
        envelope.adapter_version = self.adapter_version
        return envelope

    def _event(self, headers: Mapping[str, str], element: JsonValue) -> types_pb2.Envelope:
        """The envelope of one event."""
        header_id = self._header_id(headers)
        if not isinstance(element, dict):
            event = _bounded(self._event_of(headers, None)[0])
            return self._failed(header_id, event, Failure("UNEXPECTED_SHAPE", "the event is JSON, and no object"))
        definition = self.definition
        find_id = definition.delivery.id
        found_id = header_id or (_bounded(find_id(element) or "", DELIVERY_ID_BYTES_MAX) if find_id is not None else "")
        named = self._event_of(headers, element)
        event_name = _event_name(*named)
        envelope = types_pb2.Envelope(delivery_id=found_id, event_name=event_name, adapter_version=self.adapter_version)
        try:
            documents = (element,) if definition.shape is None else self._shaped(headers, element)
            if len(documents) > CHANGES_MAX:
                raise Unexpected(f"it amounts to {len(documents)} changes; at most {CHANGES_MAX} are taken")
            for document in documents:
                event, action = named if document is element else self._event_of(headers, document)
                if not event:
                    failure = Failure("EVENT_MISSING", "neither the headers nor the body say which event it is")
                    return self._failed(found_id, event_name, failure)
                if event in definition.lost_events:
                    failure = Failure(
                        "EVENTS_LOST", f"{event_name}: the provider says that it did not send some events"
                    )
                    return self._failed(found_id, event_name, failure)
                self._add_change(envelope, event, action, document)
        except Unexpected as error:
            return self._failed(found_id, event_name, Failure("UNEXPECTED_SHAPE", f"{event_name}: {error}"))
        except pinned_json.TooLong as error:
            return self._failed(found_id, event_name, Failure("TOO_LARGE", f"{event_name}: the file {error}"))
        return envelope

    def _shaped(self, headers: Mapping[str, str], element: JsonValue) -> Sequence[JsonValue]:
        assert self.definition.shape is not None
        try:
            return self.definition.shape(element, headers)
        except Unexpected:
            raise
        except Exception as error:
            raise Unexpected(f"the adapter's function failed: {type(error).__name__}") from error

    def _event_of(self, headers: Mapping[str, str], document: JsonValue) -> tuple[str, str]:
        """Event and action; empty: not said."""
        source = self.definition.delivery
        event = headers.get(source.event_header, "") if source.event_header else ""
        event = event or _text(source.event, document)
        if not source.split:
            return event, _text(source.action, document)
        before, _, last = event.rpartition(source.split)
        return (before, last) if before else (event, "")

    def _failed_unread(self, reading: Reading, failure: Failure) -> types_pb2.Envelope:
        event = _bounded(self._event_of(reading.headers, None)[0])
        return self._failed(self._header_id(reading.headers), event, failure)

    def _failed(self, delivery_id: str, event_name: str, failure: Failure) -> types_pb2.Envelope:
        return types_pb2.Envelope(
            delivery_id=delivery_id,
            event_name=event_name,
            adapter_version=self.adapter_version,
            failure=types_pb2.Failure(reason=failure.reason, message=_cut(failure.message)),
        )

    def _json_of(self, headers: Mapping[str, str], body: bytes) -> bytes:
        field = self.definition.delivery.form_field
        if not field or not headers.get("content-type", "").startswith(_FORM_CONTENT_TYPE):
            return body
        try:
            values = parse_qs(body.decode(), strict_parsing=True, max_num_fields=16)[field]
        except (ValueError, KeyError):
            raise pinned_json.NotJson(f"is a form without the field {field!r}") from None
        return values[0].encode()

    def _header_id(self, headers: Mapping[str, str]) -> str:
        for name in self.definition.delivery.id_headers:
            if (value := headers.get(name)) is not None:
                return _bounded(value, DELIVERY_ID_BYTES_MAX)
        return ""

    def _add_change(self, envelope: types_pb2.Envelope, event: str, action: str, document: JsonValue) -> None:
        """Add the change that the first matching rule makes; none: the event is ignored."""
        for rule in self.definition.rules.get(event, ()):
            if rule.condition is not None and not is_truthy(rule.condition(document)):
                continue
            asked = rule.actions.get(action, rule.otherwise)
            if asked is not Action.IGNORE:
                _apply(envelope.changes.add(), rule, asked, document, self._content_bytes_max)
            return


def _elements(document: JsonValue, steps: tuple[str, ...]) -> list[JsonValue] | Failure:
    """The list of deliveries in a body."""
    for step in steps:
        document = document.get(step) if isinstance(document, dict) else None
    if not isinstance(document, list):
        return Failure("UNEXPECTED_SHAPE", f"the body has no list of events at {'.'.join(steps) or '@'}")
    if len(document) > ITEMS_MAX:
        return Failure("TOO_LARGE", f"the body has {len(document)} events; at most {ITEMS_MAX} are taken")
    return document


def _alone(element: JsonValue, steps: tuple[str, ...], body: bytes) -> bytes:
    """A body of the provider's form with this element only; the whole one where that is not possible, or longer."""
    value: JsonValue = [element]
    for step in reversed(steps):
        value = {step: value}
    try:
        alone = msgspec.json.encode(value)
    except (RecursionError, TypeError, UnicodeEncodeError):
        return body
    return alone if len(alone) < len(body) else body


def _event_name(event: str, action: str) -> str:
    return _bounded(f"{event}.{action}" if action else event)


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
