"""A disk that fails on a read is named as what it is, and the reader is left in order."""

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from relayfile.data_directory import DataDirectory
from relayfile.errors import DataCorrupted, RelayfileError, StorageFailed, Unavailable
from relayfile.store.engine import WorkspaceKey
from relayfile.store.sqlite import engine as engine_module
from relayfile.store.sqlite.engine import SqliteEngine
from tests.support.running_node import open_test_engine

KEY = WorkspaceKey(0, "acme")


class BadDisk(apsw.Connection):
    """Reads fail with `error` while there is one."""

    error: type[apsw.Error] | None = None

    def strike(self, *_: object) -> bool:
        if BadDisk.error is not None:
            raise BadDisk.error("struck")
        return True

    def blob_open(self, database: str, table: str, column: str, rowid: int, writeable: bool) -> apsw.Blob:
        self.strike()
        return super().blob_open(database, table, column, rowid, writeable)


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SqliteEngine]:
    def open_reader(path: Path, _cache_bytes: int) -> apsw.Connection:
        connection = BadDisk(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_exec_trace(connection.strike)
        return connection

    monkeypatch.setattr(engine_module, "open_reader", open_reader)
    monkeypatch.setattr(BadDisk, "error", None)
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory)
        await engine.acquire_shards([0], 0, "here:1")
        yield engine
        BadDisk.error = None
        await engine.close()


async def read(engine: SqliteEngine, what: str) -> None:
    if what == "chunk":
        await engine.content_chunk(KEY, 1, 0, 1)
    elif what == "outcomes":
        await engine.node_outcomes()
    else:
        async with engine.view(KEY) as view:
            await view.workspace()


async def strike_within_a_view(engine: SqliteEngine, error: type[apsw.Error]) -> None:
    async with engine.view(KEY) as view:
        BadDisk.error = error
        try:
            await view.workspace()
        finally:
            BadDisk.error = None


@pytest.mark.parametrize("what", ["chunk", "outcomes", "view"])
@pytest.mark.parametrize(
    ("error", "ours", "ends"),
    [
        (apsw.IOError, StorageFailed, True),
        (apsw.CorruptError, DataCorrupted, True),
        (apsw.BusyError, Unavailable, False),
        (apsw.CantOpenError, Unavailable, False),
    ],
)
async def test_a_read_that_fails_says_why(
    engine: SqliteEngine, what: str, error: type[apsw.Error], ours: type[RelayfileError], ends: bool
) -> None:
    await read(engine, what)
    BadDisk.error = error
    with pytest.raises(ours):
        await read(engine, what)
    BadDisk.error = None
    await read(engine, what)
    if ends:
        with pytest.raises(StorageFailed):
            await engine.acquire_shards([0], 0, "here:1")
    else:
        await engine.acquire_shards([0], 0, "here:1")


@pytest.mark.parametrize(("error", "ours"), [(apsw.IOError, StorageFailed), (apsw.BusyError, Unavailable)])
async def test_a_read_inside_a_snapshot_says_why_too(
    engine: SqliteEngine, error: type[apsw.Error], ours: type[RelayfileError]
) -> None:
    with pytest.raises(ours):
        await strike_within_a_view(engine, error)
    await read(engine, "view")
