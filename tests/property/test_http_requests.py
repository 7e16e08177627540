"""Bytes on the public HTTP port are understood alike, in whichever pieces they come and whichever way they go."""

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.http_target import check_bytes

LINES = [
    "POST / HTTP/1.1",
    "GET /a?b HTTP/1.1",
    "POST / HTTP/1.0",
    "HEAD / HTTP/1.1",
    "host: a",
    "content-length: 2",
    "content-length: 0",
    "transfer-encoding: chunked",
    "connection: close",
    "connection: upgrade",
    "upgrade: h2c",
    "expect: 100-continue",
    "x: y",
    "",
    "2",
    "0",
    "ab",
    "{}",
    "2;e=1",
    "zz",
]
wire = st.lists(st.sampled_from(LINES) | st.text(alphabet=":; \t0aZ\x00", max_size=6), max_size=24).map(
    lambda lines: "\r\n".join(lines).encode()
)
GOOD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"


@given(st.binary(max_size=3), wire | st.binary(max_size=60))
@example(b"\x07", GOOD + GOOD + b"garbage\r\n\r\n")
@example(
    b"\x01", GOOD + b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nx: y\r\n\r\n"
)
def test_bytes_are_understood_alike(pieces: bytes, data: bytes) -> None:
    check_bytes(pieces, data)
