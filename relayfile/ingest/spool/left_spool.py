"""What is left in a spool, to be handed over: of a process that stops, and of one that is gone. See `handover`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from relayfile.ingest.spool.payload import parse_charges
from relayfile.ingest.spool.spool import GONE, Spool
from relayfile.ingest.spool.spool_file import SpoolReader, StoredRow

if TYPE_CHECKING:
    from relayfile.ingest.pipeline import Pipeline


class OfflineSpool:
    """The spool of a process that is gone. Nothing else uses it now."""

    def __init__(self, spool: Spool, reader: SpoolReader) -> None:
        self._spool = spool
        self._reader = reader

    def left(self) -> Mapping[str, Sequence[int]]:
        """As `handover.LeftSpool`."""
        found: dict[str, list[int]] = {}
        for row in self._reader.remainders():
            found.setdefault(row.workspace_id, []).append(row.row_id)
        return found

    def row(self, row_id: int) -> StoredRow | None:
        """As `handover.LeftSpool`."""
        row = self._reader.row(row_id)
        if row is None or (bits := self._spool.bits_of(row)) == GONE:
            return None
        return row._replace(bits=bits)

    def taken(self, workspace_id: str, row: StoredRow) -> None:
        """As `handover.LeftSpool`."""
        self._spool.settle([row.row_id])


class StoppingSpool(OfflineSpool):
    """The spool of a process that stops, and what it counts of it."""

    def __init__(self, pipeline: "Pipeline") -> None:
        super().__init__(pipeline.spool, pipeline.reader)
        self._pipeline = pipeline

    def taken(self, workspace_id: str, row: StoredRow) -> None:
        """As `handover.LeftSpool`: its changes are not pending here any more, but for those that have ended."""
        standing = self.row(row.row_id)
        if standing is not None:
            charges = parse_charges(row.providers, len(row.payload))
            self._pipeline.dispatcher.handed_over(workspace_id, standing, charges)
