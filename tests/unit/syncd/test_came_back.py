"""A file that the store gave up and has again with the same bytes, before the journal had heard of its removal."""

import pathlib

import pytest

from relayfile.syncd.apply import Application, Wanted
from relayfile.syncd.audit import Verdict
from relayfile.syncd.catch_up import catch_up, prove
from relayfile.syncd.progress import Progress, Via
from relayfile.syncd.pull import first_pull
from tests.fakes.mirror import opened, tree_of
from tests.fakes.store import FakeStore

FILES = {f"/notes/{index}": f"note {index}" for index in range(10)}
GONE = "/notes/7"


@pytest.mark.parametrize("read_only", [True, False])
async def test_it_is_put_back_when_a_kill_came_between_its_removal_and_the_journal(
    tmp_path: pathlib.Path, *, read_only: bool
) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path, read_only=read_only) as mirror:
        await first_pull(mirror, Progress(0.0), Via.ANY)
        store.delete(GONE)
        await catch_up(mirror, Progress(0.0), bring=False)
        [row] = mirror.journal.pending_deletes(10)
        doomed = Wanted(row.path, row.disk_path, row.disk_hash, row.disk_stat, None, row.revision)
        await mirror.writer.run(Application(mirror.root, ["trash-1"], 0).remove, [doomed])
        assert GONE not in tree_of(tmp_path), "and the journal has not heard of it"
        store.put(GONE, FILES[GONE])
        await catch_up(mirror, Progress(0.0))
        assert GONE in store.files, "its absence is no delete of a user's, to be sent to the store"
        assert tree_of(tmp_path) == {path: text.encode() for path, text in FILES.items()}
        assert (await prove(mirror, Progress(0.0), repair=False)).verdict is Verdict.EXACT


async def test_it_is_not_fetched_when_it_is_still_on_disk(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await first_pull(mirror, Progress(0.0), Via.ANY)
        store.delete(GONE)
        await catch_up(mirror, Progress(0.0), bring=False)
        store.put(GONE, FILES[GONE])
        store.paths_read.clear()
        await catch_up(mirror, Progress(0.0))
        assert (store.paths_read, list((tmp_path / "mirror" / ".relayfile" / "trash").iterdir())) == ([], [])
        assert (await prove(mirror, Progress(0.0), repair=False)).verdict is Verdict.EXACT


async def test_an_edit_of_it_is_not_lost(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill(FILES)
    async with store.served() as address, opened(address, tmp_path) as mirror:
        await first_pull(mirror, Progress(0.0), Via.ANY)
        store.delete(GONE)
        await catch_up(mirror, Progress(0.0), bring=False)
        (tmp_path / "mirror" / GONE[1:]).write_bytes(b"edited here")
        store.put(GONE, FILES[GONE])
        await catch_up(mirror, Progress(0.0))
        kept = [path.read_bytes() for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
        assert b"edited here" in kept
