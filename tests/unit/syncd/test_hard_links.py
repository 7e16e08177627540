"""Files with several names: in the mirror, and outside of it. What the store changes has one name only."""

import pathlib

import pytest

from relayfile.clock import ManualClock
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, serving, until
from tests.fakes.store import FakeStore


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({f"/d/{name}": f"first {name}" for name in "abcdef"})
    return store


async def pull(mirror: Mirror) -> None:
    mirror.cadence.swept_at = float("-inf")
    await mirror.pull(full=False, via=Via.ANY)


def set_aside(tmp_path: pathlib.Path, where: str) -> list[pathlib.Path]:
    return [path for path in (tmp_path / "mirror" / ".relayfile" / where).rglob("*") if path.is_file()]


@pytest.mark.parametrize("change", ["edited", "deleted"])
async def test_i2_what_the_store_changes_of_a_file_that_is_linked_outside_stays_inside(
    tmp_path: pathlib.Path, change: str
) -> None:
    store = filled()
    outside = tmp_path / "outside"
    outside.write_bytes(b"somebody else's")
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (tmp_path / "mirror" / "linked").hardlink_to(outside)
        await pull(mirror)
        assert store.files["/linked"].content == b"somebody else's"
        store.put("/linked", "theirs") if change == "edited" else store.delete("/linked")
        await pull(mirror)
        assert tree_of(tmp_path) == contents(store)
        assert outside.read_bytes() == b"somebody else's"
        assert outside.stat().st_nlink == 1
        [trashed] = set_aside(tmp_path, "trash")
        with outside.open("r+b") as file:
            file.write(b"SOMEBODY")
        assert trashed.read_bytes() == b"somebody else's", "what is kept is kept as it was"


async def test_i3_a_conflict_keeps_the_bytes_of_a_linked_file_as_they_were(tmp_path: pathlib.Path) -> None:
    store = filled()
    outside = tmp_path / "outside"
    outside.write_bytes(b"mine")
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (tmp_path / "mirror" / "linked").hardlink_to(outside)
        store.put("/linked", "theirs")
        await pull(mirror)
        assert tree_of(tmp_path) == contents(store)
        [kept] = set_aside(tmp_path, "conflicts")
        outside.write_bytes(b"other")
        assert kept.read_bytes() == b"mine"


async def test_an_edit_through_one_name_and_a_change_of_the_other_in_the_store(tmp_path: pathlib.Path) -> None:
    store = filled()
    clock = ManualClock()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path, clock=clock) as registry:
        mirror = add(registry, tmp_path, follow=False, read_only=False)
        await pull(mirror)
        (root / "other").hardlink_to(root / "d" / "a")
        await pull(mirror)
        assert store.files["/other"].content == b"first a"
        (root / "d" / "a").write_bytes(b"mine")
        store.put("/other", "theirs")
        await pull(mirror)
        clock.advance(1.0)  # the file lost a name when it was about to be sent: it is looked at once more
        await pull(mirror)
        assert tree_of(tmp_path) == contents(store)
        assert store.files["/d/a"].content == b"mine"
        assert store.files["/other"].content == b"theirs"
        assert [path.read_bytes() for path in set_aside(tmp_path, "conflicts")] == [b"mine"]


async def test_an_edit_through_one_name_is_seen_under_the_other_by_a_mirror_that_follows(
    tmp_path: pathlib.Path,
) -> None:
    store = filled()
    root = tmp_path / "mirror"
    async with store.served() as address, serving(address, tmp_path) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        (root / "other").hardlink_to(root / "d" / "a")
        await until(lambda: "/other" in store.files)
        await level(mirror, store)
        (root / "d" / "a").write_bytes(b"mine")
        await until(lambda: store.files["/d/a"].content == store.files["/other"].content == b"mine")
