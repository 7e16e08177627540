"""What clocks, disks and stores do to edits that wait to be sent: none is lost, none waits for ever, nobody spins."""

import asyncio
import os
import pathlib
import shutil
from dataclasses import replace
from unittest import mock

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.errors import MirrorRefused, PullStalled
from relayfile.settings import SyncdSettings
from relayfile.syncd import parcel, patience, place
from relayfile.syncd.bring import evict_trash
from relayfile.syncd.local import take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Via
from relayfile.syncd.push import Pusher
from relayfile.syncd.rows import Entry
from relayfile.syncd.shown import MirrorState
from relayfile.v1 import file_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, problems, quick, serving, until
from tests.fakes.store import FakeStore

HOUR_US = 3_600_000_000


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({f"/d/{name}": f"first {name}" for name in "abcdef"})
    return store


async def pull(mirror: Mirror) -> None:
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


def use(mirror: Mirror) -> OpenMirror:
    assert mirror.opened is not None
    return mirror.opened


def equal(mirror: Mirror, store: FakeStore, tmp_path: pathlib.Path) -> bool:
    return tree_of(tmp_path) == contents(store) and use(mirror).journal.outbox.totals().pending_count == 0


def restored(store: FakeStore, **changed: bytes) -> None:
    """Another history: every file has another number, some have other bytes."""
    store.new_history()
    store.revision = 0
    store.oldest = 0
    files = {path: changed.get(path[-1], file.content) for path, file in sorted(store.files.items())}
    store.files.clear()
    store.fill(files)
    store.events.clear()
    store.oldest = store.revision


async def test_a_new_file_whose_rival_went_before_it_was_fetched_is_sent(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (tmp_path / "mirror" / "new").write_bytes(b"mine")
        store.put("/new", "theirs")
        store.knobs.cut_after_messages = 0
        with mock.patch.object(patience, "_FIRST_DELAY_S", 0.0), pytest.raises(PullStalled):
            await pull(mirror)
        store.knobs.cut_after_messages = None
        store.delete("/new")
        await pull(mirror)
        assert store.files["/new"].content == b"mine"
        assert equal(mirror, store, tmp_path)


async def test_an_edit_without_a_row_in_a_journal_of_old_is_seen_anew(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
            (tmp_path / "mirror" / "new").write_bytes(b"mine")
            await take_local(use(mirror), LocalChanges(("new",)))
            use(mirror).journal._db.execute("DELETE FROM file WHERE path = '/new'")
        async with serving(address, tmp_path) as registry:
            [mirror] = registry
            await pull(mirror)
            assert store.files["/new"].content == b"mine"
            assert equal(mirror, store, tmp_path)


async def test_a_clock_that_is_set_back_delays_no_edit(tmp_path: pathlib.Path) -> None:
    store = filled()
    clock = ManualClock()
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (tmp_path / "mirror" / "d" / "a").write_bytes(b"edited")
        (tmp_path / "mirror" / "d" / "b").unlink()
        await take_local(use(mirror), LocalChanges(("d/a", "d/b")))
        clock.set_now_us(clock.now_us() - HOUR_US)
        await pull(mirror)
        assert store.files["/d/a"].content == b"edited"
        assert "/d/b" not in store.files


async def test_a_clock_that_is_set_back_delays_no_other_attempt(tmp_path: pathlib.Path) -> None:
    store = filled()
    clock = ManualClock()
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (tmp_path / "mirror" / "d" / "a").write_bytes(b"edited")
        store.knobs.refused_paths = {"/d/a": "PERMISSION_DENIED"}
        clock.advance(10 * 3600)
        await pull(mirror)
        assert problems(mirror) == {"/d/a": "PUSH_REFUSED"}
        store.knobs.refused_paths.clear()
        clock.set_now_us(clock.now_us() - HOUR_US)
        await pull(mirror)
        assert store.files["/d/a"].content == b"edited"


async def test_a_journal_that_found_no_room_goes_on_when_there_is_some(tmp_path: pathlib.Path) -> None:
    store = filled()
    settings = replace(quick(tmp_path), mount_interval_s=3600.0)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        connection: apsw.Connection = use(mirror).journal._db
        connection.pragma("max_page_count", 1)
        for number in range(300):
            (tmp_path / "mirror" / f"{'long' * 40}-{number}").write_bytes(b"%d" % number)
        await until(lambda: mirror.seen.state is MirrorState.DISCONNECTED)
        assert mirror.seen.error is not None
        assert "full" in str(mirror.seen.error)
        connection.pragma("max_page_count", 1 << 30)
        await until(lambda: equal(mirror, store, tmp_path))
        assert len(store.files) == 306


async def test_a_file_that_never_rests_is_not_looked_at_without_end(tmp_path: pathlib.Path) -> None:
    store = filled()
    clock = ManualClock()
    restless = tmp_path / "mirror" / "d" / "a"
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        restless.write_bytes(b"grows")
        (tmp_path / "mirror" / "d" / "b").write_bytes(b"edited")
        await take_local(use(mirror), LocalChanges(("d/a", "d/b")))
        pusher = Pusher(use(mirror), asyncio.Lock())
        read = parcel.read_all

        def read_while_it_grows(root_fd: int, entries: list[object]) -> list[bytes | None]:
            with restless.open("ab") as file:
                file.write(b".")
            return read(root_fd, entries)  # type: ignore[arg-type]  # entries, passed on

        looks = 0
        with mock.patch.object(parcel, "read_all", read_while_it_grows):
            for _ in range(100):
                use(mirror).rights.edited.clear()
                await pusher.drain()
                looks += use(mirror).rights.edited.is_set()
            assert looks <= 2, "until then it is left alone"
            assert store.files["/d/b"].content == b"edited", "it keeps no other file"
        for _ in range(10):
            clock.advance(60)
            await pull(mirror)
        assert equal(mirror, store, tmp_path)


async def test_a_file_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    store = filled()
    settings = SyncdSettings(data_dir=tmp_path, content_bytes_max=1 << 20)
    async with store.served() as address, serving(address, tmp_path, settings) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        with (tmp_path / "mirror" / "huge").open("wb") as file:
            os.truncate(file.fileno(), 1 << 34)
        with (tmp_path / "mirror" / "d" / "a").open("wb") as file:
            os.truncate(file.fileno(), 1 << 34)
        with mock.patch.object(place, "_hash", side_effect=AssertionError("somebody reads 16 GiB")):
            await pull(mirror)
        assert problems(mirror) == {"huge": "PUSH_REFUSED", "/d/a": "PUSH_REFUSED"}
        (tmp_path / "mirror" / "huge").write_bytes(b"small")
        (tmp_path / "mirror" / "d" / "a").write_bytes(b"small, too")
        await pull(mirror)
        assert equal(mirror, store, tmp_path)
        assert problems(mirror) == {}


@pytest.mark.parametrize("when", ["queued", "sent", "acknowledged", "later"])
@pytest.mark.parametrize("there", [b"first a", b"restored"])
async def test_edits_survive_a_store_with_another_history(tmp_path: pathlib.Path, when: str, there: bytes) -> None:
    store = filled()
    for turn in range(100):
        store.put("/d/a", f"{turn}")
    store.put("/d/a", "first a")
    clock = ManualClock()
    local = tmp_path / "mirror" / "d" / "a"
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        local.write_bytes(b"edited")
        (tmp_path / "mirror" / "new").write_bytes(b"new")
        if when != "later":
            await take_local(use(mirror), LocalChanges(("d/a", "new")))
        if when == "acknowledged":
            await Pusher(use(mirror), asyncio.Lock()).drain()
            del store.files["/new"]
        if when == "sent":
            assert await Pusher(use(mirror), asyncio.Lock())._next() is not None
        restored(store, a=there)
        for _ in range(10):
            clock.advance(400)
            await pull(mirror)
        assert equal(mirror, store, tmp_path)
        assert store.files["/new"].content == b"new"
        own = tmp_path / "mirror" / ".relayfile"
        kept = [path.read_bytes() for path in (own / "conflicts").rglob("*") if path.is_file()]
        if there == b"first a":
            assert (store.files["/d/a"].content, kept) == (b"edited", [])
        else:
            assert (store.files["/d/a"].content, kept) == (b"restored", [b"edited"])


async def test_a_store_that_answers_too_little_is_asked_again(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        answer = store.apply
        garbage = 0

        def apply(item: file_pb2.WriteFilesItem) -> file_pb2.WriteFilesResult:
            nonlocal garbage
            result = answer(item)
            if garbage < 2:
                garbage += 1
                store.requests.clear()
                raise ValueError("no answer")
            return result

        with mock.patch.object(store, "apply", apply):
            (tmp_path / "mirror" / "d" / "a").write_bytes(b"edited")
            await until(lambda: equal(mirror, store, tmp_path) and store.files["/d/a"].content == b"edited")


async def test_what_a_program_still_writes_into_a_replaced_file_is_never_evicted(tmp_path: pathlib.Path) -> None:
    store = filled()
    clock = ManualClock()
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        with (tmp_path / "mirror" / "d" / "a").open("ab") as file:
            store.put("/d/a", "theirs")
            store.put("/d/b", "theirs, too")
            await pull(mirror)
            file.write(b" and more")
        clock.advance(30 * 86_400)
        await evict_trash(use(mirror))
        await evict_trash(use(mirror))
        trash = tmp_path / "mirror" / ".relayfile" / "trash"
        assert [path.read_bytes() for path in trash.iterdir()] == [b"first a and more"]
        [entry] = use(mirror).journal.trash.page(None, 10)
        assert (entry.acknowledged, entry.size) == (False, len(b"first a and more"))
        assert use(mirror).journal.trash.totals() == (1, len(b"first a and more"))


async def test_a_token_that_may_write_again_makes_the_mirror_go_both_ways(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        store.knobs.refuse_writes = True
        (tmp_path / "mirror" / "new").write_bytes(b"new")
        await pull(mirror)
        assert problems(mirror) == {"new": "NOT_PUSHED"}
        store.knobs.refuse_writes = False
        await pull(mirror)
        assert store.files["/new"].content == b"new"
        assert problems(mirror) == {}


async def test_what_is_deleted_by_the_thousand_is_looked_at_once(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/d{index % 50}/{index}": f"{index}" for index in range(2_200)})
    clock = ManualClock()
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        outbox = use(mirror).journal.outbox
        for directory in range(50):
            shutil.rmtree(tmp_path / "mirror" / f"d{directory}")
        loaded = 0
        count = outbox.unsent_deletes

        def counted(after_sequence: int = 0) -> list[Entry]:
            nonlocal loaded
            found = count(after_sequence)
            loaded += len(found)
            return found

        counting = mock.patch.object(type(outbox), "unsent_deletes", lambda _, after=0: counted(after))
        with counting, pytest.raises(MirrorRefused):
            await pull(mirror)
        assert loaded == 2_200
        halt = mirror.seen.halt
        assert halt is not None
        assert halt.plan is not None
        assert (halt.plan.rule, halt.plan.delete_count) == ("OVER_COUNT", 2_200)
        with mock.patch.object(type(outbox), "movable", side_effect=AssertionError("nothing is new")):
            await mirror.approve_deletes(halt.plan.plan_id)
            clock.advance(2)
            await pull(mirror)
        assert store.files == {}
        assert equal(mirror, store, tmp_path)
