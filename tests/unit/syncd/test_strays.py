"""What a kill left on disk and on no list: it is listed when the mirror is opened again, and nothing is thrown away."""

import pathlib
from unittest import mock

import pytest

from relayfile import faults
from relayfile.errors import StorageFailed
from relayfile.syncd import descriptors, strays
from relayfile.syncd.local import take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.reconcile import ConflictKind
from relayfile.syncd.resolve import Choice
from relayfile.syncd.rows import Conflict
from relayfile.syncd.trash import TrashEntry
from tests.fakes.registry import add, serving
from tests.fakes.store import FakeStore


class Killed(BaseException):
    """Nothing of syncd goes on."""


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({"/d/a": "first", "/d/b": "another"})
    return store


async def pull(mirror: Mirror) -> None:
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


def listed(mirror: Mirror) -> list[Conflict]:
    assert mirror.opened is not None
    return mirror.opened.journal.conflicts.page(("", ""), 100)


def trashed(mirror: Mirror) -> list[TrashEntry]:
    assert mirror.opened is not None
    return mirror.opened.journal.trash.page(None, 100)


async def collide(mirror: Mirror, store: FakeStore, tmp_path: pathlib.Path, point: str) -> int:
    """Both sides change a file, and syncd dies where the local version was kept; at which revision of the store."""
    (tmp_path / "mirror" / "d" / "a").write_bytes(b"mine")
    assert mirror.opened is not None
    await take_local(mirror.opened, LocalChanges(("d/a",)))
    revision = store.put("/d/a", "theirs")

    def die(name: str) -> None:
        if name == point:
            raise Killed

    with mock.patch.object(faults, "point", die), pytest.raises(Killed):
        await pull(mirror)
    return revision


async def test_a_kept_version_that_a_kill_left_unlisted_is_listed_and_can_be_chosen(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
            revision = await collide(mirror, store, tmp_path, "syncd.apply.after_rename_before_journal")
            assert listed(mirror) == []
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            mirror.look()
            [conflict] = listed(mirror)
            assert (conflict.path, conflict.disk_path, conflict.kept_name) == ("/d/a", "d/a", f"d/a@{revision}")
            assert (conflict.kind, conflict.remote_revision) == (ConflictKind.BOTH_MODIFIED, revision)
            await pull(mirror)
            [conflict] = listed(mirror)
            assert (tmp_path / "mirror" / "d" / "a").read_bytes() == b"theirs"
            assert (await mirror.resolve([conflict], Choice.MINE)).ended
            await pull(mirror)
            assert store.files["/d/a"].content == b"mine"
            assert listed(mirror) == []


async def test_a_version_that_was_kept_and_not_replaced_is_no_conflict_before_it_is_one(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
            revision = await collide(mirror, store, tmp_path, "syncd.conflict.after_keep_before_replace")
            assert (tmp_path / "mirror" / ".relayfile" / "conflicts" / f"d/a@{revision}").read_bytes() == b"mine"
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            mirror.look()
            assert listed(mirror) == [], "the file still has its name"
            later = store.put("/d/a", "theirs, later")
            await pull(mirror)
            [conflict] = listed(mirror)
            assert conflict.kept_name == f"d/a@{later}"
            kept = [path for path in (tmp_path / "mirror" / ".relayfile" / "conflicts").rglob("*") if path.is_file()]
            assert [path.read_bytes() for path in kept] == [b"mine"]


@pytest.mark.parametrize("name", ["d/a@7", "d/new@7", "plain", "d/a~0123456789abcdef", "deep/er/x@y"])
async def test_whatever_lies_among_the_kept_versions_is_listed_once(tmp_path: pathlib.Path, name: str) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
        kept = tmp_path / "mirror" / ".relayfile" / "conflicts" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(b"mine")
        (kept.parent / "link").symlink_to(tmp_path)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            mirror.look()
            first = listed(mirror)
            assert [(each.kept_name, each.local_size) for each in first] == [(name, 4)]
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            mirror.look()
            assert listed(mirror) == first
            assert (await mirror.resolve(first, Choice.THEIRS)).ended
            assert not kept.exists()
            assert [each.acknowledged for each in trashed(mirror)] == [False]


async def test_an_edit_that_came_out_of_its_place_in_a_swap_is_in_the_trash_after_a_kill(
    tmp_path: pathlib.Path,
) -> None:
    store = filled()
    local = tmp_path / "mirror" / "d" / "a"
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
            store.put("/d/a", "theirs")
            store.put("/d/b", "theirs, too")
            real = descriptors.exchange

            def save_and_die(first_directory: int, first: str, second_directory: int, second: str) -> bool:
                aside = tmp_path / "aside"
                aside.write_bytes(b"saved at the last moment")
                aside.rename(local)
                real(first_directory, first, second_directory, second)
                raise Killed

            with mock.patch.object(descriptors, "exchange", save_and_die), pytest.raises(Killed):
                await pull(mirror)
            assert local.read_bytes() == b"theirs"
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await pull(mirror)
            by_bytes = {
                (tmp_path / "mirror" / ".relayfile" / "trash" / each.name).read_bytes(): each.acknowledged
                for each in trashed(mirror)
            }
            assert by_bytes[b"saved at the last moment"] is False, "it is in no other place"
            assert local.read_bytes() == b"theirs"


def test_names_of_kept_versions_say_where_they_were() -> None:
    assert strays._origin("d/a@7") == ("d/a", 7)
    assert strays._origin("a@b@12") == ("a@b", 12)
    assert strays._origin("d/a~0123.txt") == ("d/a~0123.txt", 0)
    assert strays._origin("d/@7") == ("d/@7", 0)


async def test_a_mirror_that_could_not_be_opened_does_not_lock_itself_out(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            failing = mock.patch("relayfile.syncd.mirror.take_in", side_effect=StorageFailed(what="it is full"))
            with failing, pytest.raises(StorageFailed):
                await pull(mirror)
            await pull(mirror)
            assert mirror.opened is not None


async def test_an_edit_that_cannot_go_back_to_its_place_is_kept_from_later_batches(
    tmp_path: pathlib.Path,
) -> None:
    store = filled()
    local = tmp_path / "mirror" / "d" / "a"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        real = descriptors.exchange
        swaps = 0

        def save_before_and_delete_after(first_directory: int, first: str, second_directory: int, second: str) -> bool:
            nonlocal swaps
            swaps += 1
            if swaps == 1:
                (tmp_path / "aside").write_bytes(b"saved at the last moment")
                (tmp_path / "aside").rename(local)
            if swaps == 2:
                local.unlink()
            return real(first_directory, first, second_directory, second)

        store.put("/d/a", "theirs")
        with mock.patch.object(descriptors, "exchange", save_before_and_delete_after):
            await pull(mirror)
        for turn in range(3):
            store.put("/d/b", f"theirs {turn}")
            await pull(mirror)
        await registry.forget(mirror, force=True)
        own = tmp_path / "mirror" / ".relayfile"
        assert b"saved at the last moment" in [path.read_bytes() for path in own.rglob("*") if path.is_file()]
