"""Unusually many deletes of one workspace are held back until somebody approves them. Pure.

Owns the count: deletes of the last ten minutes, without those that were approved before.
"""

from collections.abc import Iterable

from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.queue import OperationQueue
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, OperationState


def new_deletes(queue: OperationQueue) -> list[OperationRow]:
    """The deletes that this plan has made and not taken back."""
    return [
        row
        for row in queue.rows()
        if row.kind is OperationKind.DELETE and row.version == 0 and row.state is OperationState.PENDING
    ]


def quarantine(queue: OperationQueue, recent_count: int, open_id: str, pending: Iterable[OperationRow]) -> None:
    """Hold back all unclaimed deletes when there are too many.

    `recent_count`: deletes before this plan inside of the window; `open_id`: the group that waits for its approval
    already; `pending`: all unclaimed deletes of the workspace that are not in the queue.
    """
    new = new_deletes(queue)
    if not new or recent_count + len(new) <= queue.limits.quarantine_deletes:
        return
    quarantine_id = open_id or queue.new_id()
    for row in pending:
        if queue.get(row.operation_id) is None:
            queue.adopt(row)
    for row in queue.rows():
        if row.kind is OperationKind.DELETE and row.state is OperationState.PENDING:
            queue.put_aside(lifecycle.quarantined(row, quarantine_id))
