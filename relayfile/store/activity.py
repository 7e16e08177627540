"""What was committed lately, for the figures of the node: told once for each committed entry.

Owns figures of this process only; they begin at zero with it. Refuses to read rows.
"""

from relayfile.store.engine import PlannedEntry
from relayfile.store.plan.writeback.rows import UNFINISHED, OperationRow, OperationState
from relayfile.telemetry import WritebackInstruments


class NodeActivity:
    """The figures of one node."""

    def __init__(self, writeback: WritebackInstruments) -> None:
        self._writeback = writeback

    def committed(self, entry: PlannedEntry, _change_count: int, _byte_count: int) -> None:
        """An entry is durable."""
        if entry.plan.operations is not None:
            for row in entry.plan.operations.rows:
                self._step(row)

    def _step(self, row: OperationRow) -> None:
        """Of the plan that wrote the row, if what is told of it was of that plan too: a row is written for less."""
        kind = row.kind.name.lower()
        if row.state is OperationState.CLAIMED and row.claimed_us == row.modified_us:
            self._writeback.claims_total.labels(kind).inc()
        elif row.state not in UNFINISHED and row.ended_us == row.modified_us:
            self._writeback.ends_total.labels(kind, row.state.name.lower()).inc()
