"""The table of the spool's file that keeps what is paused, so that a restart sends nothing of it before it is told.

Owns its SQL. What was known last is written as a whole: pauses are few and change rarely.
"""

from collections.abc import Sequence

import apsw

SCHEMA = """
CREATE TABLE IF NOT EXISTS pause (
    workspace_id TEXT NOT NULL,
    provider TEXT NOT NULL,
    PRIMARY KEY (workspace_id, provider)
) WITHOUT ROWID;
"""


def write_pauses(connection: apsw.Connection, pauses: Sequence[tuple[str, str]]) -> None:
    """(workspace, provider) of everything that is paused, in place of what was. Inside the caller's transaction."""
    connection.execute("DELETE FROM pause")
    connection.executemany("INSERT INTO pause VALUES (?,?)", pauses)


def read_pauses(connection: apsw.Connection) -> list[tuple[str, str]]:
    """What was written last."""
    return list(connection.execute("SELECT workspace_id, provider FROM pause"))
