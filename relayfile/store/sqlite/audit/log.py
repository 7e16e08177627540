"""Whether revisions are events, without a gap, and no file is older than its newest event."""

from functools import partial

import apsw

from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Tally
from relayfile.store.sqlite.audit.step import ROWS_PER_STEP, ROWS_PER_TURN, Look

FILE_EVENTS = (1, 2, 3)
"""Numbers of the types that say what became of a file."""

_BOUNDS = (
    "SELECT w.revision, (SELECT min(revision) FROM event AS e WHERE e.shard_id = w.shard_id"
    " AND e.workspace_id = w.workspace_id) FROM workspace AS w WHERE shard_id = ? AND workspace_id = ?"
)
_EVENTS = (
    "SELECT e.revision, e.type, e.path, f.revision FROM event AS e LEFT JOIN file AS f ON f.shard_id = e.shard_id"
    " AND f.workspace_id = e.workspace_id AND f.path = e.path"
    " WHERE e.shard_id = ? AND e.workspace_id = ? AND e.revision > ? ORDER BY e.revision LIMIT ?"
)


def check_events(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: int = 0) -> Look:
    """The events after the revision `after`, from the oldest that is retained."""
    bounds: list[tuple[int, int | None]] = list(cursor.execute(_BOUNDS, key))
    newest, oldest = bounds[0]
    if oldest is None:
        return None  # all are past their time, or there were none
    last = max(after, oldest - 1)
    count = 0
    for revision, kind, path, file_revision in cursor.execute(_EVENTS, (*key, last, ROWS_PER_STEP)):
        if revision != last + 1:
            message = f"after the event {last} comes {revision}"
            yield Finding(Check.REVISIONS, *key, str(last + 1), "REVISION_GAP", message)
        if kind in FILE_EVENTS and file_revision is not None and file_revision < revision:
            message = f"the file is at {file_revision}, and the event {revision} is of it"
            yield Finding(Check.REVISIONS, *key, path, "FILE_BEHIND_EVENT", message)
        last = revision
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    tally.event_count += count
    if count == ROWS_PER_STEP:
        return partial(check_events, key=key, after=last)
    if last != newest:
        message = f"the newest event is {last}, and the workspace is at {newest}"
        yield Finding(Check.REVISIONS, *key, "newest", "REVISION_MISMATCH", message)
    return None
