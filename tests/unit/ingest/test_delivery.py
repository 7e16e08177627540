import json

import pytest

from relayfile.errors import InvalidArgument
from relayfile.ingest.delivery import Arrival, complete
from relayfile.v1 import types_pb2
from relayfile.wire import from_us, to_us

UPSERT, DELETE, PATCH, SIGNAL = 1, 2, 3, 4


def change(kind: int, time: int | None = None, content: object = None, **fields: object) -> types_pb2.FileChange:
    data = b"" if content is None else json.dumps(content).encode()
    made = types_pb2.FileChange(kind=kind, content=data, **{"provider_object_id": "deal/1", **fields})  # type: ignore[arg-type]
    if time is not None:
        made.occurred_at.CopyFrom(from_us(time))
    return made


def completed(*changes: types_pb2.FileChange, **fields: object) -> types_pb2.Envelope:
    envelope = types_pb2.Envelope(workspace_id="w", provider="crm", changes=changes, **fields)  # type: ignore[arg-type]
    complete(envelope, Arrival(7_000_001, "corr", "trace"), lambda: "NEW-ID")
    return envelope


def test_what_the_sender_left_out_is_filled_in() -> None:
    envelope = completed(change(UPSERT, path="a/b/"))
    assert envelope.envelope_id == envelope.delivery_id == "NEW-ID"
    assert to_us(envelope.received_at) == 7_000_001
    assert (envelope.correlation_id, envelope.traceparent) == ("corr", "trace")
    assert envelope.changes[0].path == "/a/b"


def test_what_the_sender_said_stays() -> None:
    envelope = completed(envelope_id="E", delivery_id="D", correlation_id="C", received_at=from_us(5))
    assert (envelope.envelope_id, envelope.delivery_id, envelope.correlation_id) == ("E", "D", "C")
    assert to_us(envelope.received_at) == 5


def test_a_derived_delivery_id_is_the_same_for_the_same_delivery() -> None:
    first, again = (completed(change(UPSERT, 5, {"a": 1})).delivery_id for _ in range(2))
    assert first == again
    assert first.startswith("h:")
    others = {
        completed(change(UPSERT, 6, {"a": 1})).delivery_id,
        completed(change(UPSERT, 5, {"a": 2})).delivery_id,
        completed(change(DELETE, 5)).delivery_id,
        completed(change(UPSERT, 5, {"a": 1}, provider_object_id="deal/2")).delivery_id,
    }
    assert len(others | {first}) == 5
    assert completed(change(UPSERT, None, {"a": 1})).delivery_id == "NEW-ID"


@pytest.mark.parametrize(
    ("changes", "kind", "content", "time"),
    [
        ([change(UPSERT, 1, {"a": 1}), change(UPSERT, 2, {"a": 2})], UPSERT, {"a": 2}, 2),
        ([change(UPSERT, 2, {"a": 2}), change(UPSERT, 1, {"a": 1})], UPSERT, {"a": 2}, 2),
        ([change(UPSERT, 2, {"a": 1}), change(UPSERT, 2, {"a": 2})], UPSERT, {"a": 2}, 2),
        ([change(UPSERT, None, {"a": 1}), change(UPSERT, None, {"a": 2})], UPSERT, {"a": 2}, None),
        ([change(DELETE, 2), change(UPSERT, 2, {"a": 2})], DELETE, None, 2),
        ([change(UPSERT, 2, {"a": 2}), change(DELETE, 2)], DELETE, None, 2),
        ([change(DELETE), change(UPSERT, None, {"a": 2})], UPSERT, {"a": 2}, None),
        ([change(UPSERT, 1, {"a": 1, "b": 1}), change(PATCH, 2, {"a": None})], UPSERT, {"b": 1}, 2),
        ([change(UPSERT, 2, {"a": 1}), change(PATCH, 1, {"b": 1})], UPSERT, {"a": 1}, 2),
        ([change(PATCH, 1, {"a": 1}), change(PATCH, 2, {"b": None})], PATCH, {"a": 1, "b": None}, 2),
        ([change(PATCH, 2, {"a": 2}), change(PATCH, 1, {"a": 1, "b": 1})], PATCH, {"a": 2, "b": 1}, 2),
        ([change(DELETE, 1), change(PATCH, 2, {"a": 1, "b": None})], UPSERT, {"a": 1}, 2),
        ([change(PATCH, 2, {"a": 1}), change(UPSERT, 1, {"a": 0, "b": 0})], PATCH, {"a": 1}, 2),
        ([change(SIGNAL, 1), change(UPSERT, 2, {"a": 1})], UPSERT, {"a": 1}, 2),
        ([change(UPSERT, 1, {"a": 1}), change(SIGNAL, 2)], SIGNAL, None, 2),
        ([change(PATCH, 1, {"a": 1}), change(SIGNAL, 2)], SIGNAL, None, 2),
        ([change(SIGNAL, 1), change(PATCH, 2, {"a": 1})], SIGNAL, None, 2),
        ([change(SIGNAL, 1), change(DELETE, 2)], DELETE, None, 2),
    ],
)
def test_changes_of_one_object_become_one(
    changes: list[types_pb2.FileChange], kind: int, content: object, time: int | None
) -> None:
    (folded,) = completed(*changes).changes
    assert folded.kind == kind
    assert (json.loads(folded.content) if folded.content else None) == content
    assert (to_us(folded.occurred_at) if folded.HasField("occurred_at") else None) == time


def test_only_the_same_object_is_folded_and_order_is_kept() -> None:
    envelope = completed(
        change(UPSERT, 1, {"n": 1}),
        change(UPSERT, 1, {"n": 2}, provider_object_id="", path="/x"),
        change(UPSERT, 2, {"n": 3}, path="/moved"),
        change(UPSERT, 2, {"n": 4}, provider_object_id="", path="x"),
    )
    assert [(one.path, json.loads(one.content)["n"]) for one in envelope.changes] == [("/moved", 3), ("/x", 4)]


def test_path_and_semantics_of_the_loser_are_kept_where_the_winner_says_nothing() -> None:
    before = change(UPSERT, 1, {}, path="/p", semantics=types_pb2.Semantics(comments=["c"]), operation_id="op")
    (folded,) = completed(before, change(UPSERT, 2, {"a": 1})).changes
    assert (folded.path, list(folded.semantics.comments), folded.operation_id) == ("/p", ["c"], "op")


def test_a_patch_of_what_is_no_json_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"envelope.changes\[1\].content"):
        completed(change(UPSERT, 1, None), change(PATCH, 2, {"a": 1}))
