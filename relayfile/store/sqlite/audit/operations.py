"""Whether the operations of an object stand in line, are what their state says, and have what they carry.

Operations are looked at one by one, each with the unfinished ones of its object, of which there are few. What is held
of a provider's changes is of no concern here: it may outlast the edits for which it was held, until its time comes.
"""

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import apsw

from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Tally
from relayfile.store.plan.writeback.rows import UNFINISHED, OperationState
from relayfile.store.sqlite.audit.step import ROWS_PER_STEP, ROWS_PER_TURN, Look
from relayfile.store.sqlite.operation_rows import NEVER_US

_OPERATIONS = (
    "SELECT o.operation_id, o.provider, o.object_key, o.state, o.revision, o.is_blocked, o.ended_us,"
    " o.claim_expire_us IS NOT NULL, o.content_id, o.size_bytes, length(c.data),"
    " (SELECT h.released_us FROM content_hold AS h WHERE h.shard_id = o.shard_id AND h.content_id = o.content_id),"
    " (SELECT f.content_id FROM file AS f WHERE f.shard_id = o.shard_id AND f.workspace_id = o.workspace_id"
    " AND f.path = o.path)"
    " FROM operation AS o LEFT JOIN content AS c ON c.content_id = o.content_id"
    " WHERE o.shard_id = ? AND o.workspace_id = ? AND o.operation_id > ? ORDER BY o.operation_id LIMIT ?"
)
_UNFINISHED = (
    "SELECT state, revision, operation_id FROM operation INDEXED BY operation_of_object WHERE shard_id = ?"
    f" AND workspace_id = ? AND provider = ? AND object_key = ? AND ended_us = {NEVER_US}"
    f" AND (claim_number > 0 OR ended_us = {NEVER_US})"
)
_CARRIED = "SELECT content_id FROM operation WHERE shard_id = ? AND content_id > 0"
_HOLDS = "SELECT content_id, hold_count FROM content_hold WHERE shard_id = ?"
_SHARDS = (
    "SELECT min(shard_id) FROM (SELECT min(shard_id) AS shard_id FROM operation WHERE shard_id > ?1"
    " UNION ALL SELECT min(shard_id) FROM content_hold WHERE shard_id > ?1)"
)
_OPEN = frozenset(map(int, UNFINISHED))
_CARRYING = _OPEN | {int(OperationState.DEAD_LETTERED)}
"""States in which an operation may still bring its content to the provider."""


class _Looked(NamedTuple):
    operation_id: str
    provider: str
    object_key: str
    state: int
    revision: int
    is_blocked: int
    ended_us: int
    is_claimed: int
    content_id: int
    size_bytes: int
    kept_bytes: int | None
    released_us: int | None
    file_content_id: int | None


def check_operations(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: str = "") -> Look:
    """The operations after the id `after`."""
    count = 0
    for columns in cursor.execute(_OPERATIONS, (*key, after, ROWS_PER_STEP)):
        row = _Looked(*columns)
        after = row.operation_id
        for reason, message in _differences(cursor.connection, key, row):
            yield Finding(Check.INDEXES, *key, f"operation {after}", reason, message)
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    return partial(check_operations, key=key, after=after) if count == ROWS_PER_STEP else None


def check_operation_contents(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: str = "") -> Look:
    """What the operations after the id `after` carry. Whether a content is there at all is asked of every table."""
    count = 0
    for columns in cursor.execute(_OPERATIONS, (*key, after, ROWS_PER_STEP)):
        row = _Looked(*columns)
        after = row.operation_id
        for reason, message in _content_differences(row):
            yield Finding(Check.REFERENCES, *key, f"operation {after}", reason, message)
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    return partial(check_operation_contents, key=key, after=after) if count == ROWS_PER_STEP else None


def check_holds(cursor: apsw.Cursor, tally: Tally, after: int = -1) -> Look:
    """Whether contents are held as often as operations carry them: of the next shard, in one snapshot."""
    shard_id: int | None = cursor.execute(_SHARDS, (after,)).get
    if shard_id is None:
        return None
    carried, held = Counter[int](), Counter[int]()
    for number, (content_id,) in enumerate(cursor.execute(_CARRIED, (shard_id,)), 1):
        carried[content_id] += 1
        if not number % ROWS_PER_TURN:
            yield None
    for number, (content_id, hold_count) in enumerate(cursor.execute(_HOLDS, (shard_id,)), 1):
        held[content_id] = hold_count
        if not number % ROWS_PER_TURN:
            yield None
    for content_id in sorted(carried.keys() | held.keys()):
        if carried[content_id] != held[content_id]:
            message = f"it is held {held[content_id]} times, and {carried[content_id]} operations carry it"
            yield Finding(Check.REFERENCES, shard_id, "", f"content {content_id}", "HOLD_COUNT_MISMATCH", message)
    return partial(check_holds, after=shard_id)


def _differences(connection: apsw.Connection, key: WorkspaceKey, row: _Looked) -> Iterator[tuple[str, str]]:
    """Its state and its place in the line of its object."""
    is_open = row.state in _OPEN
    if is_open != (row.ended_us == NEVER_US):
        yield "OPERATION_END_MISMATCH", f"the state is {_name(row.state)}, and ended_us is {row.ended_us}"
    if bool(row.is_claimed) != (row.state == OperationState.CLAIMED):
        lease = "there is a lease" if row.is_claimed else "there is no lease"
        yield "OPERATION_CLAIM_MISMATCH", f"the state is {_name(row.state)}, and {lease}"
    if not is_open:
        return
    line = sorted(
        (state != OperationState.CLAIMED, revision, operation_id)
        for state, revision, operation_id in connection.execute(_UNFINISHED, (*key, row.provider, row.object_key))
        if state in _OPEN
    )
    earlier = [each for each in line if each < (row.state != OperationState.CLAIMED, row.revision, row.operation_id)]
    of = f"{row.provider} {row.object_key!r}"
    if row.state == OperationState.CLAIMED and earlier:
        yield "OPERATIONS_CLAIMED_AT_ONCE", f"{earlier[0][2]} of {of} is claimed too"
    elif bool(row.is_blocked) != bool(earlier):
        waits = f"{earlier[0][2]} of {of} comes before it" if earlier else f"nothing of {of} comes before it"
        yield "OPERATION_BLOCKED_MISMATCH", f"is_blocked is {row.is_blocked}, and {waits}"


def _content_differences(row: _Looked) -> Iterator[tuple[str, str]]:
    if row.content_id and row.state not in _CARRYING:
        yield "OPERATION_CONTENT_KEPT", f"the state is {_name(row.state)}, and it keeps the content {row.content_id}"
    elif row.content_id and row.kept_bytes is not None and row.kept_bytes != row.size_bytes:
        message = f"it is to bring {row.size_bytes} bytes, and its content {row.content_id} has {row.kept_bytes}"
        yield "CONTENT_SIZE_MISMATCH", message
    elif row.size_bytes and not row.content_id and row.state in _CARRYING:
        yield "OPERATION_CONTENT_MISSING", f"it is to bring {row.size_bytes} bytes, and has no content"
    if row.content_id and row.released_us is not None and row.file_content_id == row.content_id:
        message = f"its file has the content {row.content_id}, which would be removed when the operation ends"
        yield "CONTENT_RELEASED", message


def _name(state: int) -> str:
    return OperationState(state).name.lower() if state in OperationState.__members__.values() else str(state)
