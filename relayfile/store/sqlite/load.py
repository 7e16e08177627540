"""Loads the slice of rows that an entry's plan needs: rounds of lookups, all inside one snapshot.

The keys of a round go into one statement for each table (measured: a lookup of its own costs 2.4 µs, one of a hundred
0.5 µs). Refuses to know which keys a plan needs: `relayfile.store.plan.needs` says so, round by round.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import apsw

from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import DeliveryKey, DuplicateKey, ObjectKey
from relayfile.store.plan.slice import Needs, Slice
from relayfile.store.sqlite.operations import load_operations
from relayfile.store.sqlite.rows import (
    DIRECTORY_COLUMNS,
    FILE_COLUMNS,
    OBJECT_COLUMNS,
    OUTCOMES,
    directory_row,
    file_row,
    object_row,
)
from relayfile.store.sqlite.view import load_workspace

ROUNDS_MAX = 16
"""More rounds than any plan asks for; beyond is a fault in `needs`."""


class _Lookup(NamedTuple):
    """Statements that find rows of a workspace by the values of one key column."""

    many: str
    one: str


def _among(columns: str, table: str, key: str, fixed: str = "") -> _Lookup:
    names = ", ".join("t." + name.strip() for name in columns.split(","))
    # CROSS JOIN fixes the order: for each value a seek, never a scan of the table.
    many, one = (
        f"SELECT {names} FROM {source} AS wanted CROSS JOIN {table} AS t"
        f" ON t.shard_id = ?1 AND t.workspace_id = ?2{fixed} AND t.{key} = wanted.value"
        for source in ("carray(?3)", "(SELECT ?3 AS value)")
    )
    return _Lookup(many, one)


def _found(
    cursor: apsw.Cursor, lookup: _Lookup, key: WorkspaceKey, values: Iterable[str], *fixed: str
) -> Iterator[Any]:
    """Rows of any of the values."""
    wanted = tuple(values)
    if "\0" not in "".join(wanted):
        yield from cursor.execute(lookup.many, (*key, apsw.carray(wanted), *fixed))
        return
    for value in wanted:  # an array ends a text at NUL, which ids from outside may hold
        yield from cursor.execute(lookup.one, (*key, value, *fixed))


_FILES = _among(FILE_COLUMNS, "file", "path")
_DIRECTORIES = _among(DIRECTORY_COLUMNS, "directory", "path")
_OBJECTS = _among("object_key, " + OBJECT_COLUMNS, "object", "object_key", " AND t.provider = ?4")
_DELIVERIES = [
    _among("delivery_id, change_key, envelope_id, outcome", f"delivery_{slot}", "delivery_id", " AND t.provider = ?4")
    for slot in range(3)
]
_DUPLICATE = [
    f"SELECT 1 FROM duplicate_seen_{slot} WHERE shard_id = ? AND workspace_id = ? AND envelope_id = ?"
    " AND change_number = ?"
    for slot in range(3)
]
_CONTENT = "SELECT data FROM content WHERE content_id = ?"


def load_slice(
    cursor: apsw.Cursor, key: WorkspaceKey, needs: Needs, more: Callable[[Slice], Needs], slots: Iterable[int]
) -> Slice:
    """`needs`, then what `more` asks for. `slots` are the delivery periods to look into, newest first."""
    loaded = Slice(workspace=load_workspace(cursor, key))
    probed = tuple(slots)
    objects: set[ObjectKey] = set()
    for _ in range(ROUNDS_MAX):
        if not needs:
            loaded.operations = load_operations(cursor.connection, key, objects)
            return loaded
        objects |= needs.objects
        _answer(cursor, key, needs, loaded, probed)
        needs = more(loaded)
    raise AssertionError(f"the needs of an entry of {key.workspace_id} do not end: {needs}")


def _answer(cursor: apsw.Cursor, key: WorkspaceKey, needs: Needs, loaded: Slice, slots: tuple[int, ...]) -> None:
    if needs.deliveries:
        _answer_deliveries(cursor, key, needs.deliveries, loaded, slots)
    if needs.duplicates:
        _answer_duplicates(cursor, key, needs.duplicates, loaded, slots)
    if needs.objects:
        _answer_objects(cursor, key, needs.objects, loaded)
    if needs.files:
        for row in _found(cursor, _FILES, key, needs.files):
            loaded.files[row[0]] = file_row(row)
    if needs.directories:
        for row in _found(cursor, _DIRECTORIES, key, needs.directories):
            loaded.directories[row[0]] = directory_row(row)
    for content_id in needs.contents:
        for row in cursor.execute(_CONTENT, (content_id,)):
            loaded.contents[content_id] = row[0]


def _answer_objects(cursor: apsw.Cursor, key: WorkspaceKey, wanted: Iterable[ObjectKey], loaded: Slice) -> None:
    by_provider: dict[str, list[str]] = {}
    for provider, object_key in wanted:
        by_provider.setdefault(provider, []).append(object_key)
    for provider, object_keys in by_provider.items():
        for row in _found(cursor, _OBJECTS, key, object_keys, provider):
            found = ObjectKey(provider, row[0])
            loaded.objects[found] = object_row(found, row[1:])


def _answer_deliveries(
    cursor: apsw.Cursor, key: WorkspaceKey, wanted: set[DeliveryKey], loaded: Slice, slots: tuple[int, ...]
) -> None:
    by_provider: dict[str, set[str]] = {}
    for provider, delivery_id, _ in wanted:
        by_provider.setdefault(provider, set()).add(delivery_id)
    deliveries = loaded.deliveries
    for provider, delivery_ids in by_provider.items():
        for slot in slots:
            rows = _found(cursor, _DELIVERIES[slot], key, delivery_ids, provider)
            for delivery_id, change_key, envelope_id, outcome in rows:
                found = DeliveryKey(provider, delivery_id, change_key)
                # Of a key in two periods (a dead letter that was planned again) the newer row counts.
                if found in wanted and found not in deliveries:
                    deliveries[found] = (envelope_id, OUTCOMES[outcome])


def _answer_duplicates(
    cursor: apsw.Cursor, key: WorkspaceKey, wanted: Iterable[DuplicateKey], loaded: Slice, slots: tuple[int, ...]
) -> None:
    for duplicate_key in wanted:
        for slot in slots:
            if cursor.execute(_DUPLICATE[slot], (*key, *duplicate_key)).fetchone() is not None:
                loaded.duplicates.add(duplicate_key)
                break
