"""GetTreeDigest: what a directory holds, and what is directly in it, in one snapshot.

Owns which children are named: all of a directory of at most 20,000, or those of one bucket; and which buckets.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from relayfile.errors import PermissionDenied
from relayfile.paths import TreePath, name
from relayfile.store.access import ReadAccess
from relayfile.store.engine import TreeView, WorkspaceKey
from relayfile.store.plan import digest
from relayfile.store.plan.buckets import BUCKETS, BUILT, BucketRow, bucket_of
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, Snapshot, TimeLeft
from relayfile.store.servicers.wire import fill_directory, fill_entry
from relayfile.v1 import file_pb2

CHILDREN_MAX = 20_000
_SLICE_ENTRIES = 1_000
_SLICED_ATTEMPTS = 2
_Row = FileRow | DirectoryRow


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
        bucket = request.bucket if request.HasField("bucket") else None
        if bucket is not None:
            checks.require(0 <= bucket < BUCKETS, "bucket", f"is {bucket}, and must be 0 to {BUCKETS - 1}")
            checks.require(request.children, "children", "must be asked for together with a bucket")
        checks.done()
        key = self.reading.key(request.workspace_id)
        await self.reading.reached(key, request.min_revision, call)
        for _ in range(_SLICED_ATTEMPTS):
            async with self.reading.snapshot(key) as snapshot:
                answer, tree = await self._begin(snapshot, request, path)
            if not request.children or tree is None or (tree.entry_count > CHILDREN_MAX and bucket is None):
                return answer
            if await self._add_in_slices(answer, key, path, bucket):
                return answer
        # Commits keep coming in between: everything in one snapshot, at the cost of a pause for other calls.
        async with self.reading.snapshot(key) as snapshot:
            answer, tree = await self._begin(snapshot, request, path)
            directory = await snapshot.view.directory(path)
            rows = [] if directory is None else await snapshot.view.list_level(path, 1, "", directory.entry_count + 1)
            seen = await self._seen(snapshot, in_bucket(rows, bucket))
        _add(answer, seen)
        return answer

    async def _add_in_slices(
        self, answer: file_pb2.GetTreeDigestResponse, key: WorkspaceKey, path: str, bucket: int | None
    ) -> bool:
        """Add the direct entries at the answer's revision; False when a commit came in between."""
        after = ""
        while True:
            async with self.reading.snapshot(key) as (view, workspace):
                if workspace.revision != answer.revision:
                    return False
                rows = await view.list_level(path, 1, after, _SLICE_ENTRIES)
                seen = await self._seen(Snapshot(view, workspace), in_bucket(rows, bucket))
            _add(answer, seen)
            if len(rows) < _SLICE_ENTRIES:
                return True
            after = rows[-1].path
            await asyncio.sleep(0)

    async def _begin(
        self, snapshot: Snapshot, request: file_pb2.GetTreeDigestRequest, path: TreePath
    ) -> tuple[file_pb2.GetTreeDigestResponse, DirectoryRow | None]:
        """An answer without children, and what is at the path for the caller."""
        sight = await ReadAccess.current().sight(snapshot.view)
        tree = (
            await self.reading.totals.tree(sight, path, self.reading.turns)
            if request.partial
            else await sight.whole_tree(path)
        )
        if tree is None:
            raise PermissionDenied(why=f"it may read only part of {path[:256]!r}, whose digest is served as `partial`")
        workspace = snapshot.workspace
        answer = file_pb2.GetTreeDigestResponse(
            revision=workspace.revision, history_id=workspace.history_id, partial=tree.partial
        )
        fill_directory(answer.directory, path, tree.row)
        if request.buckets and not tree.partial:
            await _add_buckets(answer, snapshot.view, tree.row)
        return answer, tree.row

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


def in_bucket(rows: Sequence[_Row], bucket: int | None) -> Sequence[_Row]:
    """Those of `rows` that are hashed into `bucket`; None: all."""
    return rows if bucket is None else [row for row in rows if bucket_of(name(row.path)) == bucket]


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
