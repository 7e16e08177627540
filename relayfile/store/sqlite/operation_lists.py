"""Lists of operations, newest first: which index answers a filter, and how far one page looks.

Owns the order and the choice. What no index tells is looked at row by row, a bounded number for each page.
"""

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Final

import apsw

from relayfile.paths import ROOT
from relayfile.store.engine import WorkspaceKey
from relayfile.store.operation_view import OperationFilter
from relayfile.store.plan.writeback.rows import OperationRow
from relayfile.store.sqlite.operation_rows import ALL_COLUMNS, NEVER_US, READABLE, operation_row

LOOKED_AT_MAX: Final = 5_000
"""Rows that one page of a list reads before it ends, however few of them match."""
BELOW_MAX: Final = 20_000
"""Operations at and below a path that are put in order for a page of them. Below a directory with more of them a page
looks at the newest of the workspace."""

_LAST_ID: Final = "\U0010ffff"
_KEY: Final = "shard_id = ?1 AND workspace_id = ?2"
_ONE: Final = f"SELECT {ALL_COLUMNS} FROM operation WHERE {_KEY} AND operation_id = ?3"
_NEWEST: Final = f"SELECT {ALL_COLUMNS} FROM operation WHERE {_KEY} AND operation_id < ?3"
_NEWEST_BY_TIME: Final = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_by_time WHERE {_KEY} AND created_us >= ?3"
    " AND (created_us, operation_id) < (?4, ?5) ORDER BY created_us DESC, operation_id DESC"
)
_MADE: Final = (
    f"SELECT created_us FROM operation WHERE {_KEY} AND operation_id <= ?3 ORDER BY operation_id DESC LIMIT 1"
)
_IDS: Final = f"SELECT operation_id FROM operation INDEXED BY operation_by_path WHERE {_KEY}"
_IDS_AT: Final = f"{_IDS} AND path = ?3 AND operation_id < ?4 ORDER BY operation_id DESC LIMIT ?5"
_IDS_BELOW: Final = f"{_IDS} AND path >= ?3 AND path < ?4 AND operation_id < ?5 ORDER BY operation_id DESC LIMIT ?6"
_COUNT_BELOW: Final = f"SELECT count(*) FROM ({_IDS} AND path >= ?3 AND path < ?4 LIMIT ?5)"


def list_operations(
    connection: apsw.Connection, key: WorkspaceKey, chosen: OperationFilter, before_id: str, limit: int
) -> tuple[list[OperationRow], str]:
    """(the chosen after the one with the id `before_id` in the order of the list; the id to go on after, empty at the
    end)."""
    found: list[OperationRow] = []
    for looked_at, columns in enumerate(_newest_first(connection, key, chosen, before_id), 1):
        row = operation_row(columns)
        if chosen.selects(row):
            if len(found) == limit:
                return found, found[-1].operation_id
            found.append(row)
        if looked_at >= LOOKED_AT_MAX:
            return found, row.operation_id
    return found, ""


def _newest_first(
    connection: apsw.Connection, key: WorkspaceKey, chosen: OperationFilter, before_id: str
) -> Iterator[tuple[Any, ...]]:
    """By the index that tells the most. In the order of their ids, which is that of their making."""
    before, (column, values) = before_id or _LAST_ID, _narrowest(chosen)
    is_of_object = chosen.quarantine_id or chosen.object_id
    if not is_of_object and chosen.path not in ("", ROOT) and _is_small(connection, key, chosen.path):
        return _of_path(connection, key, chosen.path, before)
    if column:
        query = f"{_NEWEST} AND {column} ORDER BY operation_id DESC"
        found = [connection.execute(query, (*key, before, each)) for each in values]
        return heapq.merge(*found, key=_id, reverse=True)
    if chosen.created_from_us is not None or chosen.created_before_us is not None:
        return _of_time(connection, key, chosen, before_id)
    return connection.execute(f"{_NEWEST} ORDER BY operation_id DESC", (*key, before))


def _id(columns: tuple[Any, ...]) -> str:
    operation_id: str = columns[0]
    return operation_id


def _narrowest(chosen: OperationFilter) -> tuple[str, Sequence[str | int]]:
    """(condition that an index answers, its values)."""
    if chosen.quarantine_id:
        return "quarantine_id = ?4 AND quarantine_id <> ''", (chosen.quarantine_id,)
    if chosen.object_id:
        return "object_key = ?4", ("o:" + chosen.object_id,)
    if chosen.states and READABLE.issuperset(chosen.states):
        return "state = ?4 AND state IN (1, 2, 4, 7)", sorted(chosen.states)
    if chosen.providers:
        return "provider = ?4", sorted(chosen.providers)
    return "", ()


def _below(path: str) -> tuple[str, str]:
    """(first, end) of the paths below a directory: "0" follows "/"."""
    return path + "/", path + "0"


def _is_small(connection: apsw.Connection, key: WorkspaceKey, path: str) -> bool:
    count: int = connection.execute(_COUNT_BELOW, (*key, *_below(path), BELOW_MAX + 1)).get
    return count <= BELOW_MAX


def _of_path(connection: apsw.Connection, key: WorkspaceKey, path: str, before_id: str) -> Iterator[tuple[Any, ...]]:
    at = connection.execute(_IDS_AT, (*key, path, before_id, LOOKED_AT_MAX))
    below = connection.execute(_IDS_BELOW, (*key, *_below(path), before_id, LOOKED_AT_MAX))
    for (operation_id,) in heapq.merge(at, below, reverse=True):
        yield from connection.execute(_ONE, (*key, operation_id))


def _of_time(
    connection: apsw.Connection, key: WorkspaceKey, chosen: OperationFilter, before_id: str
) -> Iterator[tuple[Any, ...]]:
    """In the order of their times, which is that of their ids but for a clock that was set back."""
    before = (NEVER_US if chosen.created_before_us is None else chosen.created_before_us, "")
    if before_id:
        # Of one that is gone by now, when the one made before it was made.
        made_us: int | None = connection.execute(_MADE, (*key, before_id)).get
        before = min(before, (0 if made_us is None else made_us, before_id))
    return connection.execute(_NEWEST_BY_TIME, (*key, chosen.created_from_us or 0, *before))
