"""Heads, bodies and connections that are not as they should be: exact answers, and no request that is read twice.

Each row goes to both kinds of front, with the short way and without: nobody may tell which way a request went.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from relayfile.ingest.webhooks.http_head import HEADERS_MAX, is_unambiguous
from relayfile.ingest.webhooks.http_protocol import HttpLimits
from tests.support.http_connection import Connection, Seen
from tests.unit.ingest.front import WORKSPACE, Client, Front, Response, running_front
from tests.unit.ingest.webhooks.test_webhook import BODY, HOOK, github, refusal

LINE = f"POST {HOOK} HTTP/1.1"
HOST = "host: test"
LENGTH = f"content-length: {len(BODY)}"
CHUNKED = "transfer-encoding: chunked"
CHUNK = b"%x\r\n%b\r\n" % (len(BODY), BODY)
END = b"0\r\n\r\n"
HEX = b"%x" % len(BODY)

OK = ((200, ""),)
MALFORMED = ((400, "REQUEST_MALFORMED"),)
NOWHERE = ((404, "NOT_FOUND"),)
NO_WORKSPACE = ((404, "WORKSPACE_NOT_FOUND"),)
ONLY_POST = ((405, "METHOD_NOT_ALLOWED"),)
TOO_LONG = ((431, "HEADERS_TOO_LARGE"),)
FORGED = (401, "UNAUTHENTICATED")


def request(*headers: str, line: str = LINE, body: bytes = BODY) -> bytes:
    """A signed one, with these headers and no others about its form."""
    signed = [f"{name}: {value}" for name, value in github().items()]
    return "\r\n".join([line, *signed, *headers]).encode("latin-1") + b"\r\n\r\n" + body


def at(path: str) -> bytes:
    return request(HOST, LENGTH, line=f"POST {path} HTTP/1.1")


def version(text: str, *headers: str) -> bytes:
    return request(*headers, LENGTH, line=LINE.replace("HTTP/1.1", text))


def method(name: str, *headers: str, body: bytes = b"") -> bytes:
    return request(HOST, *headers, line=f"{name} {HOOK} HTTP/1.1", body=body)


GOOD = request(HOST, LENGTH)
ROWS: dict[str, tuple[bytes, tuple[tuple[int, str], ...], bool]] = {
    "good": (GOOD, OK, True),
    # Whom it is for.
    "no host": (request(LENGTH), MALFORMED, False),
    "two hosts": (request(HOST, "host: other", LENGTH), MALFORMED, False),
    "the same host twice": (request(HOST, HOST, LENGTH), MALFORMED, False),
    # Where the body ends.
    "chunks and a length": (request(HOST, CHUNKED, LENGTH, body=CHUNK + END), MALFORMED, False),
    "a length and chunks": (request(HOST, LENGTH, CHUNKED, body=CHUNK + END), MALFORMED, False),
    "the same length twice": (request(HOST, LENGTH, LENGTH), MALFORMED, False),
    "a list of lengths": (request(HOST, f"{LENGTH}, {len(BODY)}"), MALFORMED, False),
    "a signed length": (request(HOST, f"content-length: +{len(BODY)}"), MALFORMED, False),
    "a hexadecimal length": (request(HOST, "content-length: 0x10"), MALFORMED, False),
    "a length past 64 bits": (request(HOST, "content-length: 99999999999999999999"), MALFORMED, False),
    "a space before the colon": (request(HOST, f"content-length : {len(BODY)}"), MALFORMED, False),
    "no length": (request(HOST, body=b""), (FORGED,), True),
    "a body without a length": (request(HOST), (FORGED, *MALFORMED), False),
    "compressed and chunked": (request(HOST, "transfer-encoding: gzip, chunked", body=CHUNK + END), MALFORMED, False),
    "identity and chunked": (request(HOST, "transfer-encoding: identity, chunked", body=CHUNK + END), MALFORMED, False),
    "identity": (request(HOST, "transfer-encoding: identity"), MALFORMED, False),
    "chunked twice": (request(HOST, CHUNKED, CHUNKED, body=CHUNK + END), MALFORMED, False),
    "nearly chunked": (request(HOST, "transfer-encoding: xchunked", body=CHUNK + END), MALFORMED, False),
    "chunked in capitals": (request(HOST, "Transfer-Encoding: CHUNKED", body=CHUNK + END), OK, True),
    "chunked behind a tab": (request(HOST, "transfer-encoding:\x0bchunked", body=CHUNK + END), MALFORMED, False),
    "chunks of HTTP/1.0": (
        request(CHUNKED, line=LINE.replace("1.1", "1.0"), body=CHUNK + END),
        MALFORMED,
        False,
    ),
    # Chunks.
    "a chunk": (request(HOST, CHUNKED, body=CHUNK + END), OK, True),
    "a chunk with an extension": (request(HOST, CHUNKED, body=HEX + b";a=b\r\n" + BODY + b"\r\n" + END), OK, True),
    "an extension with a line": (request(HOST, CHUNKED, body=HEX + b";a\nb\r\n" + BODY + END), MALFORMED, False),
    "a size with a prefix": (request(HOST, CHUNKED, body=b"0x" + CHUNK + END), MALFORMED, False),
    "a negative size": (request(HOST, CHUNKED, body=b"-1\r\n\r\n"), MALFORMED, False),
    "no size": (request(HOST, CHUNKED, body=b"\r\n" + END), MALFORMED, False),
    "a size past 64 bits": (request(HOST, CHUNKED, body=b"fffffffffffffffff\r\n"), MALFORMED, False),
    "more than it says": (request(HOST, CHUNKED, body=HEX + b"\r\n" + BODY + b"Z\r\n" + END), MALFORMED, False),
    "lines without a return": (request(HOST, CHUNKED, body=HEX + b"\n" + BODY + b"\n0\n\n"), MALFORMED, False),
    "a size over the cap": (request(HOST, CHUNKED, body=b"fffffff\r\n" + b"x" * 100_001), ((413, "TOO_LARGE"),), False),
    # Trailers count, and change nothing.
    "another delivery id": (request(HOST, CHUNKED, body=CHUNK + b"0\r\nx-github-delivery: evil\r\n\r\n"), OK, True),
    "another encoding": (request(HOST, CHUNKED, body=CHUNK + b"0\r\ncontent-encoding: gzip\r\n\r\n"), OK, True),
    "another signature": (request(HOST, CHUNKED, body=CHUNK + b"0\r\nx-hub-signature-256: sha256=0\r\n\r\n"), OK, True),
    "a length in a trailer": (request(HOST, CHUNKED, body=CHUNK + b"0\r\ncontent-length: 5\r\n\r\n"), MALFORMED, False),
    "trailers without end": (request(HOST, CHUNKED, body=CHUNK + b"0\r\n" + b"a:\r\n" * 3_000), TOO_LONG, False),
    # Targets.
    "an absolute one": (at(f"http://test{HOOK}"), OK, True),
    "another authority": (at("test:80"), MALFORMED, False),
    "a fragment": (at(f"{HOOK}#x"), OK, True),
    "a query": (at(f"{HOOK}?a=%zz"), OK, True),
    "an encoded letter": (at(HOOK.replace(WORKSPACE, "%61cme")), OK, True),
    "encoded twice": (at(HOOK.replace(WORKSPACE, "%2561cme")), NO_WORKSPACE, False),
    "a broken escape": (at(HOOK.replace(WORKSPACE, "%zz")), NO_WORKSPACE, False),
    "an encoded NUL": (at(HOOK.replace(WORKSPACE, f"{WORKSPACE}%00")), NO_WORKSPACE, False),
    "an encoded line": (at(HOOK.replace(WORKSPACE, f"{WORKSPACE}%0d%0a")), NO_WORKSPACE, False),
    "no UTF-8": (at(HOOK.replace(WORKSPACE, "%ff%fe")), NO_WORKSPACE, False),
    "an encoded slash": (at(HOOK.replace("s/acme", "s%2Facme")), NOWHERE, False),
    "a way up": (at(f"/v1/x/..{HOOK[3:]}"), NOWHERE, False),
    "an encoded way up": (at(f"/v1/x/%2e%2e{HOOK[3:]}"), NOWHERE, False),
    "two slashes": (at(f"/{HOOK}"), NOWHERE, False),
    "a slash at the end": (at(f"{HOOK}/"), NOWHERE, False),
    "a letter that is none": (at(f"{HOOK}\xe9"), MALFORMED, False),
    "a tab": (at(f"{HOOK}\tx"), MALFORMED, False),
    "a space": (at(f"{HOOK} x"), MALFORMED, False),
    "very long": (at("/" + "x" * 9_000), TOO_LONG, False),
    # Methods.
    "GET": (method("GET"), ONLY_POST, True),
    "GET with a body": (method("GET", LENGTH, body=BODY), ONLY_POST, False),
    "TRACE": (method("TRACE"), ONLY_POST, True),
    "OPTIONS": (method("OPTIONS"), ONLY_POST, True),
    "OPTIONS of everything": (request(HOST, line="OPTIONS * HTTP/1.1", body=b""), NOWHERE, True),
    "one that does not exist": (method("PWN"), MALFORMED, False),
    "in small letters": (method("post", LENGTH, body=BODY), MALFORMED, False),
    # Versions.
    "HTTP/1.0": (version("HTTP/1.0"), OK, False),
    "HTTP/1.0 that wants to stay": (version("HTTP/1.0", "connection: keep-alive"), OK, False),
    "HTTP/0.9": (version("HTTP/0.9", HOST), MALFORMED, False),
    "HTTP/2.0": (version("HTTP/2.0", HOST), MALFORMED, False),
    "HTTP/1.2": (version("HTTP/1.2", HOST), MALFORMED, False),
    "no version": (b"GET /\r\n\r\n", MALFORMED, False),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", MALFORMED, False),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), MALFORMED, False),
    # Headers.
    "lines without returns": (GOOD.replace(b"\r\n", b"\n"), MALFORMED, False),
    "a lone return": (request(HOST, LENGTH, "a: b\rc"), MALFORMED, False),
    "a folded line": (request(HOST, LENGTH, "a: b\r\n c"), MALFORMED, False),
    "a control character": (request(HOST, LENGTH, "a: b\x01"), MALFORMED, False),
    "a NUL": (request(HOST, LENGTH, "a: b\x00"), MALFORMED, False),
    "no name": (request(HOST, LENGTH, ": b"), MALFORMED, False),
    "as many as are read": (request(HOST, LENGTH, *["a:"] * (HEADERS_MAX - 2 - len(github()))), OK, True),
    "one more": (request(HOST, LENGTH, *["a:"] * (HEADERS_MAX - 1 - len(github()))), TOO_LONG, False),
    "tens of thousands": (request(HOST, LENGTH, *["a:"] * 60_000), TOO_LONG, False),
    "a Latin letter": (request(HOST, LENGTH, "user-agent: caf\xe9"), OK, True),
    "a trace that is none": (request(HOST, LENGTH, "traceparent: \xff00-zz"), OK, True),
    "a correlation id that is none": (request(HOST, LENGTH, 'x-correlation-id: a"b\xff'), OK, True),
    "another expectation": (request(HOST, LENGTH, "expect: 200-ok"), OK, True),
    "another protocol": (request(HOST, LENGTH, "connection: upgrade", "upgrade: websocket"), OK, False),
    "another protocol with chunks": (
        request(HOST, CHUNKED, "connection: upgrade", "upgrade: h2c", body=CHUNK + END),
        MALFORMED,
        False,
    ),
    "a protocol, and more": (
        request(HOST, LENGTH, "connection: upgrade", "upgrade: h2c", body=BODY + GOOD),
        OK,
        False,
    ),
    # One after the other: what was asked before is answered before.
    "lines before": (b"\r\n\r\n" + GOOD, OK, True),
    "a space before": (b" " + GOOD, MALFORMED, False),
    "two": (GOOD * 2, OK * 2, True),
    "good, then no request": (GOOD + b"garbage\r\n\r\n", OK + MALFORMED, False),
    "two, then no request": (GOOD * 2 + b"garbage\r\n\r\n", OK * 2 + MALFORMED, False),
    "good, then a broken chunk": (GOOD + request(HOST, CHUNKED, body=b"zz\r\n"), OK + MALFORMED, False),
    "two, then a broken chunk": (GOOD * 2 + request(HOST, CHUNKED, body=b"zz\r\n"), OK * 2 + MALFORMED, False),
    "good, then a long head": (GOOD + request(HOST, "a: " + "x" * 9_000), OK + TOO_LONG, False),
    "the last one, then another": (request(HOST, LENGTH, "connection: close") + GOOD, OK, False),
}  # fmt: skip


async def answered(front: Front, data: bytes, count: int) -> tuple[list[tuple[int, str]], bool]:
    """The answers to ``data``, and whether the connection is in step afterwards: one more request is answered."""
    client = await Client.connect(front.address)
    try:
        client.send(data)
        answers = [await client.response() for _ in range(count)]
        client.send(GOOD)
        more = await client.response()
        return [_shown(each) for each in answers if each is not None], more is not None and more.status == 200
    finally:
        await client.close()


def _shown(response: Response) -> tuple[int, str]:
    return (200, "") if response.status == 200 else refusal(response)


@pytest.fixture(scope="module", params=[True, False], ids=["short way", "usual way"])
def is_prompt(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
async def front(tmp_path: Path, is_prompt: bool) -> AsyncIterator[Front]:
    async with running_front(tmp_path, is_prompt=is_prompt, creates=True) as running:
        yield running


async def test_what_each_is_answered(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    for name, (data, expected, stays) in ROWS.items():
        refused_before = sum(front.rejected.totals().values())
        answers, stayed = await answered(front, data, len(expected))
        assert (name, answers, stayed) == (name, list(expected), stays)
        refused = sum(front.rejected.totals().values()) - refused_before
        assert (name, refused) == (name, sum(status != 200 for status, _ in expected)), front.rejected.totals()
        accepted = [(each.delivery_id, each.failure.reason) for each in front.intake.accepted]
        assert (name, accepted) == (name, [("d-1", "")] * (expected.count((200, "")) + stays))
        front.intake.accepted.clear()
    assert caplog.records == []


async def test_bytes_may_come_one_by_one() -> None:
    """Wherever a read ends, and whichever way a request goes, the same is understood and answered."""
    for name, (data, _, _) in ROWS.items():
        if len(data) < 20_000:
            once = await outcome([data], is_prompt=True)
            assert (name, await outcome([data], is_prompt=False)) == (name, once)
            assert (name, await outcome([data], is_prompt=True, is_busy=True)) == (name, once)
            assert (name, await outcome([bytes([byte]) for byte in data], is_prompt=True)) == (name, once)


async def outcome(
    pieces: Sequence[bytes], *, is_prompt: bool, is_busy: bool = False
) -> tuple[list[Seen], list[int], list[tuple[int, str]]]:
    connection = Connection(HttpLimits(8_192, 60.0, 10), is_prompt)
    while is_busy and connection.turns.may_go():
        pass  # none is left in this pass
    await connection.feed(pieces)
    await connection.settle(20)
    return connection.outcome


@pytest.mark.parametrize("data", [GOOD, request(HOST, CHUNKED, body=CHUNK + END)], ids=["length", "chunks"])
@pytest.mark.parametrize("start", [0, 60, len(GOOD) - len(BODY) + 3], ids=["line", "head", "body"])
async def test_a_sender_of_a_byte_now_and_then_is_sent_away(tmp_path: Path, data: bytes, start: int) -> None:
    async with running_front(tmp_path, request_timeout_s=0.2) as front:
        client = await Client.connect(front.address)
        client.send(data[:start])

        async def drip() -> None:
            for byte in data[start:]:
                client.send(bytes([byte]))
                await asyncio.sleep(0.04)

        dripping = asyncio.get_running_loop().create_task(drip())
        response = await client.response()
        dripping.cancel()
        assert response is not None
        assert refusal(response) == (408, "REQUEST_TOO_SLOW")
        assert await client.is_closed()
        await client.close()
        assert front.rejected.totals() == {"REQUEST_TOO_SLOW": 1}
        assert front.intake.calls == 0


async def test_the_slow_one_waits_for_those_before_it(tmp_path: Path, is_prompt: bool) -> None:
    """Whoever is slow with the second request gets the answer to the first one, whenever that comes."""
    async with running_front(tmp_path, request_timeout_s=0.1, is_prompt=is_prompt, creates=True) as front:
        front.intake.delay_s = 0.3
        client = await Client.connect(front.address)
        client.send(GOOD + GOOD[:-1])
        assert [_shown(each) async for each in client.responses()] == [(200, ""), (408, "REQUEST_TOO_SLOW")]
        await client.close()


async def test_who_does_not_read_is_let_go() -> None:
    connection = Connection(HttpLimits(1_000, 0.05, 10))
    await connection.feed([b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"])
    for _ in range(2):  # the second time for good
        connection.protocol.pause_writing()
        connection.protocol.pause_writing()
        connection.protocol.resume_writing()
    await asyncio.sleep(0.1)
    assert (connection.wire.is_over, connection.refused) == (False, [])
    connection.protocol.pause_writing()
    await asyncio.sleep(0.1)
    assert connection.wire.is_aborted
    assert connection.refused == [(0, "ANSWERS_NOT_READ")]
    connection.protocol.connection_lost(None)


async def test_who_goes_away_unread_leaves_no_timer() -> None:
    connection = Connection(HttpLimits(1_000, 0.05, 10))
    connection.protocol.pause_writing()
    connection.protocol.connection_lost(None)
    await asyncio.sleep(0.1)
    assert connection.refused == []


async def test_an_idle_connection_ends(tmp_path: Path, is_prompt: bool) -> None:
    async with running_front(tmp_path, keep_alive_s=0.1, is_prompt=is_prompt, creates=True) as front:
        client = await Client.connect(front.address)
        for _ in range(3):
            client.send(GOOD)
            assert (await client.response()) is not None
            await asyncio.sleep(0.05)
        assert await client.is_closed()
        await client.close()
        assert front.rejected.totals() == {}


def test_which_heads_are_read_alike() -> None:
    host, chunked = (b"host", b"a"), (b"transfer-encoding", b"chunked")
    assert is_unambiguous("1.1", [host])
    assert is_unambiguous("1.1", [host, chunked])
    assert is_unambiguous("1.0", [])
    assert is_unambiguous("1.0", [host])
    for version_, headers in [
        ("1.1", []),
        ("1.1", [host, host]),
        ("1.0", [host, host]),
        ("1.0", [host, chunked]),
        ("0.9", [host]),
        ("2.0", [host]),
        ("1.1", [host, (b"transfer-encoding", b"chunked;q=1")]),
        ("1.1", [host, (b"transfer-encoding", b"")]),
    ]:
        assert not is_unambiguous(version_, headers), (version_, headers)
