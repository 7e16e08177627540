"""ListTree: pages of entries, each one short snapshot, continued by key.

Owns paging. A page is read in slices, the first of a call at once, the others in turns with other bulk work; all slices
of a page are of one revision, and a commit between two of them ends the page early. Memory is one page, however large
the tree.
"""

from collections.abc import AsyncGenerator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from relayfile.paths import ROOT, TreePath
from relayfile.store.access import ReadAccess
from relayfile.store.engine import TreeView, WorkspaceKey
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.store.servicers.wire import fill_entry
from relayfile.v1 import file_pb2

SLICE_ENTRIES = 1_000
"""Entries read and packed without a pause: about 5 ms."""
PAGE_BYTES_MAX = 3 << 20
"""A page is ended at this size; gRPC clients refuse messages above 4 MiB by default."""
_ENTRY_BYTES = 160
"""An entry's size without its path and semantics, generously."""

Row = FileRow | DirectoryRow


@dataclass(slots=True)
class _Position:
    """Where a listing is."""

    path: TreePath
    depth: int
    after: str
    access: ReadAccess
    called_s: float
    """See `LoopTurns.called`."""
    at_end: bool = False
    begun: bool = False


@dataclass(frozen=True, slots=True)
class TreeListing:
    """Serves listings."""

    reading: Reading
    page_entries_default: int
    page_entries_max: int

    async def pages(
        self, request: file_pb2.ListTreeRequest, call: TimeLeft
    ) -> AsyncGenerator[file_pb2.ListTreeResponse, None]:
        """All pages from the token's position, or from the start."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        path = checks.directory_path(request.path)
        checks.not_negative(request.depth, "depth")
        size = checks.page_size(request.page_size, self.page_entries_default, self.page_entries_max)
        checks.page_token(request.page_token)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key, called_s = self.reading.ownership.local_key(request.workspace_id), self.reading.turns.called()
        await self.reading.reached(key, request.min_revision, call)
        async with self.reading.snapshot(key) as (_, workspace):
            binding = ("ListTree", request.workspace_id, workspace.history_id, path, str(request.depth))
        after = self.reading.tokens.unseal(binding, request.page_token)
        position = _Position(path, request.depth, after, ReadAccess.current(), called_s)
        # A caller that leaves the size to the node sees something at once.
        page_entries = size if request.page_size or request.page_token else min(size, SLICE_ENTRIES)
        while not position.at_end:
            page = await self._page(key, position, page_entries)
            page_entries = size
            if not position.at_end:
                page.page_token = self.reading.tokens.seal(binding, position.after)
            yield page

    async def _page(self, key: WorkspaceKey, position: _Position, size: int) -> file_pb2.ListTreeResponse:
        page = file_pb2.ListTreeResponse()
        page_bytes = 0
        turns, own_s = self.reading.turns, position.called_s
        while not position.at_end and len(page.entries) < size and page_bytes < PAGE_BYTES_MAX:
            async with turns.piece(own_s) if position.begun else nullcontext(), self.reading.snapshot(key) as snapshot:
                position.begun = True
                view, workspace = snapshot
                if page.entries and workspace.revision != page.revision:
                    break
                page.revision = workspace.revision
                page.history_id = workspace.history_id
                limit = turns.rows(min(SLICE_ENTRIES, size - len(page.entries)), own_s)
                rows = await _rows(view, position, limit)
                shown = await (await position.access.sight(view)).entries(rows)
                added, added_bytes = _add(page, shown, PAGE_BYTES_MAX - page_bytes)
            page_bytes += added_bytes
            if added == len(shown):
                position.at_end = len(rows) < limit
                position.after = rows[-1].path if rows else position.after
            else:
                position.after = shown[added - 1].path
        return page


async def _rows(view: TreeView, position: _Position, limit: int) -> Sequence[Row]:
    rows: Sequence[Row]
    if position.depth:
        rows = await view.list_level(position.path, position.depth, position.after, limit)
    else:
        rows = await view.list_files(position.path, position.after, limit)
    if rows or position.after or position.path == ROOT:
        return rows
    file = await view.file(position.path)
    return [] if file is None else [file]


def _add(page: file_pb2.ListTreeResponse, rows: Sequence[Row], bytes_max: int) -> tuple[int, int]:
    """(how many of `rows` fitted, their size): at least one."""
    add = page.entries.add
    total = 0
    for index, row in enumerate(rows):
        if total >= bytes_max:
            return index, total
        entry = add()
        fill_entry(entry, row)
        total += len(row.path) + _ENTRY_BYTES
        if isinstance(row, FileRow) and row.semantics:
            total += entry.ByteSize()
    return len(rows), total
