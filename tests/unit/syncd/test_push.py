"""Local edits on their way to the store: what the disk has, the store gets, once, and nothing is lost on the way."""

import asyncio
import os
import pathlib
from dataclasses import replace

import pytest

from relayfile.clock import ManualClock
from relayfile.errors import PlanChanged
from relayfile.settings import SyncdSettings
from relayfile.syncd.audit import Verdict
from relayfile.syncd.local import take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.push import Pusher
from relayfile.syncd.reconcile import ConflictKind
from relayfile.syncd.shown import MirrorState
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/d{index % 3}/{index}.json": f"file {index}" for index in range(30)}


def contents(store: FakeStore) -> dict[str, bytes]:
    return {path: file.content for path, file in store.files.items()}


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


def problems(mirror: Mirror) -> dict[str, str]:
    assert mirror.opened is not None
    return {each.path: each.reason for each in mirror.opened.journal.problems.listed(1000)}


def conflicts(mirror: Mirror) -> dict[str, ConflictKind]:
    assert mirror.opened is not None
    return {each.path: each.kind for each in mirror.opened.journal.conflicts.page(("", ""), 100)}


def kept(tmp_path: pathlib.Path) -> dict[str, bytes]:
    top = tmp_path / "mirror" / ".relayfile" / "conflicts"
    return {path.relative_to(top).as_posix(): path.read_bytes() for path in top.rglob("*") if path.is_file()}


def trash(tmp_path: pathlib.Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in (tmp_path / "mirror" / ".relayfile" / "trash").iterdir())


async def pull(mirror: Mirror) -> None:
    """Look at the whole disk and exchange both sides' edits."""
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


async def exact(mirror: Mirror, store: FakeStore, tmp_path: pathlib.Path) -> None:
    """Equal on both sides, in the journal too, with nothing left to send."""
    await pull(mirror)
    assert mirror.opened is not None
    assert mirror.opened.journal.outbox.totals().pending_count == 0
    assert tree_of(tmp_path) == contents(store)
    assert mirror.seen.audited is not None
    assert mirror.seen.audited.result.equal
    assert mirror.seen.audited.result.differing_count == 0


async def test_writes_creates_deletes_and_renames_reach_the_store(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        store.writes.clear()
        (root / "d0" / "0.json").write_bytes(b"edited")
        (root / "new" / "deep").mkdir(parents=True)
        (root / "new" / "deep" / "file").write_bytes(b"new")
        (root / "big").write_bytes(os.urandom(3 << 20))
        (root / "d1" / "1.json").rename(root / "d1" / "renamed.json")
        (root / "d2" / "2.json").unlink()
        await pull(mirror)
        await asyncio.sleep(1.1)
        await exact(mirror, store, tmp_path)
        assert store.files["/d0/0.json"].content == b"edited"
        assert "/d2/2.json" not in store.files
        assert sorted((item.WhichOneof("action"), item.if_revision) for item in store.writes) == [
            ("delete", 3),
            ("move", 2),
            ("write", 0),
            ("write", 0),
            ("write", 1),
        ]
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT
        assert not store.paths_read, "nothing of our own is fetched"
        assert problems(mirror) == {}


async def test_both_sides_changed_the_store_wins_the_path_and_the_local_bytes_are_kept(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (root / "d0" / "0.json").write_bytes(b"mine")
        modified = store.put("/d0/0.json", "theirs")
        (root / "both").write_bytes(b"made here")
        made = store.put("/both", "made there")
        (root / "d1" / "1.json").write_bytes(b"changed here")
        store.delete("/d1/1.json")
        (root / "d2" / "2.json").unlink()
        store.put("/d2/2.json", "changed there")
        (root / "same").write_bytes(b"same")
        store.put("/same", "same")
        await exact(mirror, store, tmp_path)
        assert contents(store)["/d0/0.json"] == b"theirs"
        assert contents(store)["/both"] == b"made there"
        assert contents(store)["/d1/1.json"] == b"changed here"
        assert contents(store)["/d2/2.json"] == b"changed there"
        assert kept(tmp_path) == {f"d0/0.json@{modified}": b"mine", f"both@{made}": b"made here"}
        assert conflicts(mirror) == {
            "/d0/0.json": ConflictKind.BOTH_MODIFIED,
            "/both": ConflictKind.BOTH_CREATED,
            "/d1/1.json": ConflictKind.DELETED_REMOTELY,
            "/d2/2.json": ConflictKind.DELETED_LOCALLY,
        }
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT_EXCEPT_LISTED


async def test_an_edit_that_collides_on_the_way_becomes_a_conflict(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        assert mirror.opened is not None
        (root / "d0" / "0.json").write_bytes(b"mine")
        await take_local(mirror.opened, LocalChanges(("d0/0.json",)))
        revision = store.put("/d0/0.json", "theirs")
        await exact(mirror, store, tmp_path)
        assert kept(tmp_path) == {f"d0/0.json@{revision}": b"mine"}


@pytest.mark.parametrize("how", ["write_failures", "lost_answers"])
async def test_nothing_is_sent_twice_in_effect(tmp_path: pathlib.Path, how: str) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        before = store.revision
        setattr(store.knobs, how, 1)
        (root / "d0" / "0.json").write_bytes(b"edited")
        await exact(mirror, store, tmp_path)
        assert store.revision == before + 1
        assert len(store.writes) == 1
        assert conflicts(mirror) == {}


async def test_what_was_sent_and_then_changed_is_asked_for(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    settings = SyncdSettings(data_dir=tmp_path)
    async with store.served() as address:
        async with serving(address, tmp_path, settings) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await pull(mirror)
            store.knobs.lost_answers = 1_000
            (root / "d0" / "0.json").write_bytes(b"first")
            pulling = asyncio.create_task(pull(mirror))
            await until(lambda: len(store.writes) == 1)
            pulling.cancel()
            await asyncio.wait({pulling})
        (root / "d0" / "0.json").write_bytes(b"second")
        store.knobs.lost_answers = 0
        async with serving(address, tmp_path, settings) as registry:
            (mirror,) = registry
            await exact(mirror, store, tmp_path)
            assert contents(store)["/d0/0.json"] == b"second"
            assert conflicts(mirror) == {}


async def test_a_refused_edit_is_listed_and_blocks_no_other(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        store.knobs.refused_paths = {"/d0/0.json": "PERMISSION_DENIED"}
        (root / "d0" / "0.json").write_bytes(b"refused")
        (root / "d1" / "1.json").write_bytes(b"taken")
        (root / "a\\b").write_bytes(b"no name")
        await pull(mirror)
        assert contents(store)["/d1/1.json"] == b"taken"
        assert (root / "d0" / "0.json").read_bytes() == b"refused"
        assert problems(mirror) == {"/d0/0.json": "PUSH_REFUSED", "a\\b": "NAME_REFUSED"}
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.verdict is Verdict.EXACT_EXCEPT_LISTED
        store.knobs.refused_paths.clear()
        (root / "d0" / "0.json").write_bytes(b"allowed")
        (root / "a\\b").unlink()
        await exact(mirror, store, tmp_path)
        assert problems(mirror) == {}


async def test_a_mirror_that_may_not_write_restores_what_was_edited(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        store.knobs.refuse_writes = True
        (root / "d0" / "0.json").write_bytes(b"edited")
        (root / "mine").write_bytes(b"new")
        (root / "d1" / "1.json").unlink()
        await pull(mirror)
        await asyncio.sleep(1.1)
        await pull(mirror)
        assert tree_of(tmp_path) == contents(store) | {"/mine": b"new"}
        assert b"edited" in trash(tmp_path)
        assert problems(mirror) == {"/d0/0.json": "READ_ONLY_EDIT", "mine": "NOT_PUSHED"}


async def test_a_read_only_mirror_restores_edits_and_keeps_their_bytes(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=True)
        await pull(mirror)
        (root / "d0" / "0.json").write_bytes(b"edited")
        (root / "d1" / "1.json").write_bytes(b"edited and gone there")
        store.delete("/d1/1.json")
        (root / "d2" / "2.json").unlink()
        await exact(mirror, store, tmp_path)
        assert store.writes == []
        assert trash(tmp_path) == [b"edited", b"edited and gone there"]
        assert problems(mirror)["/d0/0.json"] == "READ_ONLY_EDIT"
        assert mirror.opened is not None
        assert mirror.opened.journal.trash.evict(0, 1 << 62, 100) == [], "these bytes are nowhere else"


async def test_files_that_were_there_are_taken_over_or_become_edits_or_conflicts(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    (root / "d0").mkdir(parents=True)
    (root / "d0" / "0.json").write_bytes(b"file 0")
    (root / "d0" / "3.json").write_bytes(b"another")
    (root / "mine").write_bytes(b"mine")
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False, adopt_existing=True)
        await exact(mirror, store, tmp_path)
        assert contents(store)["/mine"] == b"mine"
        assert list(kept(tmp_path).values()) == [b"another"]
        assert conflicts(mirror) == {"/d0/3.json": ConflictKind.BOTH_CREATED}


async def test_a_file_becomes_a_directory_and_back(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({"/a": "file", "/b/c": "below"})
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (root / "a").unlink()
        (root / "a").mkdir()
        (root / "a" / "x").write_bytes(b"x")
        (root / "b" / "c").unlink()
        (root / "b").rmdir()
        (root / "b").write_bytes(b"file")
        await exact(mirror, store, tmp_path)
        assert contents(store) == {"/a/x": b"x", "/b": b"file"}


@pytest.mark.parametrize("restore", [False, True])
async def test_i4_many_deletes_in_the_directory_wait_for_a_decision(tmp_path: pathlib.Path, restore: bool) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address:
        async with serving(address, tmp_path) as registry:
            mirror = add(registry, tmp_path, read_only=False)
            await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
        for index in range(20):
            (root / f"d{index % 3}" / f"{index}.json").unlink()
        async with serving(address, tmp_path) as registry:
            (mirror,) = registry
            await until(lambda: mirror.seen.state is MirrorState.HALTED)
            halt = mirror.seen.halt
            assert halt is not None
            assert halt.plan is not None
            assert (halt.plan.rule, halt.plan.delete_count, halt.plan.from_directory) == ("OVER_HALF", 20, True)
            assert len(store.files) == 30
            with pytest.raises(PlanChanged):
                await mirror.approve_deletes("another")
            await mirror.approve_deletes(halt.plan.plan_id, restore=restore)
            await until(lambda: len(tree_of(tmp_path)) == len(store.files) == (30 if restore else 10))


async def test_a_following_mirror_sends_an_edit_at_once(tmp_path: pathlib.Path) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING and mirror.seen.sweep_time_us > 0)
        for number in range(3):
            (root / "d0" / "0.json").write_bytes(b"edit %d" % number)
            await until(lambda number=number: store.files["/d0/0.json"].content == b"edit %d" % number)
        (root / "d1").rename(root / "renamed")
        await until(lambda: "/renamed/1.json" in store.files and "/d1/1.json" not in store.files)
        await until(lambda: mirror.seen.audited is not None and mirror.seen.audited.result.verdict is Verdict.EXACT)
        assert tree_of(tmp_path) == contents(store)
        assert not any(item.WhichOneof("action") == "delete" for item in store.writes)


async def test_what_falls_due_while_the_outbox_is_looked_at_is_not_left_for_a_cycle(tmp_path: pathlib.Path) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False, follow=False)
        await mirror.pull(full=False, via=Via.ANY)
        (tmp_path / "mirror" / "d0" / "0.json").unlink()  # a delete waits before it is due
        opened = mirror.opened
        assert opened is not None
        await take_local(opened, LocalChanges(("d0/0.json",)))
        due_us = opened.journal.outbox.next_attempt_us(0)
        assert due_us is not None
        clock = ManualClock(now_us=due_us - 1)  # it was looked at, a moment too early
        ticking = replace(opened, clock=clock)
        pusher = Pusher(ticking, asyncio.Lock())
        looked_us = clock.now_us()
        clock.set_now_us(due_us + 1)  # and fell due before anybody thought of waiting
        assert pusher._idle_s(looked_us) < 0.1 < opened.settings.mount_interval_s
