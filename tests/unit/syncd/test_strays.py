"""What a kill left on disk and on no list: it is listed when the mirror is opened again, and nothing is thrown away."""

import asyncio
import os
import pathlib
import threading
from collections.abc import Iterator
from unittest import mock

import pytest

from relayfile import faults
from relayfile.errors import StorageFailed, UnsentEdits
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
            await mirror.look()
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
            await mirror.look()
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
            await mirror.look()
            first = listed(mirror)
            assert [(each.kept_name, each.local_size) for each in first] == [(name, 4)]
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await mirror.look()
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
            failing = mock.patch("relayfile.syncd.opening.take_in", side_effect=StorageFailed(what="it is full"))
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


def leave_strays(tmp_path: pathlib.Path, count: int) -> None:
    own = tmp_path / "mirror" / ".relayfile"
    (own / "conflicts" / "d").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (own / "trash" / f"a~{number:04}").write_text(f"{number}")
        (own / "conflicts" / "d" / f"a@{number + 1}").write_text(f"{number}")


async def test_strays_are_looked_for_and_hashed_in_the_writers_thread(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            await pull(add(registry, tmp_path, follow=False, read_only=False))
        leave_strays(tmp_path, 600)
        threads: list[int] = []
        chunks, look = descriptors.chunks, descriptors.look

        def noted_chunks(directory: int, name: str) -> Iterator[bytes]:
            threads.append(threading.get_ident())
            return chunks(directory, name)

        def noted_look(directory: int, name: str) -> os.stat_result | None:
            if name.startswith("a"):
                threads.append(threading.get_ident())
            return look(directory, name)

        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            with (
                mock.patch.object(descriptors, "chunks", noted_chunks),
                mock.patch.object(descriptors, "look", noted_look),
            ):
                await mirror.look()
            assert len(threads) >= 4 * 600
            assert threading.get_ident() not in threads, "every other mirror and call of the process waits for the loop"
            assert mirror.opened is not None
            assert mirror.opened.journal.trash.totals()[0] == mirror.opened.journal.conflicts.count() == 600


async def test_whoever_looks_while_a_mirror_is_opened_sees_it_opened(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            await pull(add(registry, tmp_path, follow=False, read_only=False))
        leave_strays(tmp_path, 1)
        reads, may_go_on = threading.Event(), threading.Event()
        chunks = descriptors.chunks

        def held(directory: int, name: str) -> Iterator[bytes]:
            reads.set()
            may_go_on.wait()
            return chunks(directory, name)

        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            with mock.patch.object(descriptors, "chunks", held):
                try:
                    opening = asyncio.create_task(mirror.look())
                    await asyncio.to_thread(reads.wait)
                    forgetting = asyncio.create_task(registry.forget(mirror, force=False))
                    await asyncio.sleep(0)
                    assert mirror.opened is None
                    assert not opening.done()
                    assert not forgetting.done()
                finally:
                    may_go_on.set()
                await opening
                with pytest.raises(UnsentEdits):
                    await forgetting
            assert mirror.opened is not None


async def test_a_trash_that_somebody_emptied_is_forgotten_and_one_that_was_partly_listed_goes_on(
    tmp_path: pathlib.Path,
) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            await pull(add(registry, tmp_path, follow=False, read_only=False))
        leave_strays(tmp_path, 5)
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await mirror.look()
            assert len(trashed(mirror)) == 5
        for path in (tmp_path / "mirror" / ".relayfile" / "trash").glob("a~000[0-2]"):
            path.unlink()
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await mirror.look()
            assert sorted(each.name for each in trashed(mirror)) == ["a~0003", "a~0004"]
