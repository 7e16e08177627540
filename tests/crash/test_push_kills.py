"""kill -9 of a real syncd while local edits are on their way: none is lost, and none takes effect twice."""

import asyncio
import os
import pathlib
import signal

import pytest

from tests.crash.syncd import READY_TIMEOUT_S, Syncd, status
from tests.fakes.mirror import tree_of
from tests.fakes.registry import contents, until
from tests.fakes.store import FakeStore

pytestmark = pytest.mark.timeout(240)  # processes that start four times each, on a machine that does other things, too

FILES = {f"/d{index % 3}/{index}": f"content {index}" for index in range(60)}
BIG = os.urandom(3 << 20)
"""Is uploaded in a call of its own."""


def filled() -> FakeStore:
    store = FakeStore()
    store.fill(FILES)
    return store


def save(tmp_path: pathlib.Path, path: str, content: bytes) -> None:
    """As editors do it: nobody ever sees a part of the file, however long somebody is kept from writing it."""
    target = tmp_path / "mirror" / path
    target.parent.mkdir(exist_ok=True)
    (tmp_path / "aside").write_bytes(content)
    (tmp_path / "aside").rename(target)


def kept(tmp_path: pathlib.Path) -> list[bytes]:
    """The versions in `.relayfile/conflicts`."""
    top = tmp_path / "mirror" / ".relayfile" / "conflicts"
    return [path.read_bytes() for path in sorted(top.rglob("*")) if path.is_file()]


async def following(tmp_path: pathlib.Path) -> None:
    await until(lambda: status(tmp_path).get("state") == "following", READY_TIMEOUT_S)


async def dead(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(READY_TIMEOUT_S):
        assert await process.wait() == -signal.SIGKILL


async def equal(tmp_path: pathlib.Path, store: FakeStore, expected: dict[str, bytes], verdict: str = "exact") -> None:
    """Until the store and the directory both are ``expected``, and the mirror says so."""
    wanted = {"verdict": verdict, "unsent_edit_count": 0}

    def differing() -> dict[str, object]:
        shown = status(tmp_path)
        return {
            "store": {path for path, _ in contents(store).items() ^ expected.items()},
            "directory": {path for path, _ in tree_of(tmp_path).items() ^ expected.items()},
            "status": {key: shown.get(key) for key, value in wanted.items() if shown.get(key) != value},
            "behind": shown.get("revision") != store.revision,
        }

    try:
        await until(lambda: not any(differing().values()), READY_TIMEOUT_S)
    except TimeoutError:
        raise AssertionError(f"{differing()} at {store.revision}: {status(tmp_path)}") from None


JOURNALLED = "syncd.outbox.after_sent_before_send:1"
ANSWERED = "syncd.outbox.after_answer_before_journal:1"
KILLS = [
    pytest.param(JOURNALLED, id="journalled", marks=pytest.mark.full),
    pytest.param(ANSWERED, id="answered"),
    pytest.param("syncd.outbox.after_sent_before_send:2", id="second-journalled", marks=pytest.mark.full),
    pytest.param("syncd.outbox.after_answer_before_journal:2", id="second-answered", marks=pytest.mark.full),
]
KILLS_OF_ONE = [
    pytest.param(JOURNALLED, id="journalled"),
    pytest.param(ANSWERED, id="answered", marks=pytest.mark.full),
]


@pytest.mark.parametrize("fault", KILLS)
async def test_what_was_on_its_way_takes_effect_once(tmp_path: pathlib.Path, fault: str) -> None:
    store = filled()
    root = tmp_path / "mirror"
    expected = contents(store)
    async with store.served() as address:
        async with Syncd(tmp_path, address, fault).running() as process:
            await Syncd(tmp_path, address).add_mirror()
            await following(tmp_path)
            before = store.revision
            save(tmp_path, "d0/0", b"edited")
            save(tmp_path, "new/file", b"new")
            (root / "d2" / "2").unlink()
            (root / "d1" / "1").rename(root / "d1" / "renamed")
            save(tmp_path, "big", BIG)
            await dead(process)
        if fault == JOURNALLED:
            assert store.revision == before, "the journal is ahead of the store"
        if fault.startswith("syncd.outbox.after_answer"):
            assert store.revision > before, "the store is ahead of the journal"
        save(tmp_path, "d0/3", b"edited while nobody looked")
        async with Syncd(tmp_path, address).running():
            expected |= {
                "/d0/0": b"edited",
                "/d0/3": b"edited while nobody looked",
                "/new/file": b"new",
                "/big": BIG,
                "/d1/renamed": expected["/d1/1"],
            }
            del expected["/d1/1"], expected["/d2/2"]
            await equal(tmp_path, store, expected)
        assert store.revision == before + 7, "each edit took effect once; a rename is two"
        assert kept(tmp_path) == [], "no edit collided with itself"


@pytest.mark.parametrize("fault", KILLS_OF_ONE)
async def test_what_was_on_its_way_and_changed_again_does_not_collide_with_itself(
    tmp_path: pathlib.Path, fault: str
) -> None:
    store = filled()
    async with store.served() as address:
        async with Syncd(tmp_path, address, fault).running() as process:
            await Syncd(tmp_path, address).add_mirror()
            await following(tmp_path)
            save(tmp_path, "d0/0", b"edited")
            await dead(process)
        save(tmp_path, "d0/0", b"edited again")
        async with Syncd(tmp_path, address).running():
            await equal(tmp_path, store, contents(store) | {"/d0/0": b"edited again"})
        assert kept(tmp_path) == []


async def test_a_version_that_was_kept_and_not_yet_replaced_is_there_after_all(tmp_path: pathlib.Path) -> None:
    store = filled()
    local = tmp_path / "mirror" / "d0" / "0"
    async with store.served() as address:
        async with Syncd(tmp_path, address, "syncd.conflict.after_keep_before_replace").running() as process:
            await Syncd(tmp_path, address).add_mirror()
            await following(tmp_path)
            store.knobs.write_failures = 1_000_000
            save(tmp_path, "d0/0", b"mine")
            await until(lambda: "WriteFiles" in store.calls)
            store.put("/d0/0", "theirs")
            await store.notify()
            store.knobs.write_failures = 0
            await dead(process)
        assert local.read_bytes() == b"mine"
        assert kept(tmp_path) == [b"mine"]
        async with Syncd(tmp_path, address).running():
            await equal(tmp_path, store, contents(store) | {"/d0/0": b"theirs"}, "exact_except_listed")
        assert kept(tmp_path) == [b"mine"]
