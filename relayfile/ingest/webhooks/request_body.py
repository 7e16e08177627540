"""Reading a request's body within its limits: the cap, the room for all bodies together, decompression.

Owns refusing a body before it is read where its length is announced, and in the middle where it is not, and keeping
the loop free of what takes long. Refuses to know what a body means.
"""

import asyncio
import zlib
from typing import Final

from relayfile.asgi import Receive
from relayfile.errors import RelayfileError, TooLarge, Unavailable

INLINE_BYTES: Final = 128 * 1024
"""Of a compressed body so much, in or out, is decompressed in the loop, half a millisecond or so."""
STRIDE_BYTES: Final = 1 << 20
"""The rest is decompressed in a thread, in pieces of so much: no more than this is made beyond the cap."""
_WINDOW: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_RAW_DEFLATE: Final = -15


class Disconnected(Exception):
    """The sender went away, or was sent away, before its request was whole."""


class UnsupportedEncoding(RelayfileError):
    """The body is encoded in a way that is not understood; send it plain, gzip or deflate."""

    reason = "CONTENT_ENCODING_UNSUPPORTED"


class MalformedEncoding(RelayfileError):
    """The body is not what its Content-Encoding says."""

    reason = "CONTENT_ENCODING_MALFORMED"


class BodyRoom:
    """Bytes that the bodies of all requests may take together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._taken_bytes = 0

    @property
    def taken_bytes(self) -> int:
        """What is taken now."""
        return self._taken_bytes

    def take(self, size: int) -> None:
        """`Unavailable` when there is no room for ``size`` more bytes."""
        if self._taken_bytes + size > self._bytes_max:
            raise Unavailable(what="room for the bodies of requests")
        self._taken_bytes += size

    def give_back(self, size: int) -> None:
        """The end of what `take` gave."""
        self._taken_bytes -= size
        assert self._taken_bytes >= 0


class BodyReader:
    """One request's body. ``close`` gives its room back, whatever happened."""

    def __init__(self, room: BodyRoom, bytes_max: int) -> None:
        self._room = room
        self._bytes_max = bytes_max
        self._taken_bytes = 0
        self.read_bytes = 0

    def expect(self, content_length: int) -> None:
        """Refuse an announced length before anything is read: `TooLarge`, `Unavailable`."""
        if content_length > self._bytes_max:
            raise TooLarge(what="body", size=content_length, limit=self._bytes_max)
        self._take(content_length)

    async def read(self, receive: Receive) -> bytes:
        """The whole body. `TooLarge` as soon as it is too long; `Disconnected` when it ends early."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        first: bytes = message.get("body", b"")
        self._count(first)
        if not message.get("more_body", False):
            return first
        parts = [first]
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            part: bytes = message.get("body", b"")
            self._count(part)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)

    async def decoded(self, body: bytes, encoding: str) -> bytes:
        """``body`` without its Content-Encoding, however much smaller it was: the cap is the same.

        `UnsupportedEncoding`, `MalformedEncoding`, `TooLarge`, `Unavailable`.
        """
        if not encoding or encoding == "identity":
            return body
        if encoding not in _WINDOW:
            raise UnsupportedEncoding
        inflation = _Inflation(body, encoding)
        parts = [inflation.next(INLINE_BYTES)]
        size = self._count_decoded(0, parts[0])
        while not inflation.is_over:
            parts.append(await asyncio.to_thread(inflation.next, STRIDE_BYTES))
            size = self._count_decoded(size, parts[-1])
        return b"".join(parts)

    def close(self) -> None:
        """Give the room back."""
        self._room.give_back(self._taken_bytes)
        self._taken_bytes = 0

    def _take(self, size: int) -> None:
        self._room.take(size)
        self._taken_bytes += size

    def _count_decoded(self, before: int, part: bytes) -> int:
        size = before + len(part)
        if size > self._bytes_max:
            raise TooLarge(what="decompressed body", size=size, limit=self._bytes_max)
        self._take(len(part))
        return size

    def _count(self, part: bytes) -> None:
        self.read_bytes += len(part)
        if self.read_bytes > self._bytes_max:
            raise TooLarge(what="body", size=self.read_bytes, limit=self._bytes_max)
        if self.read_bytes > self._taken_bytes:
            self._take(self.read_bytes - self._taken_bytes)


class _Inflation:
    """The decompression of one body, piece by piece, each in whichever thread."""

    def __init__(self, body: bytes, encoding: str) -> None:
        raw = encoding == "deflate" and not _has_zlib_header(body)
        self._decoder = zlib.decompressobj(_RAW_DEFLATE if raw else _WINDOW[encoding])
        self._rest = memoryview(body)
        self.is_over = False

    def next(self, bytes_max: int) -> bytes:
        """What comes next: of at most about ``bytes_max`` compressed bytes, and no longer than that. May be empty.

        `MalformedEncoding` when the body is cut off, goes on after its end, or is not compressed at all.
        """
        tail = self._decoder.unconsumed_tail
        # What the decoder does not take it copies: it is given no more than it may take.
        more = max(0, bytes_max - len(tail))
        given, self._rest = self._rest[:more], self._rest[more:]
        try:
            part = self._decoder.decompress(tail + given, bytes_max)
        except zlib.error:
            raise MalformedEncoding from None
        self.is_over = self._decoder.eof
        is_at_end = not self._rest and not self._decoder.unconsumed_tail
        if self._decoder.unused_data or (self.is_over and self._rest) or (is_at_end and not part and not self.is_over):
            raise MalformedEncoding
        return part


def _has_zlib_header(body: bytes) -> bool:
    """Some senders mean raw deflate by `deflate`."""
    return len(body) >= 2 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0
