"""What a provider file says, compiled: values without behaviour."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from relayfile.ingest.providers.expression import Expression
from relayfile.ingest.providers.provider_time import TimeReader
from relayfile.ingest.providers.template import Template
from relayfile.ingest.signature import Scheme


class Action(Enum):
    """What an event does to its object's file."""

    UPSERT = "upsert"
    DELETE = "delete"
    PATCH = "patch"
    SIGNAL = "signal"
    IGNORE = "ignore"


class BodyForm(Enum):
    """What a request's body is."""

    EVENT = "event"
    """The provider's own JSON, turned into changes by rules."""
    ENVELOPE = "envelope"
    """Relayfile's generic envelope: the sender says itself what changes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of object: which events change it, where its file is and what is in it."""

    condition: Expression | None
    """The rule holds only where this is truthy."""
    actions: Mapping[str, Action]
    """By the event's action."""
    otherwise: Action
    """For every other action, and for events without one."""
    object_id: Template
    """`<type>/<id>`."""
    path: Template
    content: Expression
    time: Expression | None
    time_reader: TimeReader
    properties: tuple[tuple[str, Expression], ...]
    relations: tuple[Template, ...]


@dataclass(frozen=True, slots=True)
class DeliveryFacts:
    """Where a request says which delivery and which event it is. Header names are in lower case."""

    id_headers: tuple[str, ...]
    """The first that is present is the delivery id."""
    id: Expression | None
    """The delivery id in the body, where no header has it."""
    event_header: str
    event: Expression | None
    action: Expression | None
    form_field: str
    """The field that holds the JSON when the body is a form."""
    kept_headers: tuple[str, ...]
    """Stored with a delivery that cannot be normalised."""


@dataclass(frozen=True, slots=True)
class ProviderDefinition:
    """One provider."""

    name: str
    version: str
    form: BodyForm
    accepts_token: bool
    """A bearer token may stand in for the signature."""
    scheme: Scheme | None
    delivery: DeliveryFacts
    rules: Mapping[str, tuple[Rule, ...]]
    """By event; the first whose condition holds counts."""
    ignored_events: frozenset[str]
    """Events that change no file on purpose. Events that nobody names are ignored too."""
