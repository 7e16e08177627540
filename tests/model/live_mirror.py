"""A user at work in a mirror's directory while a real syncd process is, and others in the store; and kills of it.

As `mirror_programs`, but nobody waits for anybody. What a user replaces is known only by taking it away in one step,
because syncd may have written something else there a moment before.
"""

import asyncio
import contextlib
import os
import pathlib
import random
import shutil
import signal
from collections import Counter
from typing import Final

import grpc.aio

from relayfile.syncd import descriptors
from tests.crash.syncd import Syncd, status
from tests.fakes.mirror import tree_of
from tests.fakes.registry import contents
from tests.model.mirror_programs import DIRECTORIES, FAULTS, PATHS, World
from tests.support.parted_link import PartedLink, parted_link

FEW: Final = PATHS[:10]
"""So many deletes are never held."""
STEPS: Final = 60
PAUSE_MAX_S: Final = 0.2
PARTED_MAX_S: Final = 3.0
SETTLE_MAX_S: Final = 240.0
SETTINGS: Final = {"RELAYFILE_MOUNT_INTERVAL": "1s", "RELAYFILE_MOUNT_AUDIT_EVERY": "2"}


class LiveWorld(World):
    """Every step of the user's is one of the kernel's, too."""

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__(directory)
        self._aside = directory / "aside"
        self._aside.mkdir()
        self.store.seen_going.add(b"")  # a file that was truncated and is about to be written

    def unlink(self, path: str) -> None:
        self._take(self.root / path[1:])

    def rename(self, path: str, other: str) -> None:
        source, target = self.root / path[1:], self.root / other[1:]
        if path != other and source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            self._moves(source)
            self._move(source, target)
            self._moves(target)

    def rename_directory(self, path: str, other: str) -> None:
        source, target = self.root / path, self.root / other
        if source.is_dir() and not target.exists() and not other.startswith(path + "/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._all_move(source)
            self._move(source, target)
            self._all_move(target)

    def remove_directory(self, path: str) -> None:
        if (self.root / path).is_dir() and self._move(self.root / path, self._aside / "tree"):
            for each in (self._aside / "tree").rglob("*"):
                self._gone(each)
            shutil.rmtree(self._aside / "tree")

    def link(self, path: str, other: str) -> None:
        with contextlib.suppress(OSError):  # gone, or taken, since it was looked at
            super().link(path, other)

    def overwrite(self, path: str) -> None:
        """As programs do that keep a file open: nothing takes its place, whatever happens to its name."""
        content = self._new("mine")
        try:
            file = (self.root / path[1:]).open("r+b", buffering=0)
        except OSError:
            return  # nothing, or no file
        with file:
            old = file.read()
            self.store.seen_going.add(old)
            self.owed.discard(old)
            self.owed.add(content)
            file.truncate(0)
            file.seek(0)
            file.write(content)

    def _save(self, path: str, content: bytes) -> None:
        target, aside = self.root / path[1:], self._aside / "new"
        aside.unlink(missing_ok=True)  # what came out at the last swap, and may have other names
        aside.write_bytes(content)
        with contextlib.suppress(OSError):  # a directory or a file is in the way
            target.parent.mkdir(parents=True, exist_ok=True)
            self.owed.add(content)
            self._put(aside, target)
            return
        self.owed.discard(content)

    def _put(self, aside: pathlib.Path, target: pathlib.Path) -> None:
        base = os.open(self.directory, os.O_RDONLY)
        try:
            while True:
                with contextlib.suppress(FileExistsError):
                    descriptors.move_if_absent(base, str(aside), base, str(target))
                    return
                if target.is_dir():
                    raise IsADirectoryError(target)
                with contextlib.suppress(FileNotFoundError):
                    descriptors.exchange(base, str(aside), base, str(target))
                    self._gone(aside)
                    return
        finally:
            os.close(base)

    def _take(self, path: pathlib.Path) -> None:
        if path.is_file() and self._move(path, self._aside / "taken"):
            self._gone(self._aside / "taken")
            (self._aside / "taken").unlink(missing_ok=True)

    def _move(self, source: pathlib.Path, target: pathlib.Path) -> bool:
        with contextlib.suppress(OSError):
            source.rename(target)
            return True
        return False

    def _all_move(self, directory: pathlib.Path) -> None:
        for each in directory.rglob("*"):
            self._moves(each)

    def _moves(self, path: pathlib.Path) -> None:
        with contextlib.suppress(OSError):  # syncd has just taken it away
            self.store.seen_going.add(path.read_bytes())


async def run(directory: pathlib.Path, seed: int) -> Counter[str]:
    """One mirror through all ``STEPS``; what happened. ``AssertionError`` where bytes are lost or the sides differ."""
    chance = random.Random(seed)
    world = LiveWorld(directory)
    happened: Counter[str] = Counter()
    for path in FEW[::2]:
        world.store.put(path, f"at first {path}")
    async with world.store.served() as store_address, parted_link(store_address) as network:
        address = network.address
        async with Syncd(directory, address, **SETTINGS).running():
            await Syncd(directory, address).add_mirror()
        steps = STEPS
        while steps:
            fault = f"{chance.choice(FAULTS)}:{chance.randint(1, 4)}" if chance.randrange(2) else ""
            async with Syncd(directory, address, fault, **SETTINGS).running() as process:
                while steps and process.returncode is None:
                    steps -= 1
                    await _step(world, network, chance, happened)
                    if not chance.randrange(STEPS // 5) and process.returncode is None:
                        process.kill()
                        await process.wait()
                        happened["killed at random"] += 1
                        fault = ""
            if fault and process.returncode == -signal.SIGKILL:
                happened[fault] += 1
            assert not world.lost(), f"seed {seed} lost {world.lost()}"
        network.heal()
        async with Syncd(directory, address, **SETTINGS).running():
            await _settle(world, Syncd(directory, address), seed)
        assert not world.lost(), f"seed {seed} lost {world.lost()}"
    return happened


async def _step(world: LiveWorld, network: PartedLink, chance: random.Random, happened: Counter[str]) -> None:
    what = chance.choice(
        ["write"] * 4
        + ["overwrite"] * 3
        + ["put"] * 4
        + ["unlink", "rename", "delete", "move", "twin"] * 2
        + ["rename_directory", "remove_directory", "lost answer", "away"]
        + ["link", "parted", "silent"]
    )
    if what == "lost answer":
        world.store.knobs.lost_answers = 1
    elif what == "away":
        world.store.knobs.write_failures = 2
    elif what in ("parted", "silent"):
        network.part(silent=what == "silent")
        asyncio.get_running_loop().call_later(chance.random() * PARTED_MAX_S, network.heal)
    elif what in ("rename_directory", "remove_directory"):
        getattr(world, what)(*chance.sample(DIRECTORIES, 2 if what.startswith("rename") else 1))
    else:
        getattr(world, what)(*chance.sample(FEW, 2 if what in ("rename", "move", "link") else 1))
    happened[what] += 1
    await world.store.notify()
    await asyncio.sleep(chance.choice([0.0, 0.0, chance.random() * PAUSE_MAX_S]))


async def _settle(world: LiveWorld, syncd: Syncd, seed: int) -> None:
    """Nobody edits any more: both sides become equal, and say so."""
    directory, store = world.directory, world.store
    store.knobs.lost_answers = store.knobs.write_failures = 0

    def is_settled() -> bool:
        shown = status(directory)
        return (
            tree_of(directory) == contents(store)
            and shown.get("verdict") in ("exact", "exact_except_listed")
            and shown.get("unsent_edit_count") == 0
            and shown.get("revision") == store.revision
        )

    try:
        async with asyncio.timeout(SETTLE_MAX_S):
            while not is_settled():
                if status(directory).get("state") == "halted":
                    with contextlib.suppress(grpc.aio.AioRpcError):  # decided already, or another plan by now
                        await syncd.approve()
                await asyncio.sleep(0.05)
    except TimeoutError:
        here, there = tree_of(directory), contents(store)
        raise AssertionError(f"seed {seed}: here {here}, there {there}, {status(directory)}") from None
