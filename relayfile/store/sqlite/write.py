"""Turns a group of plans into rows, table by table: one statement and many bindings each.

Pure but for the order it fixes; the engine runs what it yields inside its transaction. Refuses to decide anything: a
plan says what is written, this module only how.
"""

from collections.abc import Iterator, Sequence
from itertools import count
from operator import itemgetter

from relayfile.model import NO_SEMANTICS, Origin
from relayfile.store.engine import PlannedEntry, WorkspaceKey
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import NO_WATERMARK, Watermark
from relayfile.store.sqlite.buckets import bucket_statements
from relayfile.store.sqlite.file_index import index_statements
from relayfile.store.sqlite.letters import letter_statements
from relayfile.store.sqlite.operations import operation_statements
from relayfile.store.sqlite.orders import order_statements
from relayfile.store.sqlite.periods import SLOTS, slot_of
from relayfile.store.sqlite.rows import Rows, Value, encode_mapping, encode_semantics


def _insert(table: str, columns: int) -> str:
    return f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})"


def _replace(table: str, columns: int) -> str:
    # Of whole rows; cheaper than ON CONFLICT DO UPDATE, and the tables have no second index.
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"


_NO_MARKS = (None, None, None, None)
_DELIVERY_ID = itemgetter(3)
_CONTENT = _insert("content", 3)
_GARBAGE = _insert("content_garbage", 3)
_EVENT = _insert("event", 16)
_FILE = _replace("file", 14)
_FILE_DELETE = "DELETE FROM file WHERE shard_id = ? AND workspace_id = ? AND path = ?"
_DIRECTORY = _replace("directory", 10)
_DIRECTORY_DELETE = "DELETE FROM directory WHERE shard_id = ? AND workspace_id = ? AND path = ?"
_OBJECT = _replace("object", 17)
_DELIVERY = [_replace(f"delivery_{slot}", 8) for slot in range(SLOTS)]
_DUPLICATE = [_replace(f"duplicate_seen_{slot}", 5) for slot in range(SLOTS)]
_WORKSPACE = _replace("workspace", 9)
_OUTCOME_COUNT = (
    "INSERT INTO outcome_count (shard_id, workspace_id, provider, outcome, count) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (shard_id, workspace_id, provider, outcome) DO UPDATE SET count = count + excluded.count"
)
_PROVIDER_SEEN = (
    "INSERT INTO provider_seen (shard_id, workspace_id, provider, last_received_us, last_applied_us)"
    " VALUES (?, ?, ?, ?, ?) ON CONFLICT (shard_id, workspace_id, provider) DO UPDATE SET"
    " last_received_us = max(coalesce(last_received_us, 0), coalesce(excluded.last_received_us, last_received_us, 0)),"
    " last_applied_us = coalesce(excluded.last_applied_us, last_applied_us)"
)


def statements(entries: Sequence[PlannedEntry], content_ids: "count[int]") -> Iterator[tuple[str, Rows]]:
    """What writes the entries: (statement, bindings), deletes of a table before its inserts. Empty ones are left out.

    `content_ids` numbers new contents, and changes of operations; gaps are harmless.
    """
    entries = sorted(entries, key=_key)
    yield from _workspaces(entries)
    yield from _files(entries, content_ids)
    yield from _directories(entries)
    yield from bucket_statements(entries)
    yield from index_statements(entries)
    yield _EVENT, [key + event for key, plan, _ in entries for event in plan.events]
    yield _OBJECT, _objects(entries)
    yield from _deliveries(entries)
    yield (
        _OUTCOME_COUNT,
        [
            (*key, provider, outcome, number)
            for key, plan, _ in entries
            for (provider, outcome), number in plan.outcome_counts.items()
        ],
    )
    yield _PROVIDER_SEEN, [row for key, plan, _ in entries for row in _provider_seen(key, plan)]
    yield from letter_statements(entries, content_ids)
    yield from order_statements(entries)
    yield from operation_statements(entries, content_ids)


def _key(entry: PlannedEntry) -> WorkspaceKey:
    return entry.key


def _workspaces(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    rows: Rows = []
    for key, plan, _ in entries:
        workspace = plan.workspace
        if workspace is not None and plan.workspace_changed:
            if plan.events:
                workspace = workspace._replace(modified_us=plan.events[-1].committed_us)
            rows.append((*key, *workspace))
    yield _WORKSPACE, rows


def _files(entries: Sequence[PlannedEntry], content_ids: "count[int]") -> Iterator[tuple[str, Rows]]:
    files: Rows = []
    contents: Rows = []
    for key, plan, _ in entries:
        shard_id, workspace_id = key
        # In order of the path, as for deliveries below.
        for _, (row, content) in sorted(plan.files_put.items()):
            path, revision, content_id, sha256, size, kind, provider, object_key, modified, origin, semantics, stale = (
                row
            )
            if content is not None:
                content_id = next(content_ids)
                contents.append((content_id, shard_id, content))
            files.append(
                (
                    shard_id, workspace_id, path, revision, content_id, sha256, size, kind, provider, object_key,
                    modified, origin, None if semantics is NO_SEMANTICS else encode_semantics(semantics), stale,
                )
            )  # fmt: skip
    yield _FILE_DELETE, [(*key, path) for key, plan, _ in entries for path in plan.files_deleted]
    yield _FILE, files
    yield _CONTENT, contents
    yield (
        _GARBAGE,
        [
            (key.shard_id, planned_us, content_id)
            for key, plan, planned_us in entries
            for content_id in plan.contents_released
        ],
    )


def _directories(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    yield _DIRECTORY_DELETE, [(*key, path) for key, plan, _ in entries for path in plan.directories_deleted]
    yield (
        _DIRECTORY,
        [
            (*key, row[0], row[1], row[2], row[3], row[4].to_bytes(32, "big"), *row[5:])
            for key, plan, _ in entries
            for row in plan.directories_put.values()
        ],
    )


def _objects(entries: Sequence[PlannedEntry]) -> Rows:
    rows: Rows = []
    none = NO_WATERMARK
    for (shard_id, workspace_id), plan, planned_us in entries:
        for (
            provider_name,
            object_key,
        ), path, deleted, displaced_from, provider, received, received_by in plan.objects_put:
            rows.append(
                (
                    shard_id, workspace_id, provider_name, object_key, path, deleted, displaced_from,
                    *(_NO_MARKS if provider is none else _watermark(provider)),
                    *(_NO_MARKS if received is none else _watermark(received)),
                    received_by, planned_us,
                )
            )  # fmt: skip
    return rows


def _watermark(watermark: Watermark) -> tuple[Value, ...]:
    newest_us, full_us, delete_us, marks = watermark
    return newest_us, full_us, delete_us, encode_mapping(marks) if marks else None


def _deliveries(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    deliveries: list[Rows] = [[] for _ in range(SLOTS)]
    duplicates: list[Rows] = [[] for _ in range(SLOTS)]
    for key, plan, planned_us in entries:
        slot = slot_of(planned_us)
        # In order of the key: ids of deliveries are random, and neighbours share a page.
        rows = [(*key, *named, envelope_id, outcome, at) for named, envelope_id, outcome, at in plan.deliveries_put]
        rows.sort(key=_DELIVERY_ID)
        deliveries[slot] += rows
        duplicates[slot] += [(*key, *row[0], row[1]) for row in plan.duplicates_put]
    for slot in range(SLOTS):
        yield _DELIVERY[slot], deliveries[slot]
        yield _DUPLICATE[slot], duplicates[slot]


def _provider_seen(key: WorkspaceKey, plan: Plan) -> Iterator[tuple[Value, ...]]:
    applied = {
        event.provider: event.committed_us
        for event in plan.events
        if event.provider and event.origin is not Origin.SYSTEM  # of its operations, not of its changes
    }
    for provider in plan.last_received_us.keys() | applied.keys():
        yield (*key, provider, plan.last_received_us.get(provider), applied.get(provider))
