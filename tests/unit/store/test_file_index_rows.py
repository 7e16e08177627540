"""Files that were stored before there was an index are found by it."""

from pathlib import Path

import apsw
import pytest

from relayfile.model import Semantics
from relayfile.store.plan.file_index import terms_of
from relayfile.store.sqlite import schema
from relayfile.store.sqlite.connection import open_writer
from relayfile.store.sqlite.rows import encode_semantics

FILES = {
    "/github/a.json": ("github", Semantics({"state": "open", "a=b": "c"}, ("r1", "r2"), ("deny:any",), ("c",))),
    "/github/b.json": ("github", Semantics({"long": "y" * 300, "ö": "ä" * 140}, ("z" * 129,))),
    "/github/x/c.json": ("github", Semantics()),
    "/top.json": ("linear", Semantics(comments=("one\ntwo",))),
    "/by-agent.txt": ("", Semantics(relations=("r1",))),
}


def test_the_migration_indexes_as_plans_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "store.db"
    connection = open_writer(path, 1 << 20)
    every = list(schema._migrations())
    with monkeypatch.context() as patched:
        patched.setattr(schema, "_migrations", lambda: [each for each in every if each[0] < "0008"])
        schema.migrate(connection, path)
    for file_path, (provider, semantics) in FILES.items():
        connection.execute(
            "INSERT INTO file VALUES (3, 'acme', ?, 1, 1, x'00', 1, '', ?, '', 0, 1, ?, NULL)",
            (file_path, provider, encode_semantics(semantics)),
        )
    schema.migrate(connection, path)
    assert _rows(connection, "file_term") == {
        (3, "acme", int(term.kind), term.value, file_path)
        for file_path, (_, semantics) in FILES.items()
        for term in terms_of(semantics)
    }
    assert _rows(connection, "provider_directory") == {
        (3, "acme", "github", "/github/", 2),
        (3, "acme", "github", "/github/x/", 1),
        (3, "acme", "linear", "/", 1),
    }
    connection.close()


def _rows(connection: apsw.Connection, table: str) -> set[tuple[object, ...]]:
    return set(connection.execute(f"SELECT * FROM {table}"))
