"""Answers to requests that carry an id, kept for seven days, so that a repeat is harmless.

Owns the rows of `request` in `mirrors.db`. Two calls with the same id do not run at the same time: the second gets the
first one's answer. Refuses to keep failures: what failed may be tried again with the same id.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import apsw
from google.protobuf.message import Message

from relayfile.clock import Clock
from relayfile.errors import FieldViolation, RequestIdReused
from relayfile.syncd.journal_rows import storage_errors

REQUEST_ID_BYTES_MAX: Final = 128
_KEPT_US: Final = 7 * 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class Kept:
    """What was answered, or (``answer`` None, of a mirror that was made) for which mirror."""

    mirror_id: str
    workspace_id: str
    answer: bytes | None


@dataclass(slots=True)
class _UnderWay:
    """Calls with one id."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    calls: int = 0


class Answers:
    """Of one process. ``once`` around each call that changes something and has a request id."""

    def __init__(self, db: apsw.Connection, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._under_way: dict[str, _UnderWay] = {}

    @asynccontextmanager
    async def once(self, request_id: str) -> AsyncIterator[None]:
        """Alone with this id; an empty one is nobody's."""
        if not request_id:
            yield
            return
        under_way = self._under_way.setdefault(request_id, _UnderWay())
        under_way.calls += 1
        try:
            async with under_way.turn:
                yield
        finally:
            under_way.calls -= 1
            if not under_way.calls:
                del self._under_way[request_id]

    def find(self, request_id: str, fingerprint: bytes) -> Kept | None:
        """What was kept for the id; ``RequestIdReused`` when that was for another request."""
        if not request_id:
            return None
        with storage_errors():
            self._db.execute("DELETE FROM request WHERE create_us < ?", (self._clock.now_us() - _KEPT_US,))
            row = self._db.execute(
                "SELECT fingerprint, mirror_id, workspace_id, answer FROM request WHERE request_id = ?", (request_id,)
            ).fetchone()
        if row is None:
            return None
        found, mirror_id, workspace_id, answer = row
        if found != fingerprint:
            raise RequestIdReused(request_id=request_id)
        return Kept(str(mirror_id), str(workspace_id), answer if isinstance(answer, bytes) else None)

    def keep(self, request_id: str, fingerprint: bytes, kept: Kept) -> None:
        """Answer repeats with this from now on."""
        if not request_id:
            return
        with storage_errors():
            self._db.execute(
                "INSERT INTO request (request_id, fingerprint, mirror_id, create_us, workspace_id, answer) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (request_id, fingerprint, kept.mirror_id, self._clock.now_us(), kept.workspace_id, kept.answer),
            )


def fingerprint(request: Message, rpc: str = "") -> bytes:
    """What makes a repeat the same request. (``CreateMirror`` has none before it: so it was kept from the first.)"""
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("request_id")
    raw = copy.SerializeToString(deterministic=True)
    return rpc.encode() + b"\0" + raw if rpc else raw


def check_request_id(request_id: str) -> list[FieldViolation]:
    """What is wrong with an id, if anything is."""
    if len(request_id.encode()) > REQUEST_ID_BYTES_MAX:
        return [FieldViolation("request_id", f"has more than {REQUEST_ID_BYTES_MAX} bytes")]
    return []
