"""How connections to the node's file are set up. SQLite's durability rests on these few lines.

`synchronous=FULL` makes a commit an fsync of the write-ahead log. Checkpoints are never automatic: SQLite would run
them inside a commit and hide their fsync's failure; the engine runs them and sees it.
"""

from pathlib import Path

import apsw

from relayfile.store.sqlite.shrinking import prepare_shrinking

BUSY_TIMEOUT_MS = 5_000
STATEMENT_CACHE_ENTRIES = 256


def open_writer(path: Path, cache_bytes: int) -> apsw.Connection:
    """The one connection that writes."""
    connection = apsw.Connection(str(path), statementcachesize=STATEMENT_CACHE_ENTRIES)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _keep_plans(connection)
    prepare_shrinking(connection)
    mode = connection.execute("PRAGMA journal_mode=WAL").fetchall()
    assert mode == [("wal",)], mode
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute(f"PRAGMA cache_size=-{cache_bytes // 1024}")
    connection.wal_autocheckpoint(0)
    return connection


def open_reader(path: Path, cache_bytes: int) -> apsw.Connection:
    """A connection that cannot write."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=STATEMENT_CACHE_ENTRIES)
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    _keep_plans(connection)
    connection.execute("PRAGMA query_only=ON")
    connection.execute(f"PRAGMA cache_size=-{cache_bytes // 1024}")
    return connection


def _keep_plans(connection: apsw.Connection) -> None:
    """A statement is compiled once, whatever it is bound to.

    SQLite otherwise compiles it anew for each array that it gets, to plan for the values (measured: eight lookups of
    an entry's load take 70 instead of 19 microseconds). Our statements fix their plans.
    """
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
