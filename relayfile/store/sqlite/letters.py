"""Dead letters as rows: what plans write of them, and how they are selected and expire.

Owns every statement on their table. Its sums by state and by reason are kept by triggers (0003). Refuses to decide:
which letter changes how is in the plan.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import Final, TypeAlias

import apsw

from relayfile.route_file import TENANT_HEADER
from relayfile.store.engine import DeadLetterFilter, LetterTotal, PlannedEntry, WorkspaceKey
from relayfile.store.plan.letters import LetterChanges, LetterRef, LetterState
from relayfile.store.plan.rows import DeadLetterRow, DeliveryKey
from relayfile.store.sqlite.rows import Rows, encode_mapping
from relayfile.store.wire import member_message

RefColumns: TypeAlias = tuple[str, str, int, str, str, str, str, str, int, int, int]

_KEY = "shard_id = ?1 AND workspace_id = ?2"
_PENDING_STATE, _REPLAYING_STATE = int(LetterState.PENDING), int(LetterState.REPLAYING)
_ID = f"{_KEY} AND dead_letter_id = ?3"
_REF_COLUMNS = (
    "dead_letter_id, stage, state, provider, delivery_id, change_key, envelope_id, reason, received_us, content_id,"
    " body_size_bytes"
)
# Named, because SQLite without statistics goes through all letters of a workspace instead.
_BY_DELIVERY: Final = "dead_letter INDEXED BY dead_letter_by_delivery"
_RESOLVED: Final = f"{_KEY} AND provider = ?3 AND delivery_id = ?4 AND change_key = ?5 AND envelope_id = ?6"
_RESOLVED_GARBAGE = (
    "INSERT INTO content_garbage (shard_id, released_us, content_id)"
    f" SELECT shard_id, ?7, content_id FROM {_BY_DELIVERY} WHERE {_RESOLVED} AND content_id > 0"
)
_RESOLVED_DELETE = f"DELETE FROM {_BY_DELIVERY} WHERE {_RESOLVED}"
_GARBAGE = "INSERT INTO content_garbage (shard_id, released_us, content_id) VALUES (?, ?, ?)"
_CONTENT = "INSERT INTO content VALUES (?, ?, ?)"
_INSERT = (
    "INSERT INTO dead_letter (shard_id, workspace_id, dead_letter_id, stage, state, provider, delivery_id, change_key,"
    " envelope_id, reason, message, content_id, body_size_bytes, headers, adapter_version, event_name, correlation_id,"
    " received_us, created_us, attempt_count, last_attempt_us, traceparent, path, change_kind, tenant)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, ?, ?, ?)"
)
_QUEUE = f"UPDATE dead_letter SET state = 3 WHERE {_ID}"
_RETRIED = (
    "UPDATE dead_letter SET state = 1, reason = ?4, message = ?5, last_attempt_us = ?6,"
    " adapter_version = CASE ?7 WHEN '' THEN adapter_version ELSE ?7 END, attempt_count = attempt_count + 1,"
    f" acknowledged_us = NULL, acknowledged_by = NULL, acknowledge_reason = NULL WHERE {_ID}"
)
_ACKNOWLEDGE = (
    f"UPDATE dead_letter SET state = 2, acknowledged_us = ?4, acknowledged_by = ?5, acknowledge_reason = ?6 WHERE {_ID}"
)
_DELETE = f"DELETE FROM dead_letter WHERE {_ID}"
_AFTER = f"SELECT {_REF_COLUMNS} FROM dead_letter WHERE {_KEY} AND dead_letter_id > ?3 ORDER BY dead_letter_id LIMIT ?4"
_AFTER_OF_TENANT = (
    f"SELECT {_REF_COLUMNS} FROM dead_letter INDEXED BY dead_letter_by_tenant"
    f" WHERE {_KEY} AND tenant = ?5 AND tenant <> '' AND dead_letter_id > ?3 ORDER BY dead_letter_id LIMIT ?4"
)
_REPLAYING = (
    f"SELECT {_REF_COLUMNS} FROM dead_letter INDEXED BY dead_letter_replaying"
    f" WHERE {_KEY} AND stage = ?3 AND state = 3 ORDER BY dead_letter_id LIMIT ?4"
)
_BY_ID = f"SELECT {_REF_COLUMNS} FROM dead_letter WHERE {_ID}"
_TOTALS = f"SELECT provider, state, count, body_bytes FROM dead_letter_total WHERE {_KEY} AND count > 0"
_REPLAYING_WORKSPACE = (
    "SELECT workspace_id FROM dead_letter WHERE shard_id = ? AND workspace_id > ? AND state = 3"
    " ORDER BY workspace_id LIMIT 1"
)
_EXPIRED = (
    "SELECT shard_id, workspace_id, dead_letter_id, content_id FROM dead_letter"
    " WHERE shard_id = ? AND state = 2 AND created_us < ? ORDER BY created_us LIMIT ?"
)


def letter_statements(entries: Sequence[PlannedEntry], content_ids: "count[int]") -> Iterator[tuple[str, Rows]]:
    """What the entries do to dead letters; those that go, go first."""
    resolved: Rows = [
        (*key, *delivery, envelope_id, planned_us)
        for key, plan, planned_us in entries
        for delivery, envelope_id in plan.dead_letters_resolved
    ]
    yield _RESOLVED_GARBAGE, resolved
    yield _RESOLVED_DELETE, [row[:-1] for row in resolved]
    changes = [(key, plan.letters, planned_us) for key, plan, planned_us in entries if plan.letters is not None]
    if changes:
        yield from _changes(changes)
    rows: Rows = []
    contents: Rows = []
    for key, plan, _ in entries:
        for row in plan.dead_letters:
            body, size_bytes = _body(row)
            content_id = 0
            if body:
                content_id = next(content_ids)
                contents.append((content_id, key.shard_id, body))
            member = row.member
            rows.append(
                (
                    *key, row.dead_letter_id, row.stage, _REPLAYING_STATE if row.is_queued else _PENDING_STATE,
                    *row.key, row.envelope_id, row.failure.reason, row.failure.message, content_id, size_bytes,
                    encode_mapping(row.raw.headers),
                    row.adapter_version, row.event_name, row.correlation_id, row.received_us, row.created_us,
                    row.created_us, row.traceparent, "" if member is None else member.path,
                    0 if member is None else int(member.kind), row.raw.headers.get(TENANT_HEADER, ""),
                )
            )  # fmt: skip
    yield _INSERT, rows
    yield _CONTENT, contents


def _body(row: DeadLetterRow) -> tuple[bytes, int]:
    """(what is kept, bytes of the body or content in it)."""
    if row.member is None:
        return row.raw.body, len(row.raw.body)
    return member_message(row.member).SerializeToString(), len(row.member.content or b"")


def _changes(changes: Sequence[tuple[WorkspaceKey, LetterChanges, int]]) -> Iterator[tuple[str, Rows]]:
    removed = [(key, ref, planned_us) for key, letters, planned_us in changes for ref in letters.removed]
    yield _GARBAGE, [(key.shard_id, at, ref.content_id) for key, ref, at in removed if ref.content_id]
    yield _DELETE, [(*key, ref.dead_letter_id) for key, ref, _ in removed]
    yield (
        _RETRIED,
        [
            (*key, one.ref.dead_letter_id, one.failure.reason, one.failure.message, one.tried_us, one.adapter_version)
            for key, letters, _ in changes
            for one in letters.retried
        ],
    )
    # After the try that failed: it may be queued again at once.
    yield _QUEUE, [(*key, ref.dead_letter_id) for key, letters, _ in changes for ref in letters.queued]
    yield (
        _ACKNOWLEDGE,
        [
            (*key, one.ref.dead_letter_id, one.acknowledged_us, one.acknowledged_by, one.acknowledge_reason)
            for key, letters, _ in changes
            for one in letters.acknowledged
        ],
    )


def letters_after(
    connection: apsw.Connection, key: WorkspaceKey, chosen: DeadLetterFilter, after_id: str, looked_at_max: int
) -> tuple[list[LetterRef], str]:
    """(the chosen among the next `looked_at_max`, oldest first; the id to go on after, empty at the end)."""
    matches = _matcher(chosen)
    of_tenant = (chosen.tenant,) if chosen.tenant else ()
    statement = _AFTER_OF_TENANT if of_tenant else _AFTER
    rows: list[RefColumns] = list(connection.execute(statement, (*key, after_id, looked_at_max, *of_tenant)))
    more = rows[-1][0] if len(rows) == looked_at_max else ""
    return [_ref(row) for row in rows if matches(row)], more


def replaying_letters(connection: apsw.Connection, key: WorkspaceKey, stage: str, limit: int) -> list[LetterRef]:
    """Those that are queued for another try, oldest first."""
    return [_ref(row) for row in connection.execute(_REPLAYING, (*key, stage, limit))]


def letter_refs(connection: apsw.Connection, key: WorkspaceKey, ids: Sequence[str]) -> dict[str, LetterRef]:
    """Those of `ids` that exist."""
    rows = (connection.execute(_BY_ID, (*key, dead_letter_id)).fetchone() for dead_letter_id in ids)
    return {row[0]: _ref(row) for row in rows if row is not None}


def letter_totals(connection: apsw.Connection, key: WorkspaceKey) -> list[LetterTotal]:
    """By provider and state."""
    return [
        LetterTotal(provider, LetterState(state), number, size)
        for provider, state, number, size in connection.execute(_TOTALS, key)
    ]


def replaying_workspaces(connection: apsw.Connection, shard_ids: Sequence[int]) -> list[WorkspaceKey]:
    """The workspaces of these shards in which something is queued: a seek for each, and one for each shard."""
    found: list[WorkspaceKey] = []
    for shard_id in shard_ids:
        after = ""
        while (row := connection.execute(_REPLAYING_WORKSPACE, (shard_id, after)).fetchone()) is not None:
            after = row[0]
            found.append(WorkspaceKey(shard_id, after))
    return found


def remove_acknowledged(
    connection: apsw.Connection, shard_ids: Sequence[int], created_before_us: int, now_us: int, limit: int
) -> int:
    """Inside the caller's transaction; how many acknowledged dead letters went."""
    found: list[tuple[int, str, str, int]] = []
    for shard_id in shard_ids:
        if len(found) >= limit:
            break
        found += connection.execute(_EXPIRED, (shard_id, created_before_us, limit - len(found)))
    connection.executemany(_GARBAGE, [(row[0], now_us, row[3]) for row in found if row[3]])
    connection.executemany(_DELETE, [row[:3] for row in found])
    return len(found)


def _ref(row: RefColumns) -> LetterRef:
    (
        dead_letter_id, stage, state, provider, delivery_id, change_key, envelope_id, reason, received_us, content_id,
        size_bytes,
    ) = row  # fmt: skip
    key = DeliveryKey(provider, delivery_id, change_key)
    return LetterRef(
        dead_letter_id, stage, LetterState(state), key, envelope_id, reason, received_us, content_id, size_bytes
    )


def _matcher(chosen: DeadLetterFilter) -> Callable[[RefColumns], bool]:
    from_us, before_us = chosen.received_from_us, chosen.received_before_us
    wanted = ((1, chosen.stage), (2, chosen.state), (3, chosen.provider), (7, chosen.reason))
    equal = [(column, value) for column, value in wanted if value]

    def matches(row: RefColumns) -> bool:
        return (
            all(row[column] == value for column, value in equal)
            and (from_us is None or row[8] >= from_us)
            and (before_us is None or row[8] < before_us)
        )

    return matches
