"""Several changes of one object in one delivery become one change with the effect of applying them one by one."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayfile.errors import InvalidArgument
from relayfile.ingest.delivery import Arrival, complete
from relayfile.model import MemberKind
from relayfile.store.plan.entry import Member
from relayfile.v1 import types_pb2
from relayfile.wire import set_us, to_us
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH = types_pb2.CHANGE_KIND_UPSERT, types_pb2.CHANGE_KIND_DELETE, types_pb2.CHANGE_KIND_PATCH
RECEIVED_US = 10_000_000
CONTENTS = {
    UPSERT: (b'{"k":1}', b'{"k":2,"l":{"m":3}}'),
    DELETE: (b"",),
    PATCH: (
        b'{"k":5}',
        b'{"k":null}',
        b'{"l":{"m":4}}',
        b'{"l":{"n":4}}',
        b'{"l":7}',
        b"{}",
        b'{"k":1,"l":{"m":null}}',
    ),
}
TYPES = ("", "application/json", "text/plain", "application/merge-patch+json")


@st.composite
def changes(draw: st.DrawFn) -> types_pb2.FileChange:
    kind = draw(st.sampled_from(list(CONTENTS)))
    change = types_pb2.FileChange(
        kind=kind,
        path="/a",
        provider_object_id="issue/1",
        content=draw(st.sampled_from(CONTENTS[kind])),
        content_type="" if kind == DELETE else draw(st.sampled_from(TYPES)),
    )
    set_us(change.occurred_at, draw(st.integers(1, 4)))
    return change


def member(make: Deliveries, change: types_pb2.FileChange) -> Member:
    return make.member(
        MemberKind(change.kind),
        change.path,
        change.content,
        occurred_us=to_us(change.occurred_at),
        received_us=RECEIVED_US,
        content_type=change.content_type,
        object_id=change.provider_object_id,
    )


def seen(store: ModelStore) -> dict[str, tuple[object, str]]:
    return {path: (json.loads(content), store.files[path].content_type) for path, content in store.tree().items()}


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(changes(), min_size=2, max_size=2))
def test_one_change_does_what_its_parts_do_one_by_one(parts: list[types_pb2.FileChange]) -> None:
    one_by_one, at_once, make = ModelStore(), ModelStore(), Deliveries()
    for part in parts:
        one_by_one.apply(make.fold("issue/1", [member(make, part)]))
    envelope = types_pb2.Envelope(envelope_id="e", delivery_id="d", provider="github", changes=parts)
    try:
        complete(envelope, Arrival(RECEIVED_US), lambda: "id")
    except InvalidArgument:
        return  # No one change has their effect.
    (whole,) = envelope.changes
    at_once.apply(make.fold("issue/1", [member(make, whole)]))
    assert seen(at_once) == seen(one_by_one)
