"""The short checks, of envelopes and of paths, say yes only where the whole ones find nothing."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from relayfile import paths, wire
from relayfile.v1 import types_pb2

TEXTS = st.one_of(
    st.sampled_from(["", "d-1", "a\x7f", "a\x85b", "a\nb", "é", "x" * 127, "x" * 300, "00-" + "a" * 32, "\u2028"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
)
NAMES = st.sampled_from(["w", "acme-1", "_app/x", "", "-", ".w", "A", "a b", "x" * 65, "x" * 129])
PATHS = st.one_of(
    st.sampled_from(
        ["/a", "/a/b.json", "a", "/", "", "/a/", "/a//b", "/a/./b", "/a/..", "/..", "/.x", "/a\\b", "/a\x80"]
    ),
    st.text(st.sampled_from("/.a\\ é\x00\x1f\x7f\x85\xa0"), max_size=8).map("/".__add__),
    st.integers(250, 5_000).map(lambda length: "/" + "x" * length),
)
OBJECTS = st.sampled_from(["", "issue/1", "issue", "/1", "issue/", "i s/1", "issue/\x7f", "issue/é", "a/" + "x" * 600])
TRACES = st.sampled_from(["", f"00-{'a' * 32}-{'b' * 16}-01", f"00-{'0' * 32}-{'b' * 16}-01", "x"])


@st.composite
def envelopes(draw: st.DrawFn) -> types_pb2.Envelope:
    """Mostly of the usual form, with a few things wrong."""
    usual = st.booleans()
    change = types_pb2.FileChange(
        kind=types_pb2.ChangeKind.ValueType(draw(st.sampled_from([1, 1, 1, 0, 2, 3, 4, 9]))),
        path="/a/b.json" if draw(usual) else draw(PATHS),
        provider_object_id="issue/1" if draw(usual) else draw(OBJECTS),
        content=draw(st.sampled_from([b"", b"x", b"x" * 100, b"x" * 101])),
        content_type="" if draw(usual) else draw(TEXTS),
        operation_id="" if draw(usual) else draw(TEXTS),
        content_follows_bytes=draw(st.sampled_from([0, 0, 0, 1])),
    )
    if draw(usual):
        change.occurred_at.seconds = draw(st.sampled_from([0, 1, -1, 253_402_300_799, 253_402_300_800]))
        change.occurred_at.nanos = draw(st.sampled_from([0, 1, -1, 999_999_999, 1_000_000_000]))
    if not draw(usual):
        change.semantics.relations.append("x")
    made = types_pb2.Envelope(
        workspace_id="w" if draw(usual) else draw(NAMES),
        provider="crm" if draw(usual) else draw(NAMES),
        delivery_id="d" if draw(usual) else draw(TEXTS),
        correlation_id="" if draw(usual) else draw(TEXTS),
        event_name="" if draw(usual) else draw(TEXTS),
        adapter_version="" if draw(usual) else draw(TEXTS),
        traceparent="" if draw(usual) else draw(TRACES),
        changes=[change] * draw(st.sampled_from([1, 1, 1, 1, 0, 2])),
    )
    extra = draw(st.sampled_from(["", "", "", "", "id", "time", "failure", "raw", "headers"]))
    if extra == "id":
        made.envelope_id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
    elif extra == "time":
        made.received_at.seconds = 1
    elif extra == "failure":
        made.failure.reason = "X"
    elif extra == "raw":
        made.raw.body = b"x"
    elif extra == "headers":
        made.headers["authorization"] = "x"
    return made


@given(envelopes())
def test_nothing_is_wrong_with_a_plain_envelope(envelope: types_pb2.Envelope) -> None:
    rules = wire.EnvelopeRules(content_bytes_max=100, raw_bytes_max=50)
    with patch.object(wire, "is_plain", return_value=False):
        refused = wire.check_envelope(envelope, rules)
    if wire.is_plain(envelope, rules.content_bytes_max):
        assert refused is None
        assert not envelope.envelope_id
    assert (wire.check_envelope(envelope, rules) is None) is (refused is None)


@given(PATHS)
def test_a_plain_path_is_one_that_the_pattern_does_not_refuse(path: str) -> None:
    wrong_segments = path != "/" and any(segment in ("", ".", "..") for segment in path[1:].split("/"))
    wrong_characters = any(c < " " or "\x7f" <= c <= "\x9f" or c == "\\" for c in path)
    lengths = [len(part.encode()) for part in path.split("/")]
    wrong = not path.startswith("/") or path == "/" or wrong_segments or wrong_characters
    too_long = len(path.encode()) > paths.PATH_BYTES_MAX or max(lengths) > paths.SEGMENT_BYTES_MAX
    assert (paths.check_write_path(path) is not None) is (wrong or too_long)
