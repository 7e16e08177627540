"""Which changes of which spool rows have an outcome, and what is still to be removed from the spool.

A row goes when all its bits are set, never by a low-water mark (D4). Only rows that were read into memory are here; the
unread rest of the spool costs nothing. Pure.
"""

from collections.abc import Iterable

from relayfile.ingest.fold_wire import read_refs


class _Row:
    __slots__ = ("bits", "remaining", "size_bytes")

    def __init__(self, remaining: int, bits: int, size_bytes: int) -> None:
        self.remaining = remaining
        self.bits = bits
        self.size_bytes = size_bytes


class RowLedger:
    """The rows that are on their way."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._finished: list[int] = []
        self._dirty: set[int] = set()
        self._freed_bytes = 0

    def __len__(self) -> int:
        return len(self._rows)

    def load(self, row_id: int, member_count: int, bits: int, size_bytes: int) -> None:
        """A row is being worked on; `bits` are its changes that have an outcome already."""
        assert row_id not in self._rows, f"row {row_id} is worked on already"
        remaining = member_count - bits.bit_count()
        if remaining <= 0:
            self._finished.append(row_id)
            self._freed_bytes += size_bytes
        else:
            self._rows[row_id] = _Row(remaining, bits, size_bytes)

    def settle(self, refs: bytes) -> int:
        """The changes with these references have durable outcomes. Returns how many of them had none before."""
        rows = self._rows
        settled = 0
        for row_id, ordinal in read_refs(refs):
            row = rows.get(row_id)
            if row is None:
                continue  # finished before: an answer that came twice
            bit = 1 << ordinal
            if row.bits & bit:
                continue
            settled += 1
            row.bits |= bit
            row.remaining -= 1
            if row.remaining:
                self._dirty.add(row_id)
            else:
                del rows[row_id]
                self._dirty.discard(row_id)
                self._finished.append(row_id)
                self._freed_bytes += row.size_bytes
        return settled

    def take_finished(self) -> list[int]:
        """Rows to remove from the spool, each once."""
        finished, self._finished = self._finished, []
        return finished

    def take_freed_bytes(self) -> int:
        """Payload bytes of the rows that finished since the last call."""
        freed, self._freed_bytes = self._freed_bytes, 0
        return freed

    def take_dirty(self) -> Iterable[tuple[int, int]]:
        """(row id, bits) of rows with new bits that are not finished, each once until more bits are set."""
        dirty, self._dirty = self._dirty, set()
        return [(row_id, self._rows[row_id].bits) for row_id in sorted(dirty)]
