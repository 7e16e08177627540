"""A store that is restored while an edit is on its way: the same numbers, and other files behind them."""

import pathlib
from unittest import mock

import pytest

from relayfile.syncd.delivery import Answer, Delivery, Parcel
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, quick, serving, until
from tests.fakes.store import FakeStore

THEIRS = b"of the new history"


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({f"/d/{name}": f"first {name}" for name in "abcdef"})
    return store


class Restored:
    """Gives the store another history when the first edit is on its way, with the same numbers."""

    def __init__(self, store: FakeStore) -> None:
        self._store = store
        self._deliver = Delivery.deliver
        self.times = 0

    async def deliver(self, delivery: Delivery, parcel: Parcel) -> list[Answer]:
        if not self.times:
            store = self._store
            store.new_history()
            store.revision = 0
            files = [(path, THEIRS if path == "/d/a" else file.content) for path, file in store.files.items()]
            store.files.clear()
            store.fill(dict(files))
            store.expire_events()
        self.times += 1
        return await self._deliver(delivery, parcel)


def kept(tmp_path: pathlib.Path) -> list[bytes]:
    top = tmp_path / "mirror" / ".relayfile" / "conflicts"
    return [path.read_bytes() for path in top.rglob("*") if path.is_file()]


def is_settled(mirror: Mirror, store: FakeStore, tmp_path: pathlib.Path) -> bool:
    assert mirror.opened is not None
    journal = mirror.opened.journal
    return (
        journal.cursor.history_id == store.history_id
        and tree_of(tmp_path) == contents(store)
        and not journal.outbox.totals().pending_count
    )


@pytest.mark.parametrize("mine", [b"mine", b"m" * (1 << 21)], ids=["in a message", "uploaded"])
async def test_an_edit_of_a_lost_history_overwrites_nothing_in_the_new_one(tmp_path: pathlib.Path, mine: bytes) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await mirror.pull(full=False, via=Via.ANY)
        restored = Restored(store)
        with mock.patch.object(Delivery, "deliver", lambda *given: restored.deliver(*given)):
            (tmp_path / "mirror" / "d" / "a").write_bytes(mine)
            await mirror.flush()
        assert restored.times
        assert store.files["/d/a"].content == THEIRS
        assert kept(tmp_path) == [mine]
        assert is_settled(mirror, store, tmp_path)


async def test_a_mirror_that_follows_hears_of_the_new_history_and_goes_on(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        restored = Restored(store)
        with mock.patch.object(Delivery, "deliver", lambda *given: restored.deliver(*given)):
            (tmp_path / "mirror" / "d" / "a").write_bytes(b"mine")
            await until(lambda: restored.times and is_settled(mirror, store, tmp_path))
            assert store.files["/d/a"].content == THEIRS
            assert kept(tmp_path) == [b"mine"]
            (tmp_path / "mirror" / "d" / "b").write_bytes(b"edited later")
            await until(lambda: store.files["/d/b"].content == b"edited later")


async def test_equal_files_take_the_numbers_of_the_new_history(tmp_path: pathlib.Path) -> None:
    store = filled()
    path = tmp_path / "mirror" / "d" / "f"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await mirror.pull(full=False, via=Via.ANY)
        store.new_history()
        store.revision = 0
        files = sorted(((each, file.content) for each, file in store.files.items()), reverse=True)
        store.files.clear()
        store.fill(dict(files))
        store.expire_events()
        await mirror.pull(full=False, via=Via.ANY)
        assert mirror.opened is not None
        assert mirror.opened.journal.cursor.history_id == store.history_id
        rows = mirror.opened.journal.load(store.files)
        assert {each: row.revision for each, row in rows.items()} == {
            each: file.revision for each, file in store.files.items()
        }
        path.write_bytes(b"edited")
        await mirror.flush()
        assert [(item.write.path, item.if_revision) for item in store.writes] == [("/d/f", 1)]
        assert is_settled(mirror, store, tmp_path)
