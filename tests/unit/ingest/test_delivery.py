import json

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


def test_changes_of_one_object_are_told_apart_and_keep_their_order() -> None:
    envelope = completed(
        change(UPSERT, 1, {"n": 1}),
        change(UPSERT, 1, {"n": 2}, provider_object_id="", path="/x"),
        change(PATCH, 2, {"n": 3}, path="/moved"),
        change(DELETE, 2, provider_object_id="", path="x"),
        change(UPSERT, 1, {"n": 4}, provider_object_id="deal/2", repetition=7),
        change(SIGNAL),
    )
    assert [(one.path, one.repetition) for one in envelope.changes] == [
        ("", 0), ("/x", 0), ("/moved", 1), ("/x", 1), ("", 0), ("", 2)
    ]  # fmt: skip
    assert completed(change(UPSERT, repetition=3)).changes[0].repetition == 0
