"""From a validated envelope to a complete one: ids, times, normal paths (D3).

Owns the delivery id of senders that give none, and what tells several changes of one object in one delivery apart.
Refuses to put them together, which only the shard can do, to validate (`relayfile.wire`) and to store.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

from relayfile.model import change_key
from relayfile.paths import normalise
from relayfile.v1 import types_pb2
from relayfile.wire import set_us, to_us

_HASH_HEX_CHARACTERS = 40


class Arrival(NamedTuple):
    """What ingest itself knows about a delivery."""

    received_us: int
    correlation_id: str = ""
    """Empty: the envelope's own, else its id."""
    traceparent: str = ""
    """For an envelope that brings none."""


def complete(envelope: types_pb2.Envelope, arrival: Arrival, new_id: Callable[[], str]) -> None:
    """Fill in what the sender left out, in place."""
    if not envelope.envelope_id:
        envelope.envelope_id = new_id()
    if not envelope.HasField("received_at"):
        set_us(envelope.received_at, arrival.received_us)
    if not envelope.traceparent:
        envelope.traceparent = arrival.traceparent
    if not envelope.correlation_id:
        envelope.correlation_id = arrival.correlation_id or envelope.envelope_id
    changes = envelope.changes
    for change in changes:
        path = change.path
        if path and (path[0] != "/" or path[-1] == "/"):
            change.path = normalise(path)
    if len(changes) > 1:
        _count_repetitions(changes)
    elif changes and changes[0].repetition:
        changes[0].repetition = 0
    if not envelope.delivery_id:
        envelope.delivery_id = _derived_delivery_id(envelope)


def _derived_delivery_id(envelope: types_pb2.Envelope) -> str:
    """A hash of provider, object, time and content when every change carries a provider time, else the envelope id."""
    changes = envelope.changes
    if not changes or not all(change.HasField("occurred_at") for change in changes):
        return envelope.envelope_id
    digest = hashlib.sha256(envelope.provider.encode())
    for index, change in enumerate(changes):
        content = hashlib.sha256(change.content).hexdigest()
        key = change_key(change.provider_object_id, change.path, index)
        digest.update(f"\n{change.kind} {to_us(change.occurred_at)} {content} {key}".encode())
    return "h:" + digest.hexdigest()[:_HASH_HEX_CHARACTERS]


def _count_repetitions(changes: Iterable[types_pb2.FileChange]) -> None:
    """Tell the changes of one object in one delivery apart: each is a change of its own, in this order (D3)."""
    seen: dict[str, int] = {}
    for index, change in enumerate(changes):
        key = change_key(change.provider_object_id, change.path, index)
        before = seen.get(key, 0)
        if change.repetition != before:
            change.repetition = before
        seen[key] = before + 1
