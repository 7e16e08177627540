"""I4: a mirror that many deletes halted goes on by itself when the files are back, and not before."""

import pathlib
import shutil

import pytest

from relayfile.syncd import halted
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.shown import MirrorState
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, level, quick, serving, until
from tests.fakes.store import FakeStore

FILES = {f"/gone/{index}": f"{index}" for index in range(60)}


def filled() -> FakeStore:
    store = FakeStore()
    store.fill({**FILES, "/kept": "x"})
    return store


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each look at a halted mirror found."""
    found: list[bool] = []
    look = halted.is_over

    async def looked(mirror: OpenMirror) -> bool:
        found.append(await look(mirror))
        return found[-1]

    monkeypatch.setattr(halted, "is_over", looked)
    return found


async def test_i4_files_that_are_in_the_store_again_end_a_halt(tmp_path: pathlib.Path, looks: list[bool]) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        before = tree_of(tmp_path)
        for path in FILES:
            store.delete(path)
        await store.notify()
        await until(lambda: mirror.seen.state is MirrorState.HALTED and len(looks) > 2)
        assert not any(looks)
        assert tree_of(tmp_path) == before
        for path, text in FILES.items():
            store.put(path, text)
        await level(mirror, store)
        assert mirror.seen.halt is None
        assert tree_of(tmp_path) == before == contents(store)


async def test_i4_a_store_that_was_empty_for_a_while_ends_a_halt(tmp_path: pathlib.Path, looks: list[bool]) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path)
        await level(mirror, store)
        before = tree_of(tmp_path)
    store.knobs.empty_listing = store.knobs.empty_digest = True
    store.new_history()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        (mirror,) = registry
        await until(lambda: mirror.seen.state is MirrorState.HALTED and len(looks) > 2)
        assert not any(looks)
        assert tree_of(tmp_path) == before
        store.knobs.empty_listing = store.knobs.empty_digest = False
        await level(mirror, store)
        assert tree_of(tmp_path) == before == contents(store)


async def test_i4_files_that_are_in_the_directory_again_end_a_halt(tmp_path: pathlib.Path, looks: list[bool]) -> None:
    store = filled()
    async with store.served() as address, serving(address, tmp_path, quick(tmp_path)) as registry:
        mirror = add(registry, tmp_path, read_only=False)
        await level(mirror, store)
        before = contents(store)
        (tmp_path / "mirror" / "gone").rename(tmp_path / "aside")
        await until(lambda: mirror.seen.state is MirrorState.HALTED and len(looks) > 2)
        assert not any(looks)
        shutil.copytree(tmp_path / "aside", tmp_path / "mirror" / "gone")
        await until(lambda: mirror.seen.state is MirrorState.FOLLOWING)
        await level(mirror, store)
        assert tree_of(tmp_path) == before == contents(store)
