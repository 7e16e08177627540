"""What the adapter makes of the sample payloads: the only thing that tests of whole trees take from the system."""

import json
from collections.abc import Sequence

from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.v1 import types_pb2
from tests.support.fold import Arrival, Kind
from tests.support.webhooks import Sample

GITHUB = ProviderRegistry.load(16 << 20)["github"]
KINDS: dict[int, Kind] = {
    types_pb2.CHANGE_KIND_UPSERT: "upsert",
    types_pb2.CHANGE_KIND_DELETE: "delete",
    types_pb2.CHANGE_KIND_PATCH: "patch",
}


def normalised(sample: Sample) -> types_pb2.Envelope:
    """The envelope that the adapter makes of a payload."""
    headers = {"content-type": "application/json", "x-github-event": sample.event, "x-github-delivery": "any"}
    ((delivery, _, _),) = GITHUB.normalise(RequestFacts(headers, sample.body))
    assert not delivery.HasField("failure"), f"{sample.name}: {delivery.failure}"
    return delivery


def arrivals(order: Sequence[Sample]) -> list[Arrival]:
    """All changes in order of sending."""
    return [
        Arrival(
            change.provider_object_id,
            change.path,
            KINDS[change.kind],
            change.occurred_at.ToMicroseconds() if change.HasField("occurred_at") else None,
            json.loads(change.content) if change.content else {},
        )
        for sample in order
        for change in normalised(sample).changes
    ]
