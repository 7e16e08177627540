"""The buckets of wide directories: how a group's changes are written, and how they are read.

Owns the tables `directory_bucket` and `bucket_build`, and the one function that SQLite lacks: the sum of two digests.
"""

from collections.abc import Iterator, Sequence

import apsw

from relayfile.store.engine import PlannedEntry, WorkspaceKey
from relayfile.store.plan import digest
from relayfile.store.plan.buckets import BucketRow, stored_sum
from relayfile.store.sqlite.rows import Rows

_KEY = "shard_id = ? AND workspace_id = ?"
_ADD = (
    "INSERT INTO directory_bucket VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (shard_id, workspace_id, path, bucket)"
    " DO UPDATE SET file_count = file_count + excluded.file_count, total_bytes = total_bytes + excluded.total_bytes,"
    " digest = digest_sum(digest, excluded.digest)"
)
_DROP = f"DELETE FROM directory_bucket WHERE {_KEY} AND path = ?"
_WANT = "INSERT OR IGNORE INTO bucket_build VALUES (?, ?, ?)"
_FINISH = f"DELETE FROM bucket_build WHERE {_KEY} AND path = ?"
_BUILDS = "SELECT shard_id, workspace_id, path FROM bucket_build ORDER BY shard_id, workspace_id, path LIMIT ?"
_BUCKETS = f"SELECT bucket, file_count, total_bytes, digest FROM directory_bucket WHERE {_KEY} AND path = ?"


def add_digest_sum(connection: apsw.Connection) -> None:
    """Teach the writer's connection to add digests."""
    connection.create_scalar_function("digest_sum", _digest_sum, 2, deterministic=True)


def _digest_sum(*digests: "apsw.SQLiteValue") -> bytes:
    total = 0
    for each in digests:
        assert isinstance(each, bytes)
        total = digest.add(total, digest.from_bytes(each))
    return digest.to_bytes(total)


def bucket_statements(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    """What writes the changes of the entries' buckets."""
    dropped: Rows = []
    ended: Rows = []
    wanted: Rows = []
    sums: Rows = []
    for key, plan, _ in entries:
        buckets = plan.buckets
        dropped += [(*key, path) for path in buckets.dropped]
        ended += [(*key, path) for path in (*buckets.dropped, *buckets.finished)]
        wanted += [(*key, path) for path in buckets.wanted]
        sums += [(*key, path, bucket, *stored_sum(change)) for (path, bucket), change in sorted(buckets.sums.items())]
    yield _DROP, dropped
    yield _FINISH, ended
    yield _WANT, wanted
    yield _ADD, sums


def bucket_rows(cursor: apsw.Cursor, key: WorkspaceKey, path: str) -> list[BucketRow]:
    """The buckets of a directory, by number."""
    rows = cursor.execute(_BUCKETS, (*key, path))
    return [BucketRow(number, files, size, digest.from_bytes(total)) for number, files, size, total in rows]


def bucket_builds(connection: apsw.Connection, limit: int) -> list[tuple[WorkspaceKey, str]]:
    """Directories whose buckets are being built."""
    return [(WorkspaceKey(shard_id, name), path) for shard_id, name, path in connection.execute(_BUILDS, (limit,))]
