"""What nothing may ask for any more, in small batches.

Released contents, deliveries and request ids of old periods, events and administrative actions past their time.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import apsw

from relayfile.store.engine import WorkspaceKey
from relayfile.store.sqlite.periods import PERIOD_US, SLOTS

CONTENT_GRACE_US = 60_000_000
"""How long a replaced content stays, so that a reader in chunks can finish."""
SMALL_GRACE_US = 5_000_000
"""As long for one that is read in one piece, right after its file's row."""
SMALL_BYTES_MAX = 64 << 10
"""Such contents; no message is set to carry less."""
GARBAGE_BYTES_PER_STEP = 4 << 20
"""SQLite visits every page of a content that it deletes: up to 1 ms, and what the disk takes to read them."""
LARGE_BYTES_MIN = 1 << 20
"""Such contents are deleted in the writer's thread."""
GARBAGE_PER_COMMIT = 200
"""Contents that go with a commit, so that edits without end take no more room than those of some seconds."""

WORKSPACES_PER_BATCH = 200
"""Looked at in one step, which is some milliseconds of the event loop."""
START = (-1, "")
"""Before the first workspace."""

_WORKSPACES = (
    "SELECT shard_id, workspace_id, revision FROM workspace WHERE (shard_id, workspace_id) > (?, ?)"
    " ORDER BY shard_id, workspace_id LIMIT ?"
)
_LAST_OLD_EVENT = (
    "SELECT max(revision) FROM (SELECT revision, committed_us FROM event WHERE shard_id = ? AND workspace_id = ?"
    " ORDER BY revision LIMIT ?) WHERE committed_us < ? OR revision <= ?"
)
_EVENTS_DELETE = "DELETE FROM event WHERE shard_id = ? AND workspace_id = ? AND revision <= ?"
_GARBAGE = (
    "SELECT g.released_us, g.content_id, coalesce(length(c.data), 0) FROM content_garbage AS g"
    " LEFT JOIN content AS c ON c.content_id = g.content_id WHERE g.shard_id = ?1 AND g.released_us < ?2"
    " AND (g.released_us < ?3 OR length(c.data) <= ?4) LIMIT ?5"
)
_GARBAGE_DELETE = "DELETE FROM content_garbage WHERE shard_id = ? AND released_us = ? AND content_id = ?"
_CONTENT_DELETE = "DELETE FROM content WHERE content_id = ?"
_ACTIONS = "SELECT shard_id, workspace_id, action_id FROM admin_action WHERE shard_id = ? AND action_us < ? LIMIT ?"
_ACTION_DELETE = "DELETE FROM admin_action WHERE shard_id = ? AND workspace_id = ? AND action_id = ?"
_PERIOD_KEYS = (
    ("delivery", "shard_id, workspace_id, provider, delivery_id, change_key"),
    ("duplicate_seen", "shard_id, workspace_id, envelope_id, change_number"),
    ("request", "shard_id, workspace_id, method, request_id"),
)
PERIOD_TABLES = tuple(table for table, _ in _PERIOD_KEYS)
"""Each has a table for every slot."""


class Garbage(NamedTuple):
    """What one step of removing contents did."""

    removed_count: int
    """At most the limit; the limit also where their size ended the step: there may be more."""
    large: Sequence[int]
    """Contents of `removed_count` that are still to be deleted, with `remove_contents`."""


def remove_garbage(connection: apsw.Connection, shard_ids: Iterable[int], now_us: int, limit: int) -> Garbage:
    """Inside the caller's transaction: at most `limit` contents, and `GARBAGE_BYTES_PER_STEP` but for the last one."""
    found: list[tuple[int, int, int]] = []
    small: list[int] = []
    large: list[int] = []
    size_bytes = 0
    for shard_id in shard_ids:
        if len(found) >= limit or size_bytes >= GARBAGE_BYTES_PER_STEP:
            break
        bindings = (shard_id, now_us - SMALL_GRACE_US, now_us - CONTENT_GRACE_US, SMALL_BYTES_MAX, limit - len(found))
        due: Iterable[tuple[int, int, int]] = connection.execute(_GARBAGE, bindings)
        for released_us, content_id, content_bytes in due:
            found.append((shard_id, released_us, content_id))
            (large if content_bytes >= LARGE_BYTES_MIN else small).append(content_id)
            size_bytes += content_bytes
            if size_bytes >= GARBAGE_BYTES_PER_STEP:
                break
    remove_contents(connection, small)
    connection.executemany(_GARBAGE_DELETE, found)
    return Garbage(limit if size_bytes >= GARBAGE_BYTES_PER_STEP else len(found), large)


def remove_contents(connection: apsw.Connection, content_ids: Iterable[int]) -> None:
    """Inside the caller's transaction."""
    connection.executemany(_CONTENT_DELETE, [(content_id,) for content_id in content_ids])


def remove_actions(connection: apsw.Connection, shard_ids: Iterable[int], older_than_us: int, limit: int) -> int:
    """Inside the caller's transaction; how many administrative actions went."""
    found: list[tuple[int, str, str]] = []
    for shard_id in shard_ids:
        if len(found) >= limit:
            break
        found += connection.execute(_ACTIONS, (shard_id, older_than_us, limit - len(found)))
    connection.executemany(_ACTION_DELETE, found)
    return len(found)


def expired_slot(now_us: int, retention_us: int) -> int | None:
    """The slot whose rows are all older than the retention and which the next period will use; None: not yet."""
    period = now_us // PERIOD_US
    newest_row_us = (period - 1) * PERIOD_US
    return (period + 1) % SLOTS if now_us - newest_row_us >= retention_us else None


def empty_slot(connection: apsw.Connection, slot: int, limit: int) -> int:
    """Inside the caller's transaction; how many rows went, 0 when the slot is empty."""
    count = 0
    for table, columns in _PERIOD_KEYS:
        name = f"{table}_{slot}"
        connection.execute(
            f"DELETE FROM {name} WHERE ({columns}) IN (SELECT {columns} FROM {name} LIMIT ?)", (limit - count,)
        )
        count += connection.changes()
        if count >= limit:
            break
    return count


class EventRetention(NamedTuple):
    """Which events stay (D16)."""

    now_us: int
    retention_us: int
    events_max: int
    """Of one workspace."""
    held: Mapping[WorkspaceKey, int]
    """The oldest cursor of a workspace that is still read from: what is after it stays up to twice as long."""


def remove_events(
    connection: apsw.Connection, after: tuple[int, str], retention: EventRetention, limit: int
) -> tuple[int, tuple[int, str]]:
    """Inside the caller's transaction, of some workspaces after `after`: (how many events went, where to go on)."""
    removed = 0
    workspaces: list[tuple[int, str, int]] = list(connection.execute(_WORKSPACES, (*after, WORKSPACES_PER_BATCH)))
    for shard_id, workspace_id, revision in workspaces:
        key = WorkspaceKey(shard_id, workspace_id)
        last = _last_removable(connection, key, revision, retention, limit - removed)
        if last is not None:
            connection.execute(_EVENTS_DELETE, (*key, last))
            removed += connection.changes()
            if removed >= limit:
                return removed, after  # perhaps not all of this workspace's
        after = key
    return removed, after if len(workspaces) == WORKSPACES_PER_BATCH else START


def _last_removable(
    connection: apsw.Connection, key: WorkspaceKey, newest: int, retention: EventRetention, limit: int
) -> int | None:
    """The last of the next `limit` events that may go; None when none may."""

    def last_beyond(times: int) -> int | None:
        older_than_us = retention.now_us - times * retention.retention_us
        bindings = (*key, limit, older_than_us, newest - times * retention.events_max)
        found: int | None = connection.execute(_LAST_OLD_EVENT, bindings).get
        return found

    last = last_beyond(1)
    cursor = retention.held.get(key)
    if last is None or cursor is None or last <= cursor:
        return last
    return max(cursor, last_beyond(2) or 0)
