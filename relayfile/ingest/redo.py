"""What the request of a dead letter amounts to with the present adapters. No I/O: slow ones run in a thread.

Owns the ids: the changes keep the envelope and the delivery of the dead letter, so that redeliveries of what it was are
known as such. Refuses to decide anything that the front does not decide for a request that comes now.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.providers.adapter import Delivery, Provider, RequestFacts
from relayfile.ingest.sending.fold_wire import fold_head, fold_member, member_of, member_without_change, with_raw_body
from relayfile.ingest.sending.fold_wire import workspace_fold as fold_field
from relayfile.model import Failure, change_key
from relayfile.v1 import shard_pb2, types_pb2
from relayfile.wire import CHANGES_MAX, set_us

RESULT_BYTES_MAX: Final = 128 << 20
"""Of all changes of one request; more is a failure."""
_NO_REF: Final = bytes(12)


@dataclass(frozen=True, slots=True)
class RedoAnswer:
    """What goes to `FinishRedo`. Neither a failure nor folds nor forwarded: it is ignored now."""

    adapter_version: str = ""
    failure: Failure | None = None
    folds: bytes = b""
    """A serialised `WorkspaceFolds`."""
    forwarded: bool = False
    postponed: bool = False
    """Nothing was done."""

    def head(self, redo: shard_pb2.Redo) -> shard_pb2.RedoHead:
        """The first message."""
        head = shard_pb2.RedoHead(
            workspace_id=redo.workspace_id,
            dead_letter_id=redo.dead_letter_id,
            lease_id=redo.lease_id,
            adapter_version=self.adapter_version,
            forwarded=self.forwarded,
            postponed=self.postponed,
            folds_bytes=len(self.folds),
        )
        if self.failure is not None:
            head.failure.reason, head.failure.message = self.failure.reason, self.failure.message
        return head


def normalised_again(providers: Mapping[str, Provider], redo: shard_pb2.Redo, body: bytes) -> RedoAnswer:
    """What the request amounts to."""
    provider = providers.get(redo.provider)
    if provider is None:
        why = f"This process has no provider {redo.provider!r} any more."
        return RedoAnswer(failure=Failure("PROVIDER_NOT_FOUND", why))
    deliveries = provider.normalise(RequestFacts(redo.raw.headers, body))
    envelopes = [
        _envelope(redo, each, f"/{index}" if len(deliveries) > 1 else "") for index, each in enumerate(deliveries)
    ]
    # Of a list that was kept whole for one of its elements, the others had their own way.
    own = [envelope for envelope in envelopes if envelope.delivery_id == redo.delivery_id]
    chosen = own if len(own) == 1 else envelopes
    if all(envelope.HasField("failure") for envelope in chosen):
        failure = Failure(chosen[0].failure.reason, chosen[0].failure.message)
        return RedoAnswer(provider.adapter_version, failure)
    members = sum(len(envelope.changes) or 1 for envelope in chosen)
    if members > CHANGES_MAX:
        why = f"The request holds {members} changes; at most {CHANGES_MAX} are taken at once."
        return RedoAnswer(provider.adapter_version, Failure("TOO_LARGE", why))
    folds = b"" if not any(_is_something(envelope) for envelope in chosen) else _folds(redo, chosen)
    if len(folds) > RESULT_BYTES_MAX:
        why = f"The changes of the request have {len(folds)} bytes; {RESULT_BYTES_MAX} are allowed."
        return RedoAnswer(provider.adapter_version, Failure("TOO_LARGE", why))
    return RedoAnswer(provider.adapter_version, folds=folds)


def _is_something(envelope: types_pb2.Envelope) -> bool:
    return bool(envelope.changes) or envelope.HasField("failure")


def _envelope(redo: shard_pb2.Redo, delivery: Delivery, place: str) -> types_pb2.Envelope:
    """The delivery's envelope, complete, as the front would have made it when the request came."""
    envelope = delivery.envelope
    envelope.workspace_id = redo.workspace_id
    envelope.provider = envelope.provider or redo.provider
    envelope.envelope_id = redo.envelope_id
    set_us(envelope.received_at, redo.received_unix_us)
    if not place and redo.delivery_id != redo.envelope_id:
        envelope.delivery_id = redo.delivery_id
    arrival = Arrival(redo.received_unix_us, redo.correlation_id, redo.traceparent)
    complete(envelope, arrival, lambda: redo.envelope_id)
    if place and envelope.delivery_id == redo.envelope_id:
        envelope.delivery_id += place  # of several without an id of their own, each needs one
    if envelope.HasField("failure"):
        envelope.raw.body = delivery.raw
        envelope.raw.headers.update(redo.raw.headers)
    return envelope


def _folds(redo: shard_pb2.Redo, envelopes: Sequence[types_pb2.Envelope]) -> bytes:
    """A fold for each change, with change indexes that run through all of them."""
    pieces = [shard_pb2.WorkspaceFolds(workspace_id=redo.workspace_id).SerializeToString()]
    number = 0
    seen: set[tuple[str, str, str]] = set()
    for place, envelope in enumerate(envelopes):
        if not seen.isdisjoint(_keys(envelope)):
            envelope.delivery_id += f"/{place}"  # another delivery of the same list
        seen |= _keys(envelope)
        if not envelope.changes:
            member = with_raw_body(member_without_change(envelope, _NO_REF), envelope.raw.body)
            # A field that comes again replaces the one before.
            member += shard_pb2.FoldMember(change_index=number).SerializeToString()
            pieces.append(_fold(envelope, change_key("", "", 0), member))
            number += 1
        for index, change in enumerate(envelope.changes):
            member = member_of(envelope, envelope.traceparent, change, number, _NO_REF, change.content)
            key = change_key(change.provider_object_id, change.path, index)
            pieces.append(_fold(envelope, key, member))
            number += 1
    return b"".join(pieces)


def _keys(envelope: types_pb2.Envelope) -> set[tuple[str, str, str]]:
    """What tells the changes of an envelope from others: provider, delivery id and change key."""
    keys = [change_key(each.provider_object_id, each.path, index) for index, each in enumerate(envelope.changes)]
    return {(envelope.provider, envelope.delivery_id, key) for key in keys or [change_key("", "", 0)]}


def _fold(envelope: types_pb2.Envelope, key: str, member: bytes) -> bytes:
    return fold_field(fold_head(envelope.provider, key) + fold_member(member))
