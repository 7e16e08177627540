"""Bodies within their limits: decompression that is bounded, exact, and leaves the loop free."""

import gzip
import threading
import zlib

import pytest

from relayfile.errors import TooLarge, Unavailable
from relayfile.ingest.webhooks import request_body
from relayfile.ingest.webhooks.request_body import (
    INLINE_BYTES,
    STRIDE_BYTES,
    BodyReader,
    BodyRoom,
    MalformedEncoding,
    UnsupportedEncoding,
)

MIB = 1 << 20
NOISE = bytes((index * index * 31 + index // 255) % 251 for index in range(3 * MIB))


def raw_deflate(body: bytes) -> bytes:
    return zlib.compress(body)[2:-4]


def reader(cap: int = 8 * MIB, room: int = 32 * MIB) -> BodyReader:
    return BodyReader(BodyRoom(room), cap)


FORMS = {
    "gzip": gzip.compress(NOISE),
    "x-gzip": gzip.compress(NOISE, 1),
    "deflate": zlib.compress(NOISE),
    "raw deflate": raw_deflate(NOISE),
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_is_read_however_it_falls_into_pieces(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    encoding = form.removeprefix("raw ")
    for inline, stride in ((INLINE_BYTES, STRIDE_BYTES), (1, 7_001), (len(NOISE), 1), (len(NOISE) - 1, 1)):
        monkeypatch.setattr(request_body, "INLINE_BYTES", inline)
        monkeypatch.setattr(request_body, "STRIDE_BYTES", stride)
        assert await reader().decoded(FORMS[form], encoding) == NOISE


@pytest.mark.parametrize("size", [0, 1, INLINE_BYTES - 1, INLINE_BYTES, INLINE_BYTES + 1, INLINE_BYTES + STRIDE_BYTES])
async def test_sizes_around_the_pieces(size: int) -> None:
    for body in (NOISE[:size], b" " * size):
        assert await reader().decoded(gzip.compress(body), "gzip") == body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        FORMS["gzip"][:-1],
        FORMS["gzip"][: len(FORMS["gzip"]) // 2],
        FORMS["gzip"] + b"x",
        FORMS["gzip"] + FORMS["gzip"],
        FORMS["gzip"][:-6] + b"\0\0\0\0\0\0",
        gzip.compress(b"") + b"x" * (2 * MIB),
        b"\x1f\x8b",
    ],
    ids=range(9),
)
async def test_what_is_not_what_its_encoding_says(body: bytes) -> None:
    with pytest.raises(MalformedEncoding):
        await reader().decoded(body, "gzip")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "identity, gzip", "*"])
async def test_other_encodings(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        await reader().decoded(FORMS["gzip"], encoding)


async def test_a_bomb_costs_no_more_than_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    real = request_body._Inflation.next

    def counted(inflation: request_body._Inflation, bytes_max: int) -> bytes:
        nonlocal made
        part = real(inflation, bytes_max)
        made += len(part)
        return part

    monkeypatch.setattr(request_body._Inflation, "next", counted)
    bomb = gzip.compress(b" " * (64 * MIB))
    room = BodyRoom(32 * MIB)
    body = BodyReader(room, 4 * MIB)
    with pytest.raises(TooLarge):
        await body.decoded(bomb, "gzip")
    assert made <= 4 * MIB + STRIDE_BYTES
    body.close()
    room.take(32 * MIB)


async def test_the_room_counts_what_comes_out() -> None:
    room = BodyRoom(2 * MIB)
    first, second = BodyReader(room, 8 * MIB), BodyReader(room, 8 * MIB)
    await first.decoded(gzip.compress(b" " * MIB), "gzip")
    with pytest.raises(Unavailable):
        await second.decoded(gzip.compress(b" " * (MIB + 1)), "gzip")
    second.close()
    first.close()
    await BodyReader(room, 8 * MIB).decoded(gzip.compress(b" " * (2 * MIB)), "gzip")


async def test_large_ones_are_decompressed_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[tuple[bool, int]] = []
    real = request_body._Inflation.next

    def noted(inflation: request_body._Inflation, bytes_max: int) -> bytes:
        threads.append((threading.current_thread() is threading.main_thread(), bytes_max))
        return real(inflation, bytes_max)

    monkeypatch.setattr(request_body._Inflation, "next", noted)
    await reader().decoded(gzip.compress(b"small"), "gzip")
    assert threads == [(True, INLINE_BYTES)]
    threads.clear()
    await reader().decoded(FORMS["gzip"], "gzip")
    assert threads[0] == (True, INLINE_BYTES)
    assert set(threads[1:]) == {(False, STRIDE_BYTES)}
