import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.errors import DataCorrupted
from relayfile.ingest.payload import PayloadBuilder, parse_provider_counts, read_payload, varint
from relayfile.v1 import types_pb2


def envelope(number: int, *, size: int = 10, changes: int = 1, provider: str = "github") -> types_pb2.Envelope:
    made = types_pb2.Envelope(envelope_id=f"e{number}", workspace_id="w", provider=provider)
    made.received_at.seconds = number
    for index in range(changes):
        made.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{index}", content=b"x" * size)
    return made


@pytest.mark.parametrize("size", [0, 100, 200, 20_000, 3_000_000])
def test_a_payload_is_a_batch_whose_envelopes_are_found_by_offset(size: int) -> None:
    row = PayloadBuilder(7, "w")
    sent = [envelope(5, size=size, changes=2), envelope(6, size=size, changes=0, provider="linear")]
    assert sum(row.add(each, each.SerializeToString()) for each in sent) == row.size_bytes
    payload = row.payload()
    assert len(payload) == row.size_bytes
    assert list(types_pb2.EnvelopeBatch.FromString(payload).envelopes) == sent
    assert [placed[0] for placed in read_payload(payload)] == sent
    assert [placed[1:] for placed in read_payload(payload)] == [placed[1:] for placed in row.placed]
    assert [types_pb2.Envelope.FromString(payload[at : at + length]) for _, at, length in row.placed] == sent
    assert (row.member_count, row.received_us) == (3, 5_000_000)
    assert parse_provider_counts(row.provider_counts()) == {"github": 2, "linear": 1}


@given(st.integers(0, 1 << 40))
def test_lengths_are_written_as_protobuf_does(number: int) -> None:
    written = types_pb2.TreeTotals(total_bytes=number).SerializeToString()
    assert written == (b"\x10" + varint(number) if number else b"")


@pytest.mark.parametrize("payload", [b"\x0a", b"\x0a\x05abc", b"\x12\x00", b"\x0a\xff"])
def test_another_form_is_damage(payload: bytes) -> None:
    with pytest.raises(DataCorrupted):
        list(read_payload(payload))
