"""From a validated envelope to a complete one: ids, times, normal paths, and one change for each object (D3).

Owns the delivery id of senders that give none, and what several changes of one object in one delivery amount to: the
effect of applying them one after the other. Refuses to validate (`relayfile.wire`) and to store.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

from relayfile import pinned_json
from relayfile.errors import InvalidArgument
from relayfile.model import change_key
from relayfile.paths import normalise
from relayfile.v1 import types_pb2
from relayfile.wire import set_us, to_us

_UPSERT = types_pb2.CHANGE_KIND_UPSERT
_DELETE = types_pb2.CHANGE_KIND_DELETE
_PATCH = types_pb2.CHANGE_KIND_PATCH
_SIGNAL = types_pb2.CHANGE_KIND_SIGNAL
_HASH_HEX_CHARACTERS = 40
_JSON_TYPE = "application/json"
_MERGE_PATCH_TYPE = "application/merge-patch+json"


class Arrival(NamedTuple):
    """What ingest itself knows about a delivery."""

    received_us: int
    correlation_id: str = ""
    """Empty: the envelope's own, else its id."""
    traceparent: str = ""
    """For an envelope that brings none."""


def complete(envelope: types_pb2.Envelope, arrival: Arrival, new_id: Callable[[], str], name: str = "envelope") -> None:
    """Fill in what the sender left out, in place.

    `InvalidArgument` (fields named from ``name`` on) when changes of one object cannot be folded into one.
    """
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
        _fold_objects(envelope, name)
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


def _fold_objects(envelope: types_pb2.Envelope, name: str) -> None:
    """Leave one change for each object, at the place of its first one."""
    kept: dict[str, types_pb2.FileChange] = {}
    for index, change in enumerate(envelope.changes):
        key = change_key(change.provider_object_id, change.path, index)
        earlier = kept.get(key)
        if earlier is None:
            kept[key] = change
            continue
        try:
            kept[key] = _fold(earlier, change)
        except ValueError as error:
            raise InvalidArgument.of(f"{name}.changes[{index}].content", str(error)) from None
    if len(kept) < len(envelope.changes):
        folded = list(kept.values())
        del envelope.changes[:]
        envelope.changes.extend(folded)


def _fold(first: types_pb2.FileChange, second: types_pb2.FileChange) -> types_pb2.FileChange:
    """The one change with the effect of ``first`` and then ``second``. `ValueError` when there is none."""
    older = _is_older(second, first)
    winner, loser = (first, second) if older else (second, first)
    result = types_pb2.FileChange()
    result.CopyFrom(winner)
    if _SIGNAL in (first.kind, second.kind):
        # What a signal announces is fetched, and is newer than any partial content; whole content answers a signal.
        if winner.kind in (_SIGNAL, _PATCH):
            result.kind = _SIGNAL
            result.ClearField("content")
    elif winner.kind == _PATCH and loser.kind == _PATCH and older:
        _merge_under(result, loser)
    elif winner.kind == _PATCH and not older:
        _merge_into(result, loser)
    elif older:
        return result  # The loser is stale: nothing of it shows.
    if not result.path:
        result.path = loser.path
    if not result.operation_id:
        result.operation_id = loser.operation_id
    if loser.HasField("semantics") and not result.HasField("semantics") and result.kind != _DELETE:
        result.semantics.CopyFrom(loser.semantics)
    if loser.HasField("occurred_at") and not result.HasField("occurred_at"):
        result.occurred_at.CopyFrom(loser.occurred_at)
    return result


def _is_older(second: types_pb2.FileChange, first: types_pb2.FileChange) -> bool:
    """Whether ``second``, which came later, loses: strictly older on the provider's clock, or a delete's equal."""
    if not (first.HasField("occurred_at") and second.HasField("occurred_at")):
        return False
    first_us, second_us = to_us(first.occurred_at), to_us(second.occurred_at)
    return second_us < first_us or (second_us == first_us and first.kind == _DELETE and second.kind != _DELETE)


def _merge_into(patch: types_pb2.FileChange, under: types_pb2.FileChange) -> None:
    """Turn ``patch`` into what it makes of ``under``: an upsert over an upsert or a delete, else one patch."""
    document = _document(patch, "the patch")
    if under.kind == _PATCH:
        value = pinned_json.merge_patches(_document(under, "the patch before it"), document)
    elif under.kind == _UPSERT:
        value = pinned_json.merge(_document(under, "the content that it patches"), document)
    else:
        value = pinned_json.merge({}, document)
    patch.kind = _PATCH if under.kind == _PATCH else _UPSERT
    patch.content = pinned_json.write(value)
    if under.kind != _DELETE:
        patch.content_type = under.content_type  # A patch leaves the type of what it patches.
    elif patch.content_type in ("", _MERGE_PATCH_TYPE):
        patch.content_type = _JSON_TYPE


def _merge_under(patch: types_pb2.FileChange, older: types_pb2.FileChange) -> None:
    """Add to ``patch`` what only ``older`` sets, a patch that came later: members are told apart by name."""
    value, rest = _document(patch, "the patch"), _document(older, "the patch after it")
    if isinstance(value, dict) and isinstance(rest, dict):
        patch.content = pinned_json.write({**rest, **value})


def _document(change: types_pb2.FileChange, what: str) -> pinned_json.JsonValue:
    try:
        return pinned_json.read(change.content)
    except pinned_json.NotJson as error:
        raise ValueError(f"{what} in the same envelope {error}") from None
