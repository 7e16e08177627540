"""What is about a node's whole file: contents that nothing refers to, and rows in the wrong place."""

from collections.abc import Generator
from functools import partial
from typing import Final

import apsw

from relayfile.placement import shard_of
from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import NODE, Check, Finding, Tally
from relayfile.store.sqlite.audit.step import ROWS_PER_STEP, ROWS_PER_TURN, Look
from relayfile.store.sqlite.expiry import CONTENT_GRACE_US, START
from relayfile.store.sqlite.removal import tables_with

OVERDUE_US: Final = CONTENT_GRACE_US + 15 * 60_000_000
"""So long after its release a content should be gone."""
CONFIRMED_MAX: Final = 1_000
"""Suspects of one step; one is enough to look closer."""

_WORKSPACES = (
    "SELECT shard_id, workspace_id FROM workspace WHERE (shard_id, workspace_id) > (?, ?)"
    " ORDER BY shard_id, workspace_id LIMIT ?"
)
_OF_WORKSPACES = (
    "file", "directory", "event", "object", "file_term", "provider_directory", "operation", "held_change",
)  # fmt: skip
"""Tables whose rows stand and fall with their workspace's."""
_BOUNDS = "SELECT coalesce(min(content_id), 0), coalesce(max(content_id), 0) FROM content"
_CONTENT_IDS = "SELECT content_id FROM content WHERE content_id BETWEEN ? AND ? ORDER BY content_id LIMIT ?"
_OVERDUE = "SELECT count(*) FROM content_garbage WHERE shard_id = ? AND released_us < ?"
_SHARDS = "SELECT shard_id FROM shard ORDER BY shard_id"


def check_placement(cursor: apsw.Cursor, tally: Tally, shard_count: int, after: tuple[int, str] = START) -> Look:
    """Whether each workspace is in its shard."""
    rows = list(cursor.execute(_WORKSPACES, (*after, ROWS_PER_STEP)))
    for number, (shard_id, workspace_id) in enumerate(rows, 1):
        belongs = shard_of(workspace_id, shard_count)
        if belongs != shard_id:
            message = f"the workspace belongs to the shard {belongs}"
            yield Finding(Check.INDEXES, shard_id, workspace_id, "workspace", "SHARD_MISMATCH", message)
        if not number % ROWS_PER_TURN:
            yield None
    return partial(check_placement, shard_count=shard_count, after=rows[-1]) if len(rows) == ROWS_PER_STEP else None


def check_strays(cursor: apsw.Cursor, tally: Tally) -> Look:
    """Whether there are rows of workspaces that do not exist: one seek for each workspace and table."""
    for table in _OF_WORKSPACES:
        after, number = START, 0
        while True:
            row: tuple[int, str, int] | None = cursor.execute(
                f"SELECT t.shard_id, t.workspace_id, w.workspace_id IS NULL FROM {table} AS t LEFT JOIN workspace AS w"
                " ON w.shard_id = t.shard_id AND w.workspace_id = t.workspace_id"
                " WHERE (t.shard_id, t.workspace_id) > (?, ?) ORDER BY t.shard_id, t.workspace_id LIMIT 1",
                after,
            ).fetchone()
            if row is None:
                break
            after = row[:2]
            if row[2]:
                message = f"{table} has rows of a workspace that does not exist"
                yield Finding(Check.REFERENCES, *after, table, "WORKSPACE_MISSING", message)
            number += 1
            if not number % ROWS_PER_TURN:
                yield None
    return None


def check_overdue(cursor: apsw.Cursor, tally: Tally, now_us: int) -> Look:
    """Whether released contents are removed in time. They will be: only of interest to a strict audit."""
    shard_ids: list[int] = [row[0] for row in cursor.execute(_SHARDS)]
    for shard_id in shard_ids:
        count: int = cursor.execute(_OVERDUE, (shard_id, now_us - OVERDUE_US)).get
        if count:
            message = f"{count} released contents are still there after {OVERDUE_US // 60_000_000} minutes"
            yield Finding(Check.REFERENCES, shard_id, "", "content_garbage", "GARBAGE_OVERDUE", message)
        yield None
    return None


def check_kept(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey) -> Look:
    """Whether what other tables than files keep as a content is there."""
    for table in tables_with(cursor.connection, "shard_id", "workspace_id", "content_id"):
        if table == "file":
            continue
        rows = cursor.execute(
            f"SELECT t.content_id, c.content_id FROM {table} AS t LEFT JOIN content AS c"
            " ON c.content_id = t.content_id WHERE t.shard_id = ? AND t.workspace_id = ? AND t.content_id > 0",
            key,
        )
        for number, (content_id, found) in enumerate(rows, 1):
            if found is None:
                message = f"a row of {table} refers to it, and it is not there"
                yield Finding(Check.REFERENCES, *key, f"content {content_id}", "CONTENT_MISSING", message)
            if not number % ROWS_PER_TURN:
                yield None
    return None


class Orphans:
    """Contents that nothing refers to, and released ones that something refers to.

    Three rounds of steps: what tables refer to, what is released, what is there. Costs a bit of memory for each content
    ever made since the oldest. What is made after the start is not looked at. A reference may move behind the scan's
    back, from a row that was not read yet to one that was: suspects are therefore looked for again, in one snapshot.
    """

    def __init__(self) -> None:
        self._first = 0
        self._last = -1
        self._referred = bytearray()

    def begin(self, cursor: apsw.Cursor, tally: Tally) -> Look:
        """The first step."""
        bounds: list[tuple[int, int]] = list(cursor.execute(_BOUNDS))
        self._first, self._last = bounds[0]
        self._referred = bytearray((self._last - self._first) // 8 + 1)
        yield None
        return partial(self._mark, sources=tuple(_sources(cursor.connection)))

    def _mark(self, cursor: apsw.Cursor, tally: Tally, sources: tuple[str, ...]) -> Look:
        """Note what the tables refer to. A table is read in one snapshot."""
        if not sources:
            return self._released
        for number, (content_id,) in enumerate(cursor.execute(f"SELECT content_id FROM {sources[0]}"), 1):
            self._refer(content_id)
            if not number % ROWS_PER_TURN:
                yield None
        return partial(self._mark, sources=sources[1:])

    def _released(self, cursor: apsw.Cursor, tally: Tally) -> Look:
        suspects: set[int] = set()
        released: list[int] = []
        for number, (content_id,) in enumerate(cursor.execute("SELECT content_id FROM content_garbage"), 1):
            released.append(content_id)
            if self._is_referred(content_id) and len(suspects) < CONFIRMED_MAX:
                suspects.add(content_id)
            if not number % ROWS_PER_TURN:
                yield None
        for content_id in sorted(suspects - (yield from _unreferred(cursor, suspects))):
            message = "something refers to it, and it is released: it would be removed"
            yield Finding(Check.REFERENCES, NODE, "", f"content {content_id}", "CONTENT_RELEASED", message)
        for content_id in released:
            self._refer(content_id)
        return partial(self._sift, low=self._first)

    def _sift(self, cursor: apsw.Cursor, tally: Tally, low: int) -> Look:
        ids = [row[0] for row in cursor.execute(_CONTENT_IDS, (low, self._last, ROWS_PER_STEP))]
        yield None
        suspects = {each for each in ids if not self._is_referred(each)}
        if suspects:
            # Those that were released meanwhile are in a table that was read already.
            suspects -= {row[0] for row in cursor.execute("SELECT content_id FROM content_garbage")}
            suspects = set(sorted(suspects)[:CONFIRMED_MAX])
        for content_id in sorted((yield from _unreferred(cursor, suspects))):
            message = "no file, dead letter or operation refers to it, and it is not released"
            yield Finding(Check.REFERENCES, NODE, "", f"content {content_id}", "CONTENT_ORPHANED", message)
        return partial(self._sift, low=ids[-1] + 1) if len(ids) == ROWS_PER_STEP else None

    def _refer(self, content_id: int) -> None:
        place = content_id - self._first
        if 0 <= place <= self._last - self._first:
            self._referred[place >> 3] |= 1 << (place & 7)

    def _is_referred(self, content_id: int) -> bool:
        place = content_id - self._first
        return 0 <= place <= self._last - self._first and bool(self._referred[place >> 3] & 1 << (place & 7))


def _unreferred(cursor: apsw.Cursor, suspects: set[int]) -> Generator[None, None, set[int]]:
    """Those that nothing refers to in this snapshot. Reads every table whole, when there are suspects at all."""
    left = set(suspects)
    for source in _sources(cursor.connection) if left else ():
        for number, (content_id,) in enumerate(cursor.execute(f"SELECT content_id FROM {source}"), 1):
            left.discard(content_id)
            if not number % ROWS_PER_TURN:
                yield None
    return left


def _sources(connection: apsw.Connection) -> list[str]:
    """Tables that refer to contents."""
    return [table for table in tables_with(connection, "content_id") if table not in ("content", "content_garbage")]
