"""Programs of edits on both sides of a mirror, crashes and lost answers, and what must hold after each of them.

A user works in the directory, others work in the store, and syncd exchanges the edits; any of them also acts while
syncd is in the middle of its work. Whatever happened, both sides end equal, no byte that a user wrote is gone unless a
user took it away, and nothing in the store is replaced that nobody has had in the directory.
"""

import os
import pathlib
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from typing import Final, NamedTuple
from unittest import mock

from hypothesis import strategies

from relayfile import faults
from relayfile.clock import ManualClock
from relayfile.errors import MirrorRefused, RelayfileError, Unavailable
from relayfile.settings import SyncdSettings
from relayfile.syncd import patience
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.progress import Via
from relayfile.syncd.registry import Registry
from relayfile.v1 import file_pb2
from tests.fakes.mirror import tree_of
from tests.fakes.registry import add, contents, problems, serving
from tests.fakes.store import FakeStore

PATHS: Final = tuple(f"{directory}/{name}" for directory in ("", "/d", "/d/e", "/f") for name in ("a", "b", "c.json"))
DIRECTORIES: Final = ("d", "d/e", "f", "g")
FAULTS: Final = (
    "syncd.stage.before_barrier",
    "syncd.stage.after_barrier_before_rename",
    "syncd.apply.after_rename_before_journal",
    "syncd.journal.after_commit",
    "syncd.conflict.after_keep_before_replace",
    "syncd.outbox.after_sent_before_send",
    "syncd.outbox.after_answer_before_journal",
)
LINGER_S: Final = 3.0
"""Longer than a delete waits for the other half of a rename."""
ROUNDS_MAX: Final = 12
"""Pulls after which both sides are equal when nobody edits any more."""


class Killed(BaseException):
    """syncd died here: nothing of it goes on. No `Exception`, so that nobody takes it for a failure to deal with."""


class Edit(NamedTuple):
    """What somebody does. ``what`` names a method of `World`; the rest are its arguments."""

    what: str
    path: str = ""
    other: str = ""


class Sync(NamedTuple):
    """syncd exchanges edits. ``kill``: it dies at a fault point; ``meanwhile``: edits at the n-th call of the store."""

    kill: str = ""
    meanwhile: tuple[tuple[int, Edit], ...] = ()
    lost_answers: int = 0
    write_failures: int = 0
    cut: bool = False
    away: bool = False
    parted: int | None = None
    """At the n-th call the store is no longer reached, until syncd has given up."""


class Crash(NamedTuple):
    """syncd ends between two of its works, and starts again."""


Step = Edit | Sync | Crash

_paths = strategies.sampled_from(PATHS)
_directories = strategies.sampled_from(DIRECTORIES)
_nothing = strategies.just("")
EDITS: Final = strategies.one_of(
    strategies.builds(Edit, strategies.sampled_from(["write", "write", "unlink"]), _paths, _nothing),
    strategies.builds(Edit, strategies.sampled_from(["rename", "link"]), _paths, _paths),
    strategies.builds(Edit, strategies.just("link_outside"), _paths, _nothing),
    strategies.builds(Edit, strategies.just("rename_directory"), _directories, _directories),
    strategies.builds(Edit, strategies.just("remove_directory"), _directories, _nothing),
    strategies.builds(Edit, strategies.sampled_from(["put", "put", "delete", "twin"]), _paths, _nothing),
    strategies.builds(Edit, strategies.just("move"), _paths, _paths),
)
SYNCS: Final = strategies.builds(
    Sync,
    kill=strategies.one_of(
        strategies.just(""),
        strategies.builds("{}:{}".format, strategies.sampled_from(FAULTS), strategies.integers(1, 3)),
    ),
    meanwhile=strategies.lists(strategies.tuples(strategies.integers(0, 8), EDITS), max_size=3).map(tuple),
    lost_answers=strategies.sampled_from([0, 0, 0, 1, 2]),
    write_failures=strategies.sampled_from([0, 0, 0, 1]),
    cut=strategies.sampled_from([False, False, False, True]),
    away=strategies.sampled_from([False, False, False, False, True]),
    parted=strategies.one_of(strategies.none(), strategies.none(), strategies.integers(1, 8)),
)
_rounds = strategies.tuples(
    strategies.lists(EDITS, min_size=1, max_size=6),
    strategies.one_of(SYNCS, SYNCS, SYNCS, strategies.builds(Crash)),
).map(lambda drawn: [*drawn[0], drawn[1]])
PROGRAMS: Final = strategies.lists(_rounds, min_size=2, max_size=7).map(
    lambda rounds: [step for steps in rounds for step in steps]
)
"""Of `Step`."""


class WatchedStore(FakeStore):
    """Remembers every version it ever had, and lets somebody act in the middle of a call."""

    def __init__(self) -> None:
        super().__init__()
        self.versions: set[bytes] = set()
        self.seen_going: set[bytes] = set()
        """Versions that a user took away or replaced in the directory: these may go here, too."""
        self.meanwhile: Callable[[], None] = lambda: None

    def put(self, path: str, content: bytes | str, *, moved_from: str = "", traceparent: str = "") -> int:
        raw = content.encode() if isinstance(content, str) else content
        self.versions.add(raw)
        return super().put(path, raw, moved_from=moved_from, traceparent=traceparent)

    def apply(self, item: file_pb2.WriteFilesItem) -> file_pb2.WriteFilesResult:
        path = getattr(item, item.WhichOneof("action") or "write").path
        before = self.files.get(path)
        result = super().apply(item)
        if before is not None and self.files.get(path) != before:
            assert before.content in self.seen_going, f"{item} replaced what nobody has seen: {before}"
        return result

    async def lag(self) -> None:
        self.meanwhile()
        await super().lag()


class World:
    """A user's directory, the store, and what is owed to the user."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.root = directory / "mirror"
        self.store = WatchedStore()
        self.owed: set[bytes] = set()
        self._outside = directory / "outside"
        self._outside.mkdir()
        self.outside: dict[pathlib.Path, bytes] = {}
        """Files that have a second name in the directory, and what the user last had in them."""
        self._number = 0

    def do(self, edit: Edit) -> None:
        """Somebody does this, where it can be done."""
        arguments = [each for each in (edit.path, edit.other) if each]
        getattr(self, edit.what)(*arguments)

    # --- in the directory -------------------------------------------------------------------------------------------

    def write(self, path: str) -> None:
        """Create or replace, as most programs do: truncate and write."""
        self._save(path, self._new("mine"))

    def unlink(self, path: str) -> None:
        if (self.root / path[1:]).is_file():
            self._gone(self.root / path[1:])
            (self.root / path[1:]).unlink()

    def rename(self, path: str, other: str) -> None:
        source, target = self.root / path[1:], self.root / other[1:]
        if source.is_file() and source != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._gone(target)
            self._moves(source)
            source.rename(target)

    def link(self, path: str, other: str) -> None:
        """Two names of one file: who writes through one changes both."""
        source, target = self.root / path[1:], self.root / other[1:]
        if source.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source)

    def link_outside(self, path: str) -> None:
        """A file of somebody else's, outside, has a name here too."""
        target = self.root / path[1:]
        if not target.exists():
            content = self._new("outside")
            self.owed.add(content)
            outside = self._outside / f"{len(self.outside)}"
            outside.write_bytes(content)
            self.outside[outside] = content
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(outside)

    def rename_directory(self, path: str, other: str) -> None:
        source, target = self.root / path, self.root / other
        if source.is_dir() and not target.exists() and not other.startswith(path + "/"):
            target.parent.mkdir(parents=True, exist_ok=True)
            for each in source.rglob("*"):
                self._moves(each)
            source.rename(target)

    def remove_directory(self, path: str) -> None:
        if (self.root / path).is_dir():
            for each in (self.root / path).rglob("*"):
                self._gone(each)
            shutil.rmtree(self.root / path)

    # --- in the store -----------------------------------------------------------------------------------------------

    def put(self, path: str) -> None:
        self.store.put(path, self._new("theirs"))

    def delete(self, path: str) -> None:
        if path in self.store.files:
            self.store.delete(path)

    def move(self, path: str, other: str) -> None:
        if path in self.store.files and other not in self.store.files:
            self.store.move(path, other)

    def twin(self, path: str) -> None:
        """Both sides come to the same content."""
        content = self._new("both")
        self.store.put(path, content)
        self._save(path, content)

    # --- what must hold ---------------------------------------------------------------------------------------------

    def lost(self) -> set[bytes]:
        """What a user wrote and is nowhere."""
        own = self.root / ".relayfile"
        kept = {path.read_bytes() for path in own.rglob("*") if path.is_file() and not path.is_symlink()}
        return self.owed - kept - set(tree_of(self.directory).values()) - self.store.versions

    def touched_outside(self) -> set[pathlib.Path]:
        """Files outside that the user did not change, and that are changed."""
        return {path for path, content in self.outside.items() if path.read_bytes() != content}

    def kept_names(self) -> set[str]:
        """Versions in `.relayfile/conflicts`."""
        top = self.root / ".relayfile" / "conflicts"
        return {path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file()}

    def _new(self, whose: str) -> bytes:
        self._number += 1
        return f"{whose} {self._number}".encode()

    def _save(self, path: str, content: bytes) -> None:
        target = self.root / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        self._gone(target)
        self.owed.add(content)
        target.write_bytes(content)
        for outside in self.outside:
            if outside.samefile(target):
                self.outside[outside] = content

    def _gone(self, path: pathlib.Path) -> None:
        """The user wants no more what is there."""
        if path.is_file():
            self._moves(path)
            self.owed.discard(path.read_bytes())

    def _moves(self, path: pathlib.Path) -> None:
        if path.is_file():
            self.store.seen_going.add(path.read_bytes())


class Machine:
    """Runs a program: syncd's own code, killed by an exception that nothing in it catches."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.world = World(directory)
        self.clock = ManualClock()
        self.happened: Counter[str] = Counter()
        self._directory = directory

    async def run(self, program: Sequence[Step]) -> None:
        """Every step, then until both sides are equal. ``AssertionError`` where that is not so, or bytes are lost."""
        store = self.world.store
        for path in PATHS[::2]:
            store.put(path, f"at first {path}")
        steps: list[Step] = [Sync(), *program, Crash()]
        with ExitStack() as patches:
            patches.enter_context(mock.patch.object(patience, "_FIRST_DELAY_S", 0.0))
            patches.enter_context(mock.patch.object(os, "kill", _kill))
            async with store.served() as address:
                while steps:
                    await self._life(address, lambda mirror: self._steps(mirror, steps))
                await self._life(address, self._settle)

    async def _life(self, address: str, work: Callable[[Mirror], Awaitable[None]]) -> None:
        """syncd from a start to an end, which may come at any point."""
        settings = SyncdSettings(data_dir=self._directory)
        async with serving(address, self._directory, settings, clock=self.clock) as registry:
            await work(self._mirror(registry))

    def _mirror(self, registry: Registry) -> Mirror:
        found = registry.at(str(self.world.root))
        return found or add(registry, self._directory, follow=False, read_only=False)

    async def _steps(self, mirror: Mirror, steps: list[Step]) -> None:
        while steps:
            step = steps.pop(0)
            match step:
                case Edit():
                    self.world.do(step)
                case Crash():
                    return
                case Sync():
                    try:
                        await self._sync(mirror, step)
                    except Killed:
                        self.happened[step.kill] += 1
                        return
            assert not self.world.lost(), f"{step} lost {self.world.lost()}"
            assert not self.world.touched_outside(), f"{step} changed {self.world.touched_outside()}"

    async def _sync(self, mirror: Mirror, sync: Sync) -> None:
        knobs = self.world.store.knobs
        left = sorted(sync.meanwhile, key=lambda each: each[0])
        calls = 0

        def meanwhile() -> None:
            nonlocal calls
            while left and left[0][0] <= calls:
                self.world.do(left.pop(0)[1])
            if calls == sync.parted:
                knobs.refusal = Unavailable(what="store (the network parted)")
                self.happened["parted"] += 1
            calls += 1

        knobs.lost_answers, knobs.write_failures = sync.lost_answers, sync.write_failures
        knobs.cut_after_messages = 0 if sync.cut else None
        knobs.refusal = Unavailable(what="store (it is away)") if sync.away else None
        self.world.store.meanwhile = meanwhile
        faults.arm(sync.kill)
        try:
            await self._pull(mirror)
        finally:
            faults.arm("")
            self.world.store.meanwhile = lambda: None
            knobs.lost_answers = knobs.write_failures = 0
            knobs.cut_after_messages = knobs.refusal = None

    async def _pull(self, mirror: Mirror) -> None:
        mirror.cadence.swept_at = float("-inf")
        try:
            await mirror.pull(full=False, via=Via.ANY)
        except MirrorRefused:
            halt = mirror.seen.halt
            assert halt is not None
            assert halt.plan is not None, halt
            self.happened["halt"] += 1
            await mirror.approve_deletes(halt.plan.plan_id)
        except RelayfileError as error:
            self.happened[error.reason] += 1

    async def _settle(self, mirror: Mirror) -> None:
        """Nobody edits any more: both sides become equal, and stay so."""
        world = self.world
        for _ in range(ROUNDS_MAX):
            self.clock.advance(LINGER_S)
            await self._pull(mirror)
            assert mirror.opened is not None, mirror.seen
            audited = mirror.seen.audited
            if (
                tree_of(self._directory) == contents(world.store)
                and mirror.opened.journal.outbox.totals().pending_count == 0
                and audited is not None
                and audited.result.equal
                and audited.result.differing_count == 0
            ):
                break
        assert tree_of(self._directory) == contents(world.store), problems(mirror)
        assert mirror.seen.audited is not None
        assert mirror.seen.audited.result.equal, mirror.seen
        assert mirror.opened is not None
        assert mirror.opened.journal.outbox.totals().pending_count == 0
        assert problems(mirror) == {}
        assert mirror.opened.journal.conflicts.kept_names() == world.kept_names(), "a kept version is on no list"
        assert not world.lost(), world.lost()
        assert not world.touched_outside(), world.touched_outside()
        revision = world.store.revision
        self.clock.advance(LINGER_S)
        await self._pull(mirror)
        assert world.store.revision == revision, "what is equal is sent again"


def _kill(_pid: int, _signal: int) -> None:
    raise Killed
