"""Operations and held changes as rows: what plans write of them, and how they are found.

Owns every statement on their tables. Contents to which operations refer are kept by triggers (0009). Refuses to decide:
which operation changes how is in the plan.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Final

import apsw

from relayfile.store.engine import PlannedEntry, WorkspaceKey
from relayfile.store.operation_view import OperationFilter
from relayfile.store.plan.rows import ObjectKey
from relayfile.store.plan.slice import ObjectOperations
from relayfile.store.plan.writeback.rows import (
    CONTENT_OF_FILE,
    FREED_US,
    HeldChange,
    OperationRow,
)
from relayfile.store.sqlite.operation_lists import list_operations
from relayfile.store.sqlite.operation_rows import ALL_COLUMNS, COLUMNS, READABLE, operation_columns, operation_row
from relayfile.store.sqlite.rows import Rows
from relayfile.store.wire import member_message, read_member
from relayfile.v1 import shard_pb2

OF_OBJECT_MAX: Final = 256
"""Operations of one object that a plan sees: all unfinished ones, and the latest that reached the provider."""
PENDING_DELETES_MAX: Final = 100_000
"""Unclaimed deletes of a workspace that one plan puts into quarantine."""

_FIRST_ID = ""

_KEY = "shard_id = ?1 AND workspace_id = ?2"
_ONE = f"{_KEY} AND operation_id = ?3"
_CHANGED = ", ".join(
    f"{name} = excluded.{name}" for name in (*COLUMNS[1:], "change_number") if name not in ("content_id", "created_us")
)
_PUT = (
    f"INSERT INTO operation (shard_id, workspace_id, {ALL_COLUMNS}, change_number)"
    f" VALUES ({', '.join('?' * (len(COLUMNS) + 3))})"
    f" ON CONFLICT (shard_id, workspace_id, operation_id) DO UPDATE SET {_CHANGED}"
)
_TAKE_CONTENT = (
    "UPDATE operation SET content_id = coalesce((SELECT content_id FROM file"
    f" WHERE shard_id = ?1 AND workspace_id = ?2 AND path = ?4), 0) WHERE {_ONE}"
)
_LEAVE_CONTENT = f"UPDATE operation SET content_id = 0 WHERE {_ONE} AND content_id <> 0"
_HELD_DELETE = "DELETE FROM held_change WHERE shard_id = ? AND workspace_id = ? AND provider = ? AND object_key = ?"
_HELD_PUT = "INSERT OR REPLACE INTO held_change VALUES (?, ?, ?, ?, ?, ?, ?)"
_HELD_FREE = (
    f"UPDATE held_change SET held_us = {FREED_US}"
    " WHERE shard_id = ? AND workspace_id = ? AND provider = ? AND object_key = ?"
)
_CONTENT = "INSERT INTO content VALUES (?, ?, ?)"
_GARBAGE = "INSERT INTO content_garbage VALUES (?, ?, ?)"

_HAS_ANY = f"SELECT 1 FROM operation WHERE {_KEY} LIMIT 1"
_OF_OBJECT = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_of_object WHERE {_KEY} AND provider = ?3"
    " AND object_key = ?4 AND (claim_number > 0 OR ended_us = 9223372036854775807) ORDER BY ended_us DESC LIMIT ?5"
)
_HELD = (
    "SELECT h.held_us, h.content_id, h.ingest_id, c.data FROM held_change AS h JOIN content AS c USING (content_id)"
    " WHERE h.shard_id = ?1 AND h.workspace_id = ?2 AND h.provider = ?3 AND h.object_key = ?4"
)
_HELD_KEYS = f"SELECT provider, object_key, held_us FROM held_change WHERE {_KEY} AND held_us <= ?3 LIMIT ?4"
_BY_ID = f"SELECT {ALL_COLUMNS} FROM operation WHERE {_ONE}"
_PROVIDERS = (
    "SELECT DISTINCT provider FROM operation INDEXED BY operation_claimable"
    f" WHERE {_KEY} AND state = 1 AND is_blocked = 0"
)
_CLAIMABLE = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_claimable WHERE {_KEY} AND provider = ?3 AND state = 1"
    " AND is_blocked = 0 AND claimable_us <= ?4 ORDER BY claimable_us, operation_id LIMIT ?5"
)
_NEXT_CLAIMABLE = (
    f"SELECT min(claimable_us) FROM operation INDEXED BY operation_claimable WHERE {_KEY} AND provider = ?3"
    " AND state = 1 AND is_blocked = 0 AND claimable_us > ?4"
)
_CLAIMED = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_claimed WHERE {_KEY} AND state = 2 AND provider = ?3"
    " ORDER BY claim_expire_us"
)
_CLAIMED_PROVIDERS = (
    f"SELECT provider, min(claim_expire_us) FROM operation INDEXED BY operation_claimed WHERE {_KEY} AND state = 2"
    " GROUP BY provider"
)
_OF_REQUEST = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_claim_request WHERE shard_id = ?1 AND workspace_id = ?2"
    " AND claim_request >= ?3 AND claim_request < ?4 AND claim_request <> '' AND state = 2"
)
_RECENT_DELETES = (
    "SELECT count(*) FROM (SELECT 1 FROM operation INDEXED BY operation_delete"
    f" WHERE {_KEY} AND created_us > ?3 AND kind = 2 AND (quarantine_id = '' OR state = 7) LIMIT ?4)"
)
_OPEN_QUARANTINE = (
    f"SELECT quarantine_id FROM operation INDEXED BY operation_by_state WHERE {_KEY} AND state = 7"
    " AND state IN (1, 2, 4, 7) ORDER BY operation_id DESC LIMIT 1"
)
_PENDING_DELETES = (
    f"SELECT {ALL_COLUMNS} FROM operation INDEXED BY operation_by_state WHERE {_KEY} AND state = 1"
    " AND state IN (1, 2, 4, 7) AND kind = 2 LIMIT ?3"
)
_CHANGED_AFTER = (
    f"SELECT change_number, {ALL_COLUMNS} FROM operation INDEXED BY operation_by_change WHERE {_KEY}"
    " AND change_number > ?3 ORDER BY change_number LIMIT ?4"
)
_NEWEST_CHANGE = f"SELECT max(change_number) FROM operation INDEXED BY operation_by_change WHERE {_KEY}"
_SEEN = f"SELECT 1 FROM provider_seen WHERE {_KEY} AND provider = ?3"
_NEXT_OPEN_WORKSPACE = (
    "SELECT workspace_id FROM operation INDEXED BY operation_by_state WHERE shard_id = ?1 AND workspace_id > ?2"
    " AND state IN (1, 2, 4, 7) AND state IN (1, 2) ORDER BY workspace_id LIMIT 1"
)
_NEXT_HELD_WORKSPACE = (
    "SELECT workspace_id FROM held_change WHERE shard_id = ?1 AND workspace_id > ?2 ORDER BY workspace_id LIMIT 1"
)
_OLDEST_HELD = f"SELECT min(held_us) FROM held_change WHERE {_KEY}"
_EXPIRED = (
    "SELECT shard_id, workspace_id, operation_id FROM operation INDEXED BY operation_by_end"
    " WHERE shard_id = ? AND ended_us < ? ORDER BY ended_us LIMIT ?"
)
_DELETE = "DELETE FROM operation WHERE shard_id = ? AND workspace_id = ? AND operation_id = ?"


def operation_statements(entries: Sequence[PlannedEntry], numbers: "count[int]") -> Iterator[tuple[str, Rows]]:
    """What the entries do to operations; after their files, whose contents new operations take."""
    changes = [(key, plan.operations, at) for key, plan, at in entries if plan.operations is not None]
    if not changes:
        return
    puts: Rows = []
    takes: Rows = []
    leaves: Rows = []
    for key, operations, _ in changes:
        for row in operations.rows:
            puts.append((*key, *operation_columns(row), next(numbers)))
            if row.state not in READABLE or not row.content_id:
                leaves.append((*key, row.operation_id))
            elif row.content_id == CONTENT_OF_FILE:
                takes.append((*key, row.operation_id, row.path))
    yield _PUT, puts
    yield _LEAVE_CONTENT, leaves
    yield _TAKE_CONTENT, takes
    removed = [(key, held, at) for key, operations, at in changes for held in operations.held_removed]
    yield _GARBAGE, [(key.shard_id, at, held.content_id) for key, held, at in removed]
    yield _HELD_DELETE, [(*key, *held.key) for key, held, _ in removed]
    contents: Rows = []
    held_rows: Rows = []
    for key, operations, _ in changes:
        for held in operations.held_put:
            content_id = next(numbers)
            contents.append((content_id, key.shard_id, member_message(held.member).SerializeToString()))
            held_rows.append((*key, *held.key, held.held_us, content_id, held.ingest_id))
    yield _CONTENT, contents
    yield _HELD_PUT, held_rows
    yield _HELD_FREE, [(*key, *freed) for key, operations, _ in changes for freed in operations.held_freed]


def has_operations(connection: apsw.Connection, key: WorkspaceKey) -> bool:
    """Whether the workspace has any."""
    return connection.execute(_HAS_ANY, key).fetchone() is not None


def load_operations(connection: apsw.Connection, key: WorkspaceKey, objects: Iterable[ObjectKey]) -> ObjectOperations:
    """Of each object what a plan needs; two seeks for each in a workspace that has operations at all."""
    loaded = ObjectOperations()
    if not has_operations(connection, key):
        return loaded
    for each in objects:
        rows = [operation_row(row) for row in connection.execute(_OF_OBJECT, (*key, *each, OF_OBJECT_MAX))]
        if rows:
            loaded.rows[each] = rows
        if (held := _held(connection, key, each)) is not None:
            loaded.held[each] = held
    return loaded


def _held(connection: apsw.Connection, key: WorkspaceKey, each: ObjectKey) -> HeldChange | None:
    row = connection.execute(_HELD, (*key, *each)).fetchone()
    if row is None:
        return None
    held_us, content_id, ingest_id, data = row
    member = read_member(shard_pb2.FoldMember.FromString(data))
    return HeldChange(each, member, held_us, content_id, ingest_id)


class OperationReads:
    """Reads of one workspace's operations in the snapshot of a view."""

    __slots__ = ("_connection", "_key")

    def __init__(self, connection: apsw.Connection, key: WorkspaceKey) -> None:
        self._connection = connection
        self._key = key

    async def by_ids(self, operation_ids: Iterable[str]) -> dict[str, OperationRow]:
        """Those that exist."""
        found = (self._rows(_BY_ID, each) for each in operation_ids)
        return {row.operation_id: row for rows in found for row in rows}

    async def of_objects(self, objects: Iterable[ObjectKey]) -> ObjectOperations:
        """See `load_operations`."""
        return load_operations(self._connection, self._key, objects)

    async def held_of(self, objects: Iterable[ObjectKey]) -> dict[ObjectKey, HeldChange]:
        """What is held of the objects."""
        found = {each: _held(self._connection, self._key, each) for each in objects}
        return {each: held for each, held in found.items() if held is not None}

    async def listed(self, chosen: OperationFilter, before_id: str, limit: int) -> tuple[list[OperationRow], str]:
        """(the chosen, newest first; the id to go on after, empty at the end)."""
        return list_operations(self._connection, self._key, chosen, before_id, limit)

    async def changed_after(self, change_number: int, limit: int) -> tuple[list[OperationRow], int]:
        """(operations that changed after it, the number up to which was looked)."""
        rows = list(self._connection.execute(_CHANGED_AFTER, (*self._key, change_number, limit)))
        return [operation_row(row[1:]) for row in rows], rows[-1][0] if rows else change_number

    async def newest_change(self) -> int:
        """The number of the last change; 0 without operations."""
        newest: int | None = self._connection.execute(_NEWEST_CHANGE, self._key).get
        return newest or 0

    async def claimable_providers(self) -> list[str]:
        """Those of which something waits, whether or not it may be claimed already."""
        return [provider for (provider,) in self._connection.execute(_PROVIDERS, self._key)]

    async def claimable(self, provider: str, now_us: int, limit: int) -> list[OperationRow]:
        """What may be claimed, in the order in which it became so."""
        return self._rows(_CLAIMABLE, provider, now_us, limit)

    async def next_claimable_us(self, provider: str, now_us: int) -> int | None:
        """When the next one becomes claimable."""
        at: int | None = self._connection.execute(_NEXT_CLAIMABLE, (*self._key, provider, now_us)).get
        return at

    async def claimed(self, provider: str) -> list[OperationRow]:
        """Who has what; what ends first, first."""
        return self._rows(_CLAIMED, provider)

    async def claim_ends(self) -> dict[str, int]:
        """Provider -> when its next claim ends."""
        return dict(self._connection.execute(_CLAIMED_PROVIDERS, self._key))

    async def claimed_by_request(self, request_id: str) -> list[OperationRow]:
        """What is claimed by a request with this id."""
        return self._rows(_OF_REQUEST, request_id + "\n", request_id + "\x0b")

    async def recent_deletes(self, after_us: int, limit: int) -> int:
        """Deletes since then that were not approved, counted up to `limit`."""
        number: int = self._connection.execute(_RECENT_DELETES, (*self._key, after_us, limit)).get
        return number

    async def open_quarantine(self) -> str:
        """The group that waits for an approval; empty when none does."""
        found: str | None = self._connection.execute(_OPEN_QUARANTINE, self._key).get
        return found or ""

    async def pending_deletes(self) -> list[OperationRow]:
        """Unclaimed deletes that are not in quarantine."""
        return self._rows(_PENDING_DELETES, PENDING_DELETES_MAX)

    async def held_before(self, held_us: int, limit: int) -> list[ObjectKey]:
        """Objects whose changes are held since then or longer."""
        rows = self._connection.execute(_HELD_KEYS, (*self._key, held_us, limit))
        return [ObjectKey(provider, object_key) for provider, object_key, _ in rows]

    async def oldest_held_us(self) -> int | None:
        """Since when the longest is held."""
        at: int | None = self._connection.execute(_OLDEST_HELD, self._key).get
        return at

    async def is_seen(self, provider: str) -> bool:
        """Whether the workspace has had a delivery of the provider."""
        return self._connection.execute(_SEEN, (*self._key, provider)).fetchone() is not None

    def _rows(self, query: str, *bindings: str | int) -> list[OperationRow]:
        return [operation_row(row) for row in self._connection.execute(query, (*self._key, *bindings))]


def workspaces_at_work(connection: apsw.Connection, shard_ids: Iterable[int]) -> list[WorkspaceKey]:
    """Those in which something waits, is claimed or is held: two seeks for each of them and for each shard."""
    found: set[WorkspaceKey] = set()
    for shard_id in shard_ids:
        for query in (_NEXT_OPEN_WORKSPACE, _NEXT_HELD_WORKSPACE):
            after = _FIRST_ID
            while (row := connection.execute(query, (shard_id, after)).fetchone()) is not None:
                after = row[0]
                found.add(WorkspaceKey(shard_id, after))
    return sorted(found)


def remove_ended(connection: apsw.Connection, shard_ids: Iterable[int], ended_before_us: int, limit: int) -> int:
    """Inside the caller's transaction; how many operations went."""
    found: list[tuple[int, str, str]] = []
    for shard_id in shard_ids:
        if len(found) >= limit:
            break
        found += connection.execute(_EXPIRED, (shard_id, ended_before_us, limit - len(found)))
    connection.executemany(_DELETE, found)
    return len(found)
