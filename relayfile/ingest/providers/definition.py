"""What a provider file says, compiled: values without behaviour."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from relayfile.ingest.providers.expression import Expression
from relayfile.ingest.providers.provider_time import TimeReader
from relayfile.ingest.providers.template import Template
from relayfile.ingest.webhooks.signature import Scheme
from relayfile.pinned_json import JsonValue

Shape = Callable[[JsonValue, Mapping[str, str]], Sequence[JsonValue]]
"""An adapter's own pure function: from one element and the kept headers to the documents that the rules are applied to.
Each makes at most one change; all of them are of one delivery. `Unexpected` when the element is not what it must be."""


class Unexpected(Exception):
    """The event is not shaped as its rule expects; the message says what is missing."""


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
    id: Template | None
    """The delivery id in the body, where no header has it."""
    event_header: str
    event: Expression | None
    action: Expression | None
    split: str
    """What follows it last in an event is the action (`customer.created` by the full stop); empty: nothing does."""
    form_field: str
    """The field that holds the JSON when the body is a form."""
    kept_headers: tuple[str, ...]
    """Stored with a delivery that cannot be normalised, and all that normalising sees of a request's head."""
    items: tuple[str, ...] | None
    """Members on the way to a list, of which each element is a delivery of its own; empty: the body is the list."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """A signed question by which a provider finds out who listens; the answer is all that becomes of it."""

    events: frozenset[str]
    answer: Expression
    """A text is answered as such, an object as JSON."""


@dataclass(frozen=True, slots=True)
class Handshake:
    """An unsigned request that brings the secret with which the provider will sign. Exactly one of the two is set."""

    header: str
    """Carries the secret, and takes it back in the answer. In lower case."""
    secret: Expression | None
    """Finds the secret in the body."""


@dataclass(frozen=True, slots=True)
class Proof:
    """How a request shows that it comes from its sender."""

    schemes: tuple[Scheme, ...]
    """Of these the first whose header a request has decides alone."""
    accepts_token: bool
    """A bearer token may stand in for the signature."""
    challenge: Challenge | None = None
    handshake: Handshake | None = None
    answers_head: bool = False
    """Before a URL is set up, it is asked by HEAD whether somebody is there: 200, without proof and without effect."""


@dataclass(frozen=True, slots=True)
class ProviderDefinition:
    """One provider."""

    name: str
    title: str
    version: str
    documentation: str
    form: BodyForm
    proof: Proof
    delivery: DeliveryFacts
    shape: Shape | None
    rules: Mapping[str, tuple[Rule, ...]]
    """By event; the first whose condition holds counts."""
    ignored_events: frozenset[str]
    """Events that change no file on purpose. Events that nobody names are ignored too."""
    lost_events: frozenset[str]
    """Events by which the provider says that it dropped others: they become dead letters that an operator sees."""
