import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.errors import DataCorrupted
from relayfile.ingest.spool.payload import (
    ENVELOPE_OVERHEAD_BYTES,
    PayloadBuilder,
    parse_changes,
    parse_charges,
    read_envelope,
    read_payload,
    read_row,
    varint,
)
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
    text = row.provider_text()
    assert parse_changes(text) == {"github": 2, "linear": 1}
    assert parse_charges(text, row.size_bytes) == row.charges
    assert sum(row.charges.values()) == sum(len(each.SerializeToString()) + ENVELOPE_OVERHEAD_BYTES for each in sent)


def test_a_row_of_the_schema_before_is_charged_by_changes() -> None:
    assert parse_changes("github=2 linear=1") == {"github": 2, "linear": 1}
    charges = parse_charges("github=2 linear=1", 3_000)
    assert charges == {"github": 2_000 + 2 * ENVELOPE_OVERHEAD_BYTES, "linear": 1_000 + ENVELOPE_OVERHEAD_BYTES}


@given(st.integers(0, 1 << 40))
def test_lengths_are_written_as_protobuf_does(number: int) -> None:
    written = types_pb2.TreeTotals(total_bytes=number).SerializeToString()
    assert written == (b"\x10" + varint(number) if number else b"")


@pytest.mark.parametrize("payload", [b"\x0a", b"\x0a\x05abc", b"\x12\x00", b"\x0a\xff", b"\x0a\x01\xff"])
def test_another_form_is_damage(payload: bytes) -> None:
    with pytest.raises(DataCorrupted):
        list(read_payload(payload))


def test_a_row_is_read_as_it_was_stored_or_not_at_all() -> None:
    row = PayloadBuilder(7, "w")
    sent = [envelope(5, changes=2), envelope(6, changes=0)]
    for each in sent:
        row.add(each, each.SerializeToString())
    payload = row.payload()
    assert [placed[0] for placed in read_row(7, "w", 3, payload)] == sent
    # Damage can make any number of a kind: 77 is `CHANGE_KIND_UPSERT` with other bits.
    odd = PayloadBuilder(7, "w")
    raw = envelope(8).SerializeToString()
    odd.add(envelope(8), raw.replace(b"\x08\x01", b"\x08\x4d", 1))
    for workspace, members, stored, why in [
        ("w", 3, payload[:-1], "ends inside"),
        ("w", 3, payload + b"\x0a\x01\xff", "cannot be decoded"),
        ("w", 2, payload, "3 changes instead of 2"),
        ("other", 3, payload, "another workspace"),
        ("w", 1, odd.payload(), "unknown kind"),
    ]:
        with pytest.raises(DataCorrupted, match=rf"row 7 of the spool, of workspace '{workspace}': .*{why}"):
            read_row(7, workspace, members, stored)


def test_an_envelope_is_read_again_as_it_was_or_not_at_all() -> None:
    raw = envelope(5, changes=2).SerializeToString()
    assert read_envelope(7, "w", 1, raw) == envelope(5, changes=2)
    for index, damaged in ((1, b"\xff"), (2, raw)):
        with pytest.raises(DataCorrupted, match="row 7 of the spool, of workspace 'w'"):
            read_envelope(7, "w", index, damaged)
