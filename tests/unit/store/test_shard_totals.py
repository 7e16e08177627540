"""The sums that a shard keeps of its counters, in files that an earlier release began."""

from importlib import resources
from pathlib import Path

import apsw

from relayfile.store.sqlite.schema import migrate


def test_counters_of_an_earlier_release_are_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    first = (resources.files("relayfile.store.sqlite") / "migrations" / "0001_initial.sql").read_text()
    connection.execute(first.split("-- migrate:up", 1)[1].split("-- migrate:down", 1)[0])
    connection.execute("CREATE TABLE schema_migrations (version TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID")
    connection.execute("INSERT INTO schema_migrations VALUES ('0001')")
    connection.executemany(
        "INSERT INTO outcome_count VALUES (?, ?, 'github', ?, ?)", [(1, "a", 1, 5), (1, "b", 1, 7), (2, "c", 3, 1)]
    )
    connection.execute("INSERT INTO failure_count VALUES (1, 'a', 'github', 'NOT_JSON', 2)")
    connection.execute("INSERT INTO provider_seen VALUES (1, 'a', 'github', 10, 20), (1, 'b', 'github', 30, NULL)")

    migrate(connection, path)

    assert list(connection.execute("SELECT * FROM outcome_total")) == [(1, "github", 1, 12), (2, "github", 3, 1)]
    assert list(connection.execute("SELECT * FROM failure_total")) == [(1, "github", "NOT_JSON", 2)]
    assert list(connection.execute("SELECT * FROM provider_seen_total")) == [(1, "github", 30, 20)]
    connection.close()


def test_a_counter_that_changes_changes_the_sum(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path)
    for workspace, number in (("a", 5), ("b", 2), ("a", -3)):
        connection.execute(
            "INSERT INTO outcome_count VALUES (1, ?, 'github', 8, ?)"
            " ON CONFLICT (shard_id, workspace_id, provider, outcome) DO UPDATE SET count = count + excluded.count",
            (workspace, number),
        )
    assert connection.execute("SELECT count FROM outcome_total").get == 4
    connection.execute("UPDATE outcome_count SET count = 0 WHERE workspace_id = 'b'")
    assert connection.execute("SELECT count FROM outcome_total").get == 2
    connection.close()
