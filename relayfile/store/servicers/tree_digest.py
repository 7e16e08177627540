"""GetTreeDigest: what a directory holds, and what is directly in it, in one snapshot.

Owns which children are named: all of a directory of at most 20,000, or those of one bucket; and which buckets.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relayfile.errors import PermissionDenied
from relayfile.paths import TreePath
from relayfile.store.access import ReadAccess, Tree
from relayfile.store.engine import TreeView, WorkspaceKey
from relayfile.store.plan import digest
from relayfile.store.plan.buckets import BUCKETS, BUILT, BucketRow
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, Snapshot, TimeLeft
from relayfile.store.servicers.wire import fill_directory, fill_entry
from relayfile.v1 import file_pb2

CHILDREN_MAX = 20_000
_SLICE_ENTRIES = 1_000
_NAMES_PER_ROW = 4
"""Looking at names only costs a quarter of reading entries."""
_SLICED_ATTEMPTS = 2
_Row = FileRow | DirectoryRow
Buckets = frozenset[int] | None


@dataclass(frozen=True, slots=True)
class TreeDigest:
    """Serves digests."""

    reading: Reading

    async def get(self, request: file_pb2.GetTreeDigestRequest, call: TimeLeft) -> file_pb2.GetTreeDigestResponse:
        """The digest, with children when they were asked for and are not too many."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        path = checks.directory_path(request.path)
        checks.not_negative(request.min_revision, "min_revision")
        buckets = _asked(request, checks)
        checks.done()
        key = self.reading.key(request.workspace_id)
        await self.reading.reached(key, request.min_revision, call)
        for _ in range(_SLICED_ATTEMPTS):
            async with self._begun(key, request, path) as (_, answer, tree):
                pass
            if not request.children or tree is None or _about(tree, buckets) > CHILDREN_MAX:
                return answer
            if await self._add_in_slices(answer, key, path, buckets):
                return answer
        # Commits keep coming in between: everything in one snapshot, at the cost of a pause for other calls.
        async with self._begun(key, request, path) as (snapshot, answer, _):
            directory = await snapshot.view.directory(path)
            if directory is not None:
                rows, _ = await _entries(snapshot.view, path, buckets, "", directory.entry_count + 1)
                _add(answer, await self._seen(snapshot, rows))
        return answer

    async def _add_in_slices(
        self, answer: file_pb2.GetTreeDigestResponse, key: WorkspaceKey, path: TreePath, buckets: Buckets
    ) -> bool:
        """Add the direct entries at the answer's revision; False when a commit came in between."""
        after = ""
        while True:
            async with self.reading.snapshot(key) as (view, workspace):
                if workspace.revision != answer.revision:
                    return False
                rows, after = await _entries(view, path, buckets, after, _SLICE_ENTRIES)
                seen = await self._seen(Snapshot(view, workspace), rows)
            _add(answer, seen)
            if not after:
                return True
            await asyncio.sleep(0)

    @asynccontextmanager
    async def _begun(
        self, key: WorkspaceKey, request: file_pb2.GetTreeDigestRequest, path: TreePath
    ) -> AsyncIterator[tuple[Snapshot, file_pb2.GetTreeDigestResponse, DirectoryRow | None]]:
        """A snapshot, an answer of it without children, and what is at the path for the caller."""
        access = ReadAccess.current()
        if request.partial:
            async with self.reading.described(key, access, [path]) as (snapshot, [tree]):
                yield snapshot, await _answer(snapshot, request, path, tree), tree.row
            return
        async with self.reading.snapshot(key) as snapshot:
            whole = await (await access.sight(snapshot.view)).whole_tree(path)
            if whole is None:
                why = f"it may read only part of {path[:256]!r}, whose digest is served as `partial`"
                raise PermissionDenied(why=why)
            yield snapshot, await _answer(snapshot, request, path, whole), whole.row

    async def _seen(self, snapshot: Snapshot, rows: Sequence[_Row]) -> Sequence[_Row]:
        """Entries as the caller sees them, directories with the totals of what it may read."""
        sight = await ReadAccess.current().sight(snapshot.view)
        if sight.sees_all:
            return rows
        seen: list[_Row] = []
        for row in rows:
            if isinstance(row, DirectoryRow):
                tree = await self.reading.totals.of_directory(sight, row, self.reading.turns)
                if tree.row is not None:
                    seen.append(tree.row)
            elif await sight.allows(row.path, row):
                seen.append(row)
        return seen


async def _answer(
    snapshot: Snapshot, request: file_pb2.GetTreeDigestRequest, path: TreePath, tree: Tree
) -> file_pb2.GetTreeDigestResponse:
    workspace = snapshot.workspace
    answer = file_pb2.GetTreeDigestResponse(
        revision=workspace.revision, history_id=workspace.history_id, partial=tree.partial
    )
    fill_directory(answer.directory, path, tree.row)
    if request.buckets and not tree.partial:
        await _add_buckets(answer, snapshot.view, tree.row)
    return answer


def _asked(request: file_pb2.GetTreeDigestRequest, checks: Checks) -> Buckets:
    """The buckets of which entries are to be named; None: of all."""
    if not request.HasField("bucket"):
        checks.require(not request.more_buckets, "more_buckets", "are more than `bucket`, which is missing")
        return None
    for field, numbers in (("bucket", [request.bucket]), ("more_buckets", request.more_buckets)):
        for number in numbers[: BUCKETS + 1]:
            checks.require(0 <= number < BUCKETS, field, f"is {number}, and must be 0 to {BUCKETS - 1}")
    checks.require(len(request.more_buckets) <= BUCKETS, "more_buckets", f"has more than {BUCKETS} numbers")
    checks.require(request.children, "children", "must be asked for together with a bucket")
    return frozenset((request.bucket, *request.more_buckets))


def _about(tree: DirectoryRow, buckets: Buckets) -> int:
    """How many entries are to be named; of one bucket any number is."""
    if buckets is None:
        return tree.entry_count
    return tree.entry_count * len(buckets) // BUCKETS if len(buckets) > 1 else 0


async def _entries(
    view: TreeView, path: TreePath, buckets: Buckets, after: str, limit: int
) -> tuple[Sequence[_Row], str]:
    """The next entries to be named, of `limit` that are looked at; and after which to go on, empty at the end."""
    if buckets is not None:
        return await view.list_buckets(path, buckets, after, limit * _NAMES_PER_ROW)
    rows = await view.list_level(path, 1, after, limit)
    return rows, rows[-1].path if len(rows) == limit else ""


def _add(answer: file_pb2.GetTreeDigestResponse, rows: Sequence[_Row]) -> None:
    for row in rows:
        fill_entry(answer.children.add(), row)


async def _add_buckets(answer: file_pb2.GetTreeDigestResponse, view: TreeView, tree: DirectoryRow | None) -> None:
    """All of them, those that hold nothing too; none while they are being built."""
    if tree is None or tree.buckets_to != BUILT:
        return
    held = {row.bucket: row for row in await view.buckets(tree.path)}
    for number in range(BUCKETS):
        row = held.get(number) or BucketRow(number, 0, 0, 0)
        message = answer.buckets.add(bucket=number)
        message.totals.file_count = row.file_count
        message.totals.total_bytes = row.total_bytes
        message.totals.digest = digest.to_bytes(row.digest)
