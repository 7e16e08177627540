"""What is planned: folds of changes, one workspace at a time. Pure values, made at the edge by `relayfile.wire`."""

from typing import NamedTuple

from relayfile.model import Failure, MemberKind, RawDelivery, Semantics


class Member(NamedTuple):
    """One change of one delivery."""

    kind: MemberKind
    envelope_id: str
    delivery_id: str
    change_index: int
    path: str
    """Normalised; empty where the object's own path is meant."""
    provider_object_id: str
    received_us: int
    occurred_us: int | None
    """The provider's clock; None when the provider does not say."""
    content: bytes | None
    """None: elided, because another member of the fold wins over this one. Empty for kinds without content."""
    content_type: str
    semantics: Semantics
    correlation_id: str
    traceparent: str
    operation_id: str = ""
    raw: RawDelivery | None = None
    failure: Failure | None = None
    adapter_version: str = ""
    event_name: str = ""


WITHOUT_OBJECT = "n:"
"""A change key that starts so names no object: a delivery that was ignored or could not be normalised."""


class Fold(NamedTuple):
    """Changes of one object in the order in which they arrived; at least one."""

    provider: str
    change_key: str
    members: tuple[Member, ...]
    ingest_id: str = ""
    """The ingest process that sent it: receive times of one process are compared exactly."""
    replay: bool = False
    """Its members are dead letters of the same envelopes, to be planned again; `relayfile.store.plan.letters` settles
    what becomes of these."""


class Entry(NamedTuple):
    """What is planned on one state and committed together: 1 to `commit_changes_max` members of one workspace."""

    workspace_id: str
    folds: tuple[Fold, ...]
