"""Which changes of which spool rows have an outcome, and what is still to be removed from the spool.

A row goes when all its bits are set, never by a low-water mark (D4). Only rows with changes in memory are here; the
unread rest of the spool costs nothing, and of a row that was read in part (a provider is paused) nothing is left here
when that part is settled. A row with one change, of which there are very many where webhooks trickle in,
costs a dozen bytes. Pure.
"""

from array import array
from collections.abc import Iterable, Mapping

from relayfile.ingest.sending.fold_wire import read_refs
from relayfile.ingest.shares import Account

_PAGE_BITS = 8
_PAGE_ROWS = 1 << _PAGE_BITS


class _Row:
    __slots__ = ("bits", "charges", "member_count", "open")

    def __init__(self, member_count: int, bits: int, opened: int, charges: tuple[tuple[Account, int], ...]) -> None:
        self.member_count = member_count
        self.bits = bits
        """Its changes that have an outcome."""
        self.open = opened
        """Its changes that are in memory and have none."""
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
        self._finished: dict[int, None] = {}
        self._dirty: set[int] = set()
        self._left: dict[int, int] = {}
        """Bits, not handed out yet, of rows of which nothing is in memory any more."""
        self._freed: dict[Account, int] = {}
        self._accounts: dict[Account, Account] = {}
        """One object for each, however many rows name it."""

    def __len__(self) -> int:
        return len(self._rows) + self._lone_rows

    def load(
        self,
        row_id: int,
        workspace_id: str,
        member_count: int,
        bits: int,
        charges: Mapping[str, int],
        waiting: int = 0,
    ) -> int:
        """A row was read. `bits` are its changes that have an outcome already, `charges` its bytes by provider: they
        are free when it is finished. The changes `waiting` (bits too) stay in the spool; the row may be read again for
        them, at any time.

        Returns the bits of the changes that are not to be worked on: settled, waiting, or in memory already.
        """
        every = (1 << member_count) - 1
        row = self._rows.get(row_id)
        if row is not None:
            row.bits |= bits
            opened = every & ~(row.bits | row.open | waiting)
            row.open |= opened
            return every & ~opened
        own = tuple([(self._account(workspace_id, provider), size) for provider, size in charges.items()])
        if member_count == 1 and len(own) == 1 and not bits:
            return waiting or self._load_lone(row_id, *own[0])
        left = self._left.pop(row_id, 0)
        bits |= left
        opened = every & ~(bits | waiting)
        if opened:
            self._rows[row_id] = _Row(member_count, bits, opened, own)
            if left:
                self._dirty.add(row_id)
        elif bits == every:
            self._finish(row_id, own)
        elif left:
            self._left[row_id] = left
        return every & ~opened

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
            if not row.open & bit:
                continue
            settled += 1
            row.bits |= bit
            row.open ^= bit
            if row.open:
                self._dirty.add(row_id)
            else:
                self._drop(row_id, row)
        return settled

    def put_back(self, refs: bytes) -> None:
        """The changes with these references are not in memory any more, and have no outcome: the spool has them."""
        for row_id, ordinal in read_refs(refs):
            row = self._rows.get(row_id)
            if row is None:
                self._take_lone(row_id)
                continue
            row.open &= ~(1 << ordinal)
            if not row.open:
                self._drop(row_id, row)

    def bits_of(self, row_id: int) -> int:
        """The changes of a row that have an outcome, as far as it is known here."""
        row = self._rows.get(row_id)
        return self._left.get(row_id, 0) if row is None else row.bits

    def remove(self, row_id: int, workspace_id: str, charges: Mapping[str, int]) -> None:
        """A row goes as it is: somebody else has it. An answer for a change of it is not counted any more."""
        self._rows.pop(row_id, None)
        self._dirty.discard(row_id)
        self._left.pop(row_id, None)
        self._take_lone(row_id)
        self._finish(row_id, [(self._account(workspace_id, provider), size) for provider, size in charges.items()])

    def take_finished(self) -> list[int]:
        """Rows to remove from the spool, each once."""
        finished, self._finished = self._finished, {}
        return list(finished)

    def take_freed(self) -> Iterable[tuple[Account, int]]:
        """Bytes by account of the rows that finished since the last call."""
        freed, self._freed = self._freed, {}
        if not len(self):
            self._accounts.clear()
        return freed.items()

    def take_dirty(self) -> Iterable[tuple[int, int]]:
        """(row id, bits) of rows with new bits that are not finished, each once until more bits are set.

        From here on the caller knows the bits, whatever is read before they are written: it says them in `load`.
        """
        dirty, self._dirty = self._dirty, set()
        left, self._left = self._left, {}
        return [*((row_id, self._rows[row_id].bits) for row_id in sorted(dirty)), *left.items()]

    def _drop(self, row_id: int, row: _Row) -> None:
        """Nothing of the row is in memory any more."""
        del self._rows[row_id]
        self._dirty.discard(row_id)
        if row.bits.bit_count() == row.member_count:
            self._finish(row_id, row.charges)
        elif row.bits:
            self._left[row_id] = row.bits

    def _account(self, workspace_id: str, provider: str) -> Account:
        account = (workspace_id, provider)
        return self._accounts.setdefault(account, account)

    def _load_lone(self, row_id: int, account: Account, size_bytes: int) -> int:
        """As `load`."""
        assert size_bytes > 0, f"row {row_id} has no bytes"
        page = self._pages.get(row_id >> _PAGE_BITS)
        if page is None:
            page = self._pages[row_id >> _PAGE_BITS] = _Page()
        place = row_id & _PAGE_ROWS - 1
        if page.sizes[place]:
            return 1
        page.sizes[place], page.accounts[place] = size_bytes, account
        page.count += 1
        self._lone_rows += 1
        return 0

    def _settle_lone(self, row_id: int) -> int:
        """0 for a row that finished before: an answer that came twice."""
        charge = self._take_lone(row_id)
        if charge is None:
            return 0
        self._finish(row_id, (charge,))
        return 1

    def _take_lone(self, row_id: int) -> tuple[Account, int] | None:
        page = self._pages.get(row_id >> _PAGE_BITS)
        place = row_id & _PAGE_ROWS - 1
        if page is None or not (size_bytes := page.sizes[place]):
            return None
        account = page.accounts[place]
        assert account is not None
        page.sizes[place] = 0
        page.count -= 1
        self._lone_rows -= 1
        if not page.count:
            del self._pages[row_id >> _PAGE_BITS]
        return account, size_bytes

    def _finish(self, row_id: int, charges: Iterable[tuple[Account, int]]) -> None:
        if row_id in self._finished:
            return  # it was read again before it was removed
        self._finished[row_id] = None
        for account, size_bytes in charges:
            self._freed[account] = self._freed.get(account, 0) + size_bytes
