"""The registry over restarts."""

import pathlib

import apsw
import pytest

from relayfile.errors import StartRefused
from relayfile.syncd.progress import Via
from relayfile.syncd.wire import result_message
from tests.fakes.registry import add, serving
from tests.fakes.store import FakeStore


def run_sql(path: pathlib.Path, sql: str) -> object:
    """What ``sql`` answers on the database at ``path``, opened for it alone."""
    db = apsw.Connection(str(path))
    try:
        return db.execute(sql).get
    finally:
        db.close()


async def test_a_database_of_a_newer_release_is_refused_and_not_touched(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data" / "mirrors.db"
    async with serving("127.0.0.1:1", tmp_path) as registry:
        add(registry, tmp_path, follow=False)
    assert run_sql(path, "PRAGMA user_version") == 1
    run_sql(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StartRefused, match=r"mirrors\.db has format 2, this release knows 1"):
        async with serving("127.0.0.1:1", tmp_path):
            pass
    assert path.read_bytes() == before


async def test_a_database_from_before_the_number_is_taken_over(tmp_path: pathlib.Path) -> None:
    async with serving("127.0.0.1:1", tmp_path) as registry:
        mirror_id = add(registry, tmp_path, follow=False).record.mirror_id
    path = tmp_path / "data" / "mirrors.db"
    run_sql(path, "PRAGMA user_version = 0")
    async with serving("127.0.0.1:1", tmp_path) as registry:
        assert registry.get(mirror_id).record.directory == str(tmp_path / "mirror")
    assert run_sql(path, "PRAGMA user_version") == 1


async def test_a_directory_that_is_added_again_has_nothing_to_be_written(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/d{index % 3}/{index}": f"content {index}" for index in range(25)})
    async with store.served() as address, serving(address, tmp_path) as registry:
        for adopt_existing, expected in ((False, (25, 0)), (True, (0, 25))):
            mirror = add(registry, tmp_path, follow=False, read_only=False, adopt_existing=adopt_existing)
            progress = await mirror.pull(full=False, via=Via.ANY)
            result = result_message(mirror, progress, progress.started)
            assert (result.written_count, result.unchanged_count) == expected
            await registry.forget(mirror, force=False)
    assert not store.writes, "what is equal is not sent"
