"""Request ids, administrative actions and pauses as rows: what writes them and what finds them.

A request id is looked for in every slot, one seek each: requests that carry one are rare beside changes.
"""

from collections.abc import Iterable, Iterator, Sequence

import apsw

from relayfile.store.engine import AdminActionFilter, PlannedEntry, WorkspaceKey
from relayfile.store.plan.rows import ActionResult, AdminActionRow, PauseRow, RequestKey, RequestRow
from relayfile.store.sqlite.periods import SLOTS, slot_of
from relayfile.store.sqlite.rows import Rows

ACTIONS_PER_WORKSPACE_MAX = 10_000
"""Kept; the oldest go first, whatever their age."""

_ACTION_COLUMNS = "action_id, action_us, actor, method, subject, reason, result, detail, request_id, correlation_id"
_REQUEST = [f"INSERT OR REPLACE INTO request_{slot} VALUES (?, ?, ?, ?, ?, ?, ?)" for slot in range(SLOTS)]
_REQUEST_FIND = [
    f"SELECT fingerprint, answer, decided_us FROM request_{slot}"
    " WHERE shard_id = ? AND workspace_id = ? AND method = ? AND request_id = ?"
    for slot in range(SLOTS)
]
_ACTION = (
    f"INSERT INTO admin_action (shard_id, workspace_id, {_ACTION_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_ACTIONS_BEYOND = (
    "DELETE FROM admin_action WHERE shard_id = ?1 AND workspace_id = ?2 AND action_id <= (SELECT action_id"
    " FROM admin_action WHERE shard_id = ?1 AND workspace_id = ?2 ORDER BY action_id DESC LIMIT 1 OFFSET ?3)"
)

_PAUSE = "INSERT OR REPLACE INTO pause VALUES (?, ?, ?, ?)"
_PAUSE_DELETE = "DELETE FROM pause WHERE shard_id = ? AND workspace_id = ? AND provider = ?"
_PAUSES = "SELECT provider, since_us FROM pause WHERE shard_id = ? AND workspace_id = ? ORDER BY provider"
NODE_PAUSES = "SELECT workspace_id, provider FROM pause ORDER BY shard_id, workspace_id, provider"


def order_statements(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    """As `relayfile.store.sqlite.write.statements`, of what the plans say was asked for and ordered."""
    requests: list[Rows] = [[] for _ in range(SLOTS)]
    actions: Rows = []
    ordered_in: set[WorkspaceKey] = set()
    for key, plan, planned_us in entries:
        for row in plan.requests_put:
            requests[slot_of(planned_us)].append((*key, *row.key, row.fingerprint, row.answer, row.decided_us))
        if plan.admin_actions_put:
            ordered_in.add(key)
            actions += [(*key, *action) for action in plan.admin_actions_put]
    for slot in range(SLOTS):
        yield _REQUEST[slot], requests[slot]
    yield _ACTION, actions
    yield _ACTIONS_BEYOND, [(*key, ACTIONS_PER_WORKSPACE_MAX) for key in sorted(ordered_in)]
    yield _PAUSE_DELETE, [(*key, provider) for key, plan, _ in entries for provider in plan.pauses_ended]
    yield _PAUSE, [(*key, *row) for key, plan, _ in entries for row in plan.pauses_put]


def find_requests(cursor: apsw.Cursor, key: WorkspaceKey, wanted: Iterable[RequestKey]) -> dict[RequestKey, RequestRow]:
    """See `OrderView.requests`."""
    found: dict[RequestKey, RequestRow] = {}
    for request in wanted:
        for statement in _REQUEST_FIND:
            row = cursor.execute(statement, (*key, *request)).fetchone()
            if row is not None:
                found[request] = RequestRow(request, *row)
                break
    return found


def find_actions(
    cursor: apsw.Cursor, key: WorkspaceKey, chosen: AdminActionFilter, before_id: str, limit: int
) -> list[AdminActionRow]:
    """See `OrderView.admin_actions`. Looks at no more than `ACTIONS_PER_WORKSPACE_MAX` rows."""
    conditions, bindings = _conditions(chosen)
    rows = cursor.execute(
        f"SELECT {_ACTION_COLUMNS} FROM admin_action WHERE shard_id = ? AND workspace_id = ? AND action_id < ?"
        f"{conditions} ORDER BY action_id DESC LIMIT ?",
        (*key, before_id, *bindings, limit),
    )
    return [AdminActionRow(*row)._replace(result=ActionResult(row[6])) for row in rows]


def find_node_actions(
    connection: apsw.Connection, chosen: AdminActionFilter, before_id: str, limit: int
) -> list[tuple[str, AdminActionRow]]:
    """See `Engine.admin_actions`."""
    conditions, bindings = _conditions(chosen)
    rows = connection.execute(
        f"SELECT workspace_id, {_ACTION_COLUMNS} FROM admin_action INDEXED BY admin_action_by_id WHERE action_id < ?"
        f"{conditions} ORDER BY action_id DESC LIMIT ?",
        (before_id, *bindings, limit),
    )
    return [(row[0], AdminActionRow(*row[1:])._replace(result=ActionResult(row[7]))) for row in rows]


def _conditions(chosen: AdminActionFilter) -> tuple[str, list[str | int]]:
    """What follows WHERE conditions, and its bindings."""
    asked = [
        (condition, value)
        for condition, value in (
            ("actor = ?", chosen.actor or None),
            ("method = ?", chosen.method or None),
            ("action_us >= ?", chosen.from_us),
            ("action_us < ?", chosen.before_us),
        )
        if value is not None
    ]
    return "".join(f" AND {condition}" for condition, _ in asked), [value for _, value in asked]


def find_pauses(connection: apsw.Connection, key: WorkspaceKey) -> list[PauseRow]:
    """See `PauseView.pauses`."""
    return [PauseRow(*row) for row in connection.execute(_PAUSES, key)]
