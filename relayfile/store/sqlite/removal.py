"""Removes what deleted workspaces leave behind, in small batches, and their tombstones when their time is over.

Owns the order: contents are released with the rows that refer to them, counters go last. Every table whose rows name a
workspace is emptied of its rows, those of later releases too. What stays: the tombstone, the administrative actions,
and the answers of requests to delete it.
"""

from collections.abc import Iterable
from typing import Final

import apsw

from relayfile.store.engine import WorkspaceKey

DELETE_METHOD: Final = "relayfile.v1.WorkspaceService/DeleteWorkspace"
KEPT: Final = frozenset({"workspace", "workspace_removal", "admin_action"})

_TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
_COLUMNS = "SELECT name, pk FROM pragma_table_info(?)"
_DUE = "SELECT shard_id, workspace_id FROM workspace_removal ORDER BY deleted_us LIMIT 1"
_DONE = "DELETE FROM workspace_removal WHERE shard_id = ? AND workspace_id = ?"
_ENDED = (
    "SELECT shard_id, workspace_id FROM workspace WHERE shard_id = ? AND deleted_us IS NOT NULL AND deleted_us < ?"
    " ORDER BY deleted_us LIMIT 1"
)
_TOMBSTONE_DELETE = "DELETE FROM workspace WHERE shard_id = ? AND workspace_id = ?"
_OF_WORKSPACE = "shard_id = ? AND workspace_id = ?"
_RELEASE = "INSERT OR IGNORE INTO content_garbage (shard_id, released_us, content_id) VALUES (?, ?, ?)"


def tables_with(connection: apsw.Connection, *columns: str) -> dict[str, tuple[str, ...]]:
    """The tables that have all of these columns, with those of their keys."""
    found: dict[str, tuple[str, ...]] = {}
    tables: list[str] = [row[0] for row in connection.execute(_TABLES)]
    for table in tables:
        places: dict[str, int] = dict(connection.execute(_COLUMNS, (table,)))
        if set(columns) <= places.keys():
            key = sorted((name for name in places if places[name]), key=lambda name: places[name])
            found[table] = tuple(key) or ("rowid",)
    return found


def remove_deleted(
    connection: apsw.Connection, shard_ids: Iterable[int], now_us: int, ended_before_us: int, limit: int
) -> int:
    """Inside the caller's transaction; how many rows went, 0 when nothing is left to remove."""
    due = connection.execute(_DUE).fetchone()
    if due is not None:
        key = WorkspaceKey(*due)
        removed = _clear(connection, key, now_us, limit)
        if removed < limit:
            connection.execute(_DONE, key)
            removed += 1
        return removed
    for shard_id in shard_ids:
        ended = connection.execute(_ENDED, (shard_id, ended_before_us)).fetchone()
        if ended is not None:
            key = WorkspaceKey(*ended)
            removed = _clear(connection, key, now_us, limit)  # what arrived for it, and ended as ignored
            if removed < limit:
                connection.execute(_TOMBSTONE_DELETE, key)
                removed += 1
            return removed
    return 0


def _clear(connection: apsw.Connection, key: WorkspaceKey, now_us: int, limit: int) -> int:
    removed = 0
    tables = tables_with(connection, "shard_id", "workspace_id")
    referring = tables_with(connection, "content_id")
    # Triggers keep sums of dead letters in tables that are emptied too: those come after.
    for table in sorted(tables, key=lambda name: ("count" in name or "total" in name, name)):
        if table in KEPT or removed >= limit:
            continue
        columns = ", ".join(tables[table])
        chosen = f"SELECT {columns} FROM {table} WHERE {_OF_WORKSPACE}"
        bindings: tuple[int | str, ...] = (*key, limit - removed)
        if table.startswith("request_"):
            chosen += " AND method <> ?"
            bindings = (*key, DELETE_METHOD, limit - removed)
        chosen += f" ORDER BY {columns} LIMIT ?"
        if table in referring:
            held = connection.execute(
                f"SELECT content_id FROM {table} WHERE ({columns}) IN ({chosen}) AND content_id > 0", bindings
            ).fetchall()
            connection.executemany(_RELEASE, [(key.shard_id, now_us, content_id) for (content_id,) in held])
        connection.execute(f"DELETE FROM {table} WHERE ({columns}) IN ({chosen})", bindings)
        removed += connection.changes()
    return removed
