"""Duplicates that an earlier release remembered, by the place of the change in its envelope."""

from importlib import resources
from pathlib import Path

import apsw

from relayfile.store.sqlite.schema import migrate


def test_duplicates_of_an_earlier_release_stay(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    first = (resources.files("relayfile.store.sqlite") / "migrations" / "0001_initial.sql").read_text()
    connection.execute(first.split("-- migrate:up", 1)[1].split("-- migrate:down", 1)[0])
    connection.execute("CREATE TABLE schema_migrations (version TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID")
    connection.execute("INSERT INTO schema_migrations VALUES ('0001')")
    connection.execute("INSERT INTO duplicate_seen_1 VALUES (1, 'a', 'e', 0, 5), (1, 'a', 'e', 1, 6)")

    migrate(connection, path)

    # A number of a change is below 0, and so never takes the row of a place.
    connection.execute("INSERT INTO duplicate_seen_1 VALUES (1, 'a', 'e', -7, 8)")
    rows = connection.execute("SELECT envelope_id, change_number, decided_us FROM duplicate_seen_1").fetchall()
    assert rows == [("e", -7, 8), ("e", 0, 5), ("e", 1, 6)]
    connection.close()
