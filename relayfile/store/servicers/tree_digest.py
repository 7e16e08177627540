"""GetTreeDigest: what a directory holds, and what is directly in it, in one snapshot.

Owns which children are named: all of a directory of at most 20,000, or those of one bucket. Buckets themselves are not
built yet: no answer has any.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from relayfile.errors import Unavailable
from relayfile.paths import name
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, TimeLeft, tree_at
from relayfile.store.servicers.wire import fill_directory, fill_entry
from relayfile.v1 import file_pb2

CHILDREN_MAX = 20_000
BUCKETS = 256
_SLICE_ENTRIES = 2_000
_ATTEMPTS = 4

Row = FileRow | DirectoryRow


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
        for _ in range(_ATTEMPTS):
            async with self.reading.snapshot(key) as (view, workspace):
                tree = await tree_at(view, path)
            answer = file_pb2.GetTreeDigestResponse(revision=workspace.revision, history_id=workspace.history_id)
            fill_directory(answer.directory, path, tree)
            if not request.children or tree is None:
                return answer
            if tree.entry_count > CHILDREN_MAX and bucket is None:
                return answer
            children = await self._children(key, path, bucket, workspace.revision)
            if children is not None:
                for row in children:
                    fill_entry(answer.children.add(), row)
                return answer
        raise Unavailable(what=f"children of {path!r} at one revision", retry_after_s=0.1)

    async def _children(self, key: WorkspaceKey, path: str, bucket: int | None, revision: int) -> Sequence[Row] | None:
        """The direct entries at `revision`, read in slices; None when a commit came in between."""
        children: list[Row] = []
        after = ""
        while True:
            async with self.reading.snapshot(key) as (view, workspace):
                if workspace.revision != revision:
                    return None
                rows = await view.list_level(path, 1, after, _SLICE_ENTRIES)
            children += rows if bucket is None else (row for row in rows if bucket_of(row.path) == bucket)
            if len(rows) < _SLICE_ENTRIES:
                return children
            after = rows[-1].path
            await asyncio.sleep(0)


def bucket_of(path: str) -> int:
    """The bucket of an entry in its directory: the first byte of SHA-256 of its name (D9)."""
    return hashlib.sha256(name(path).encode()).digest()[0]
