"""A node's file without its node: opened for reading, by whoever holds the directory's lock.

Refuses files of another schema than this release's: a node that starts on them brings them up to it.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import apsw

from relayfile.clock import Clock
from relayfile.data_directory import DataDirectory
from relayfile.errors import DataCorrupted, StartRefused
from relayfile.placement import shard_of
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.connection import open_reader
from relayfile.store.sqlite.engine import CHUNK_CACHE_BYTES, DATABASE_NAME
from relayfile.store.sqlite.schema import newest_version


def node_directories(directory: Path) -> list[Path]:
    """The data directories of store nodes that `directory` is, or holds. `StartRefused` when there are none."""
    if (directory / DATABASE_NAME).is_file():
        return [directory]
    found = sorted(path.parent for path in directory.glob(f"store-*/{DATABASE_NAME}"))
    if not found:
        raise StartRefused(why=f"{directory} holds no {DATABASE_NAME}: it is not the data directory of a store node")
    return found


@contextmanager
def stopped_audit(directory: Path, clock: Clock, workspace_id: str = "") -> Iterator[SqliteAudit | None]:
    """Audits of a stopped node's data; None when the workspace is not one of its. `StartRefused` when it runs."""
    path = directory / DATABASE_NAME
    with DataDirectory(directory):
        with errors_shown(path):
            connection = open_reader(path, CHUNK_CACHE_BYTES)
        try:
            auditor = audit_over(connection, path, clock)
            yield auditor if not workspace_id or _has(connection, workspace_id) else None
        finally:
            connection.close()


def _has(connection: apsw.Connection, workspace_id: str) -> bool:
    """Whether the workspace's shard is one of this node's."""
    shard_ids = {row[0] for row in connection.execute("SELECT shard_id FROM shard")}
    return shard_of(workspace_id, _shard_count(connection)) in shard_ids


def _shard_count(connection: apsw.Connection) -> int:
    return int(connection.execute("SELECT value FROM meta WHERE name = 'shard_count'").get)


def audit_over(connection: apsw.Connection, path: Path, clock: Clock, *, gives_way: bool = False) -> SqliteAudit:
    """Audits over a connection that nobody else uses."""
    with errors_shown(path):
        version = connection.execute("SELECT max(version) FROM schema_migrations").get
        if version != newest_version():
            raise StartRefused(
                why=f"{path} has schema version {version}, this release reads {newest_version()}; start its node once"
            )
        shard_count = _shard_count(connection)

    @asynccontextmanager
    async def snapshot() -> AsyncIterator[apsw.Cursor]:
        with errors_shown(path):
            cursor = connection.cursor()
            cursor.execute("BEGIN")
            try:
                yield cursor
            finally:
                if connection.in_transaction:
                    cursor.execute("ROLLBACK")

    return SqliteAudit(snapshot, clock, shard_count, gives_way=gives_way)


@contextmanager
def errors_shown(path: Path) -> Iterator[None]:
    """What SQLite cannot read is damage of the file."""
    try:
        yield
    except apsw.Error as error:
        raise DataCorrupted(what=f"{path}: {error}") from error
