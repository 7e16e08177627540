"""Which changes of which spool rows have an outcome, and what is still to be removed from the spool.

A row goes when all its bits are set, never by a low-water mark (D4). Only rows that were read into memory are here; the
unread rest of the spool costs nothing. A row with one change, of which there are very many where webhooks trickle in,
costs a dozen bytes. Pure.
"""

from array import array
from collections.abc import Iterable, Mapping

from relayfile.ingest.fold_wire import read_refs
from relayfile.ingest.shares import Account

_PAGE_BITS = 8
_PAGE_ROWS = 1 << _PAGE_BITS


class _Row:
    __slots__ = ("bits", "charges", "remaining")

    def __init__(self, remaining: int, bits: int, charges: tuple[tuple[Account, int], ...]) -> None:
        self.remaining = remaining
        self.bits = bits
        self.charges = charges


class _Page:
    """Rows with one change, 256 neighbours together. A row that is not there has size 0."""

    __slots__ = ("accounts", "count", "sizes")

    def __init__(self) -> None:
        self.sizes = array("q", bytes(8 * _PAGE_ROWS))
        self.accounts: list[Account | None] = [None] * _PAGE_ROWS
        self.count = 0


class RowLedger:
    """The rows that are on their way."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._pages: dict[int, _Page] = {}
        self._lone_rows = 0
        self._finished: list[int] = []
        self._dirty: set[int] = set()
        self._freed: dict[Account, int] = {}
        self._accounts: dict[Account, Account] = {}
        """One object for each, however many rows name it."""

    def __len__(self) -> int:
        return len(self._rows) + self._lone_rows

    def load(self, row_id: int, workspace_id: str, member_count: int, bits: int, charges: Mapping[str, int]) -> None:
        """A row is being worked on. `bits` are its changes that have an outcome already, `charges` its bytes by
        provider: they are free when it is finished."""
        assert row_id not in self._rows, f"row {row_id} is worked on already"
        remaining = member_count - bits.bit_count()
        own = tuple([(self._account(workspace_id, provider), size) for provider, size in charges.items()])
        if remaining <= 0:
            self._finish(row_id, own)
        elif member_count == 1 and len(own) == 1:
            self._load_lone(row_id, *own[0])
        else:
            self._rows[row_id] = _Row(remaining, bits, own)

    def settle(self, refs: bytes) -> int:
        """The changes with these references have durable outcomes. Returns how many of them had none before."""
        rows = self._rows
        settled = 0
        for row_id, ordinal in read_refs(refs):
            row = rows.get(row_id)
            if row is None:
                settled += self._settle_lone(row_id)
                continue
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
                self._finish(row_id, row.charges)
        return settled

    def take_finished(self) -> list[int]:
        """Rows to remove from the spool, each once."""
        finished, self._finished = self._finished, []
        return finished

    def take_freed(self) -> Iterable[tuple[Account, int]]:
        """Bytes by account of the rows that finished since the last call."""
        freed, self._freed = self._freed, {}
        if not len(self):
            self._accounts.clear()
        return freed.items()

    def take_dirty(self) -> Iterable[tuple[int, int]]:
        """(row id, bits) of rows with new bits that are not finished, each once until more bits are set."""
        dirty, self._dirty = self._dirty, set()
        return [(row_id, self._rows[row_id].bits) for row_id in sorted(dirty)]

    def _account(self, workspace_id: str, provider: str) -> Account:
        account = (workspace_id, provider)
        return self._accounts.setdefault(account, account)

    def _load_lone(self, row_id: int, account: Account, size_bytes: int) -> None:
        assert size_bytes > 0, f"row {row_id} has no bytes"
        page = self._pages.get(row_id >> _PAGE_BITS)
        if page is None:
            page = self._pages[row_id >> _PAGE_BITS] = _Page()
        place = row_id & _PAGE_ROWS - 1
        assert not page.sizes[place], f"row {row_id} is worked on already"
        page.sizes[place], page.accounts[place] = size_bytes, account
        page.count += 1
        self._lone_rows += 1

    def _settle_lone(self, row_id: int) -> int:
        """0 for a row that finished before: an answer that came twice."""
        page = self._pages.get(row_id >> _PAGE_BITS)
        place = row_id & _PAGE_ROWS - 1
        if page is None or not (size_bytes := page.sizes[place]):
            return 0
        account = page.accounts[place]
        assert account is not None
        page.sizes[place] = 0
        page.count -= 1
        self._lone_rows -= 1
        if not page.count:
            del self._pages[row_id >> _PAGE_BITS]
        self._finish(row_id, ((account, size_bytes),))
        return 1

    def _finish(self, row_id: int, charges: Iterable[tuple[Account, int]]) -> None:
        self._finished.append(row_id)
        for account, size_bytes in charges:
            self._freed[account] = self._freed.get(account, 0) + size_bytes
