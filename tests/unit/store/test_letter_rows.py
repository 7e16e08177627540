"""Rows of dead letters: in files that an earlier release began, and found without looking through all of them."""

import re
from importlib import resources
from pathlib import Path

import apsw
import pytest

from relayfile.store.sqlite import letters
from relayfile.store.sqlite.connection import open_writer
from relayfile.store.sqlite.schema import migrate

OLD = (
    "INSERT INTO dead_letter VALUES (1, ?, ?, ?, 1, 'github', 'd', ?, 'e', ?, 'why', 0, 10, NULL, '', '', '',"
    " 1, 1, 1, 1, NULL, NULL, NULL)"
)


def test_letters_of_an_earlier_release_are_summed_up_and_changes_are_changes(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    first = (resources.files("relayfile.store.sqlite") / "migrations" / "0001_initial.sql").read_text()
    connection.execute(first.split("-- migrate:up", 1)[1].split("-- migrate:down", 1)[0])
    connection.execute("CREATE TABLE schema_migrations (version TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID")
    connection.execute("INSERT INTO schema_migrations VALUES ('0001')")
    rows = [
        ("acme", "1", "normalise", "n:0", "MALFORMED_JSON"),
        ("acme", "2", "apply", "o:issue/1", "NOT_JSON"),
        ("acme", "3", "normalise", "o:issue/2", "INTERNAL_FAULT"),
    ]
    connection.executemany(OLD, rows)
    kept = '{"x-event":"a","x-relayfile-tenant":"7 \\"é"}'
    connection.execute("UPDATE dead_letter SET headers = ? WHERE dead_letter_id = '3'", (kept,))
    connection.executemany("INSERT INTO failure_count VALUES (1, 'acme', 'github', ?, 1)", [row[-1:] for row in rows])

    migrate(connection, path)

    assert list(connection.execute("SELECT stage FROM dead_letter")) == [("normalise",), ("apply",), ("apply",)]
    assert list(connection.execute("SELECT tenant FROM dead_letter")) == [("",), ("",), ('7 "é',)]
    totals = "SELECT state, count, body_bytes FROM dead_letter_total WHERE count > 0"
    assert list(connection.execute(totals)) == [(1, 3, 30)]
    connection.execute("UPDATE dead_letter SET state = 3, reason = 'NOT_JSON' WHERE dead_letter_id = '3'")
    connection.execute("DELETE FROM dead_letter WHERE dead_letter_id = '2'")
    assert list(connection.execute(totals)) == [(1, 1, 10), (3, 1, 10)]
    reasons = "SELECT reason, count FROM failure_count WHERE count > 0"
    assert list(connection.execute(reasons)) == [("MALFORMED_JSON", 1), ("NOT_JSON", 1)]
    connection.close()


@pytest.mark.parametrize(
    ("statement", "key"),
    [
        ("_AFTER", "dead_letter_id>?"),
        ("_AFTER_OF_TENANT", "dead_letter_by_tenant (shard_id=? AND workspace_id=? AND tenant=? AND dead_letter_id>?)"),
        ("_REPLAYING", "dead_letter_replaying (shard_id=? AND workspace_id=? AND stage=?)"),
        ("_REPLAYING_WORKSPACE", "COVERING INDEX dead_letter_replaying (shard_id=? AND workspace_id>?)"),
        ("_RESOLVED_GARBAGE", "dead_letter_by_delivery (shard_id=? AND workspace_id=? AND provider=?"),
        ("_RESOLVED_DELETE", "dead_letter_by_delivery (shard_id=? AND workspace_id=? AND provider=?"),
        ("_EXPIRED", "dead_letter_acknowledged (shard_id=? AND created_us<?)"),
        ("_QUEUE", "dead_letter_id=?"),
        ("_RETRIED", "dead_letter_id=?"),
    ],
)
def test_letters_are_found_by_key(tmp_path: Path, statement: str, key: str) -> None:
    connection = open_writer(tmp_path / "store.db", 1 << 20)
    migrate(connection, tmp_path / "store.db")
    sql: str = getattr(letters, statement)
    count = max((int(number) for number in re.findall(r"\?(\d+)", sql)), default=sql.count("?"))
    plans = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (1,) * count)]
    assert any(key in plan for plan in plans), plans
    assert not any("TEMP B-TREE" in plan for plan in plans), plans
    connection.close()
