"""Pages of the event log: a cursor in, events after it out, or the refusal of a cursor that is no longer retained.

Owns the rule that nothing is skipped: revisions are gap-free, so a page that does not start right after its cursor
means that retention was faster than the reader.
"""

from collections.abc import Sequence
from typing import NamedTuple

from relayfile.errors import CursorExpired
from relayfile.store.plan.rows import EventRow
from relayfile.store.servicers.reading import Snapshot

PAGE_EVENTS = 500
PAGE_BYTES_TARGET = 1 << 20
_EVENT_BYTES = 250


class LogPage(NamedTuple):
    """Events right after a cursor."""

    events: Sequence[EventRow]
    cursor: int
    """The revision up to which the page has looked."""
    level: bool
    """There is nothing after it in the snapshot."""


async def read_log(snapshot: Snapshot, cursor: int, limit: int = PAGE_EVENTS) -> LogPage:
    """At most `limit` events after `cursor`, about 1 MiB; `CursorExpired` when the next one is gone."""
    view, workspace = snapshot
    rows = await view.events_after(cursor, limit)
    if not rows:
        if cursor < workspace.revision:
            raise await expired(snapshot)
        return LogPage((), cursor, level=True)
    if rows[0].revision != cursor + 1:
        raise await expired(snapshot)
    total = 0
    for index, row in enumerate(rows):
        total += len(row.path) + len(row.moved_to) + len(row.moved_from) + _EVENT_BYTES
        if total >= PAGE_BYTES_TARGET:
            rows = rows[: index + 1]
            break
    last = rows[-1].revision
    return LogPage(rows, last, level=last >= workspace.revision)


async def start_of_log(snapshot: Snapshot) -> int:
    """The cursor before the oldest retained event."""
    oldest = await snapshot.view.oldest_event_revision()
    return snapshot.workspace.revision if oldest is None else oldest - 1


async def expired(snapshot: Snapshot) -> CursorExpired:
    """What the reader needs to start again."""
    return CursorExpired(history_id=snapshot.workspace.history_id, oldest=await start_of_log(snapshot) + 1)
