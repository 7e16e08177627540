"""The bytes that ingest puts together are those of the generated classes."""

import pytest

from relayfile.ingest.sending import fold_wire
from relayfile.ingest.sending.coalesce import Change, Fold, ObjectKey
from relayfile.ingest.sending.parcel import PARCEL_BYTES_MAX, LoneChanges, Parcel, RecentPayloads, parcels_of
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.model import MemberKind
from relayfile.v1 import shard_pb2, types_pb2

MIB = 1 << 20


def envelope(
    content: bytes = b"{}", kind: types_pb2.ChangeKind.ValueType = types_pb2.CHANGE_KIND_UPSERT
) -> types_pb2.Envelope:
    made = types_pb2.Envelope(
        envelope_id="E" * 26,
        workspace_id="acme",
        provider="github",
        delivery_id="d-1",
        correlation_id="c-1",
        traceparent="00-1-2-01",
        adapter_version="github/1",
        event_name="issues.edited",
    )
    made.received_at.FromMicroseconds(1_700_000_000_123_456)
    change = made.changes.add(kind=kind, path="/é", provider_object_id="issue/1", content=content, content_type="t")
    change.occurred_at.FromMicroseconds(1_600_000_000_000_001)
    change.semantics.properties["state"] = "open"
    return made


def failed(body: bytes) -> types_pb2.Envelope:
    made = envelope()
    del made.changes[:]
    made.failure.reason = "MALFORMED_JSON"
    made.raw.headers["x-github-event"] = "issues"
    made.raw.body = body
    return made


def parcel_of(made: types_pb2.Envelope, ref: bytes, key: str = "") -> Parcel:
    """The parcel of an envelope that goes out alone."""
    pushed: list[Parcel] = []
    lone = LoneChanges(pushed.append)
    if made.changes:
        lone.add(made, made.provider, made.changes[0], 0, ref, key)
    else:
        lone.add_without_change(made, ref)
    lone.close()
    (parcel,) = pushed
    return parcel


def decode(wire: bytes) -> shard_pb2.Fold:
    message = shard_pb2.ApplyEnvelopesRequest.FromString(fold_wire.sub_batch(7, 3, 300, "acme", [wire]))
    (batch,) = message.sub_batches
    assert (batch.shard_id, batch.epoch, batch.sequence) == (7, 3, 300)
    (workspace,) = batch.workspaces
    assert workspace.workspace_id == "acme"
    (fold,) = workspace.folds
    return fold


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000, MIB])
def test_a_change_travels_with_everything_that_the_shard_needs(size: int) -> None:
    content = b"x" * size
    ref = fold_wire.spool_ref(1 << 40, 9)
    parcel = parcel_of(envelope(content), ref, "o:issue/1")
    fold = decode(parcel.wire)
    assert (fold.provider, fold.change_key, parcel.body) == ("github", "o:issue/1", b"")
    (member,) = fold.members
    expected = shard_pb2.FoldMember(
        spool_ref=ref,
        envelope_id="E" * 26,
        delivery_id="d-1",
        kind=shard_pb2.MEMBER_KIND_UPSERT,
        path="/é",
        provider_object_id="issue/1",
        received_unix_us=1_700_000_000_123_456,
        occurred_unix_us=1_600_000_000_000_001,
        content=content,
        content_type="t",
        semantics=types_pb2.Semantics(properties={"state": "open"}),
        correlation_id="c-1",
        traceparent="00-1-2-01",
        adapter_version="github/1",
        event_name="issues.edited",
    )
    assert member == expected
    assert list(fold_wire.read_refs(parcel.refs)) == [(1 << 40, 9)]


def test_a_large_body_follows_in_chunks() -> None:
    content = bytes(range(256)) * (4096 * 2 + 1)
    parcel = parcel_of(envelope(content), b"r" * 12, "o:issue/1")
    (member,) = decode(parcel.wire).members
    assert (member.content, member.content_follows_bytes) == (b"", len(content))
    messages = list(map(shard_pb2.ApplyEnvelopesRequest.FromString, fold_wire.chunk_messages(parcel.body)))
    assert b"".join(message.chunk.data for message in messages) == content
    assert [message.chunk.last for message in messages] == [False, False, True]
    assert max(len(message.chunk.data) for message in messages) <= MIB


@pytest.mark.parametrize("size", [0, 100, MIB + 1])
def test_a_failed_delivery_travels_raw(size: int) -> None:
    parcel = parcel_of(failed(b"?" * size), b"r" * 12)
    (member,) = decode(parcel.wire).members
    assert (member.kind, member.failure.reason) == (shard_pb2.MEMBER_KIND_FAILED, "MALFORMED_JSON")
    assert dict(member.raw.headers) == {"x-github-event": "issues"}
    assert (member.raw.body or parcel.body) == b"?" * size
    assert member.content_follows_bytes == (size if size > MIB else 0)


def test_a_delivery_without_changes_is_one_ignored_member() -> None:
    made = envelope()
    del made.changes[:]
    assert fold_wire.kind_without_change(made) is MemberKind.IGNORED
    assert decode(parcel_of(made, b"r" * 12).wire).change_key == "n:0"
    (member,) = decode(parcel_of(made, b"r" * 12).wire).members
    assert member.kind == shard_pb2.MEMBER_KIND_IGNORED


def fold_of(
    contents: list[bytes], *, noted: bool, kind: types_pb2.ChangeKind.ValueType = types_pb2.CHANGE_KIND_UPSERT
) -> tuple[Fold, RecentPayloads]:
    row = PayloadBuilder(5, "acme")
    fold = Fold(ObjectKey("acme", "github", "o:issue/1"))
    for ordinal, content in enumerate(contents):
        made = envelope(content, kind)
        row.add(made, made.SerializeToString())
        _, offset, length = row.placed[-1]
        ref = fold_wire.spool_ref(5, ordinal)
        note = fold_wire.member_of(made, made.traceparent, made.changes[0], 0, ref, b"") if noted else None
        facts = (fold_wire.kind_of(made.changes[0]), 1_600_000_000_000_001, 1_700_000_000_123_456, len(content))
        fold.add(Change(5, ordinal, offset, length, 0, *facts), note)
    recent = RecentPayloads(lambda row_id, offset, length: pytest.fail("must not be read"), 1 << 30)
    recent.put(5, row.payload())
    return fold, recent


@pytest.mark.parametrize("noted", [True, False])
def test_a_fold_sends_its_newest_content_only_unless_it_is_asked(noted: bool) -> None:
    contents = [b"one", b"two", b"three"]
    fold, recent = fold_of(contents, noted=noted)
    (parcel,) = parcels_of(fold, recent)
    members = decode(parcel.wire).members
    assert [(member.content, member.content_elided) for member in members] == [
        (b"", True),
        (b"", True),
        (b"three", False),
    ]
    assert [member.spool_ref for member in members] == [fold_wire.spool_ref(5, each) for each in range(3)]
    assert parcel.source is fold
    (again,) = parcels_of(fold, recent, {fold_wire.spool_ref(5, 0), fold_wire.spool_ref(5, 2)})
    assert [member.content for member in decode(again.wire).members] == [b"one", b"three"]
    assert again.source is None


def test_a_large_fold_is_cut_into_parcels_in_order() -> None:
    contents = [b"%d" % number + b"x" * 700_000 for number in range(7)] + [b"y" * 2 * MIB] + [b"z"]
    fold, recent = fold_of(contents, noted=True, kind=types_pb2.CHANGE_KIND_PATCH)
    parcels = list(parcels_of(fold, recent))
    sent = []
    for parcel in parcels:
        assert len(parcel.wire) <= PARCEL_BYTES_MAX + 1_000
        members = decode(parcel.wire).members
        sent += [member.content or parcel.body for member in members]
        assert all(not member.content_follows_bytes for member in members[:-1])
    assert sent == contents


def test_old_payloads_are_forgotten_and_read_again() -> None:
    row = PayloadBuilder(1, "acme")
    row.add(envelope(b"kept on disk"), envelope(b"kept on disk").SerializeToString())
    payload = row.payload()
    reads = []

    def read(row_id: int, offset: int, length: int) -> bytes:
        reads.append(row_id)
        return payload[offset : offset + length]

    recent = RecentPayloads(read, bytes_max=len(payload))
    recent.put(1, payload)
    sent, offset, length = row.placed[0]
    change = Change(1, 0, offset, length, 0, MemberKind.UPSERT, None, 0, 12)
    assert recent.envelope("acme", change) == sent
    assert reads == []
    recent.put(2, b"x")
    assert recent.envelope("acme", change) == sent
    assert reads == [1]


def test_payloads_of_rows_that_left_the_spool_are_forgotten() -> None:
    recent = RecentPayloads(lambda row_id, offset, length: pytest.fail("must not be read"), 100)
    for row_id in (1, 2, 3):
        recent.put(row_id, b"x" * 40)
    assert recent.size_bytes == 80
    recent.forget([1, 2, 9])
    assert recent.size_bytes == 40
    recent.forget([3])
    assert recent.size_bytes == 0
