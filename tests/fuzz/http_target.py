"""Bytes against the HTTP protocol: in one piece by the short way, and in many by the usual way, with one result."""

import asyncio
from collections.abc import Sequence
from typing import Final

from relayfile.ingest.webhooks.http_protocol import HttpLimits
from tests.support.http_connection import Connection, Seen

LIMITS: Final = HttpLimits(head_bytes_max=4_096, request_timeout_s=60.0, connections_max=10)
_TURNS: Final = 12

Outcome = tuple[list[Seen], list[int], list[tuple[int, str]]]


def http(data: bytes) -> None:
    """What a connection brings: the first byte says in which pieces it comes."""
    check_bytes(data[:1], data[1:])


def check_bytes(pieces: bytes, data: bytes) -> None:
    """``data`` at once and in pieces of the sizes in ``pieces``, by both ways: understood and answered alike."""
    cut = _cut(data, pieces)
    with asyncio.Runner() as runner:
        once = runner.run(_outcome([data], is_prompt=True))
        assert runner.run(_outcome([data], is_prompt=False)) == once, "the usual way differs"
        assert runner.run(_outcome(cut, is_prompt=True)) == once, "in pieces it differs"
    seen, statuses, refused = once
    assert sum(status == 200 for status in statuses) <= len(seen), "an answer to nothing"
    assert len(refused) <= 1, "refused twice"
    assert [status for status in statuses if status >= 400] == [status for status, _ in refused if status]


def _cut(data: bytes, sizes: bytes) -> list[bytes]:
    pieces: list[bytes] = []
    place = 0
    while place < len(data):
        size = 1 + (sizes[len(pieces) % len(sizes)] if sizes else 0)
        pieces.append(data[place : place + size])
        place += size
    return pieces


async def _outcome(pieces: Sequence[bytes], *, is_prompt: bool) -> Outcome:
    connection = Connection(LIMITS, is_prompt)
    await connection.feed(pieces)
    await connection.settle(_TURNS * (1 + b"".join(pieces).count(b"HTTP/1")))
    return connection.outcome
