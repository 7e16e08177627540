"""Watching a mirror's directory: the kernel's news of every directory in it becomes settled local changes.

Owns the watches: a walk that makes them, those of directories that come, move and go, and what happens when news is
lost or watches run out. Directories are reached by descriptors and no link is followed (I2). Everything that is told is
a hint: our own writes are told like anybody's. Refuses to look at files, and to know what the journal says.
"""

import asyncio
import os
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from relayfile.clock import Clock
from relayfile.syncd import descriptors, names
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.inotify import Inotify, Mask, Notice, WatchesExhausted
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.settle import Settling
from relayfile.syncd.watched_tree import Node, WatchedTree
from relayfile.syncd.writer import finished

PIECE_DIRECTORIES: Final = 250
"""Directories that are opened and watched in one go."""
PAIR_S: Final = 0.02
"""How long the second half of a rename may take before the first counts as a removal."""
LISTED_MAX: Final = 1_000
"""Files of a directory that came, told one by one; where there are more, the directory is scanned."""
STRANGERS_MAX: Final = 10_000
WAITING_MAX: Final = 1_000
"""Directories that came, and first halves of renames, that may wait for somebody who asks; with more, all is walked."""


@dataclass(frozen=True, slots=True)
class _Met:
    """A directory that is watched now, and what is in it."""

    path: str
    watch: int
    directories: list[str]
    files: list[str]


@dataclass(slots=True)
class _Walk:
    """Directories that are to be watched, with all below them."""

    top: str
    waiting: deque[str] = field(default_factory=deque)
    listed: list[str] = field(default_factory=list)
    too_many: bool = False


@dataclass(frozen=True, slots=True)
class _Left:
    """The first half of a rename."""

    path: str
    visible: bool
    node: Node | None
    is_directory: bool
    until: float


class Watcher:
    """One directory being watched: ``next`` for ever, by one task at a time, then ``close``.

    Between two calls of ``next`` news is taken in, up to bounds; it is told by the next one. ``exhausted`` says that
    the kernel gives no watches for all of it: then ``next`` tells a gap every ``retry_s``, and tries again. It is so
    for ever where the system has no inotify.
    """

    def __init__(self, root_fd: int, rules: IgnoreRules, clock: Clock, retry_s: float) -> None:
        self.exhausted = ""
        self._root_fd = root_fd
        self._rules = rules
        self._rules_version = rules.version
        self._clock = clock
        self._retry_s = retry_s
        self._retry_at = 0.0
        self._inotify: Inotify | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._watches = _Watches(rules)
        self._heard = asyncio.Event()

    def close(self) -> None:
        """End all watches."""
        if self._inotify is not None and self._loop is not None:
            if not self._loop.is_closed():
                self._loop.remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None

    def lost(self) -> None:
        """What was told came to nothing: a gap is told next."""
        self._watches.settling.lost(self._clock.monotonic())

    @property
    def watched(self) -> int:
        """Directories that are watched."""
        return len(self._watches.tree)

    async def next(self) -> LocalChanges:
        """The next changes that have settled; first a gap, once everything is watched. Ends only by cancellation."""
        while True:
            now = self._clock.monotonic()
            if self._inotify is None or self.exhausted:
                if now >= self._retry_at:
                    self._begin()
            elif self._rules.version != self._rules_version:
                self._rules_version = self._rules.version
                self._watches.walk_all()
            if self._watches.walks and self._inotify is not None:
                await self._walk(self._inotify)
                now = self._clock.monotonic()
            self._drop(self._watches.expire(now))
            changes = self._watches.settling.take(now)
            if changes:
                return changes
            if not self._watches.walks:
                await self._sleep(now)

    async def _sleep(self, now: float) -> None:
        times = [self._watches.settling.next_at, self._watches.next_expiry]
        if self._inotify is None or self.exhausted:
            times.append(self._retry_at)
        soonest = min((at for at in times if at is not None), default=None)
        self._heard.clear()
        try:
            async with asyncio.timeout(None if soonest is None else max(0.0, soonest - now)):
                await self._heard.wait()
        except TimeoutError:
            return

    def _begin(self) -> None:
        """Try, for the first time or again, to watch everything."""
        self._retry_at = self._clock.monotonic() + self._retry_s
        try:
            if self._inotify is None:
                self._inotify = Inotify()
                self._loop = asyncio.get_running_loop()
                self._loop.add_reader(self._inotify.fd, self._read, self._inotify)
        except (WatchesExhausted, OSError) as error:
            self._exhausted(str(error))
            return
        self._watches.walk_all()

    def _exhausted(self, why: str) -> None:
        self.exhausted = why
        self._watches.walks.clear()
        self._watches.settling.lost(self._clock.monotonic())

    def _read(self, inotify: Inotify) -> None:
        self._drop(self._watches.take(inotify.read(), self._clock.monotonic()))
        self._heard.set()

    def _drop(self, watches: Iterable[int]) -> None:
        if self._inotify is not None:
            for watch in watches:
                self._inotify.drop(watch)

    async def _walk(self, inotify: Inotify) -> None:
        """One piece of the walk that is first in line, in a thread: news goes on being read meanwhile."""
        walk = self._watches.walks[0]
        piece = list(islice(walk.waiting, PIECE_DIRECTORIES))
        loop = asyncio.get_running_loop()
        self._watches.walking = True
        try:
            met, failure = await finished(loop.run_in_executor(None, _watch, inotify, self._root_fd, piece))
        finally:
            self._watches.walking = False
        for _ in piece:  # only now: somebody may have stopped waiting for it, and will ask again
            walk.waiting.popleft()
        now = self._clock.monotonic()
        self._drop(self._watches.met(walk, met, now))
        if not failure and not walk.top and not walk.waiting:
            self.exhausted = ""
        if failure:
            self._retry_at = now + self._retry_s
            self._exhausted(failure)


class _Watches:
    """What the news means. No system call is made here: what must be, the methods return."""

    def __init__(self, rules: IgnoreRules) -> None:
        self.tree = WatchedTree()
        self.settling = Settling()
        self.walks: deque[_Walk] = deque()
        self.walking = False
        self._rules = rules
        self._left: dict[int, _Left] = {}
        self._strangers: list[Notice] = []

    @property
    def next_expiry(self) -> float | None:
        return next((left.until for left in self._left.values()), None)

    def walk_all(self) -> None:
        """Watch everything anew; a gap is told at the end of it."""
        self.walks.clear()
        self.tree.walk += 1
        self.walks.append(_Walk("", deque([""])))

    def take(self, notices: Iterable[Notice], now: float) -> list[int]:
        """News. Returns watches to be ended."""
        ended: list[int] = []
        for notice in notices:
            self._take(notice, now, ended)
        return ended

    def met(self, walk: _Walk, met: list[_Met], now: float) -> list[int]:
        """A piece of a walk was made. Returns watches to be ended."""
        for each in met:
            if not self.tree.add(each.path, each.watch):
                continue  # it moved meanwhile, and is walked again at its new place
            prefix = each.path + "/" if each.path else ""
            walk.waiting += [
                prefix + name for name in each.directories if not self._rules.excludes(prefix + name, directory=True)
            ]
            if walk.top and not walk.too_many:
                walk.listed += [prefix + name for name in each.files]
                walk.too_many = len(walk.listed) > LISTED_MAX
        ended = self.take(self._strangers, now)
        self._strangers.clear()
        if not walk.waiting and self.walks and self.walks[0] is walk:
            self.walks.popleft()
            ended += self._walked(walk, now)
        return ended

    def expire(self, now: float) -> list[int]:
        """First halves of renames whose second half did not come: they went out of the tree. Returns watches to end."""
        ended: list[int] = []
        for cookie, left in [each for each in self._left.items() if each[1].until <= now]:
            del self._left[cookie]
            if left.is_directory and left.visible:
                self.settling.scan(left.path, now)
            elif left.visible:
                self.settling.removed(left.path, now)
            if left.node is not None:
                ended += self.tree.cut(left.node)
        return ended

    # --- inside -----------------------------------------------------------------------------------------------------

    def _walked(self, walk: _Walk, now: float) -> list[int]:
        if not walk.top:
            self.settling.lost(now)
            return self.tree.unmet()
        if walk.too_many:
            self.settling.scan(walk.top, now)
        else:
            for path in walk.listed:
                self._look(path, now)
        return []

    def _look(self, path: str, now: float) -> None:
        if self._visible(path, False, now):
            self.settling.made(path, now)

    def _take(self, notice: Notice, now: float, ended: list[int]) -> None:
        mask = notice.mask
        if mask & Mask.OVERFLOW:
            self.walk_all()
            return
        if mask & Mask.IGNORED:
            if self.tree.ended(notice.watch):
                self.walk_all()
            return
        node = self.tree.of(notice.watch)
        if node is None:
            self._stranger(notice)
            return
        parent = self.tree.path(node)
        if parent is None or not notice.name:
            return
        path = f"{parent}/{notice.name}" if parent else notice.name
        is_directory = bool(mask & Mask.DIRECTORY)
        visible = self._visible(path, is_directory, now)
        if mask & Mask.MOVED_FROM:
            self._leave(notice.cookie, path, visible, is_directory, now)
        elif mask & Mask.MOVED_TO:
            left = self._left.pop(notice.cookie, None)
            if is_directory:
                ended += self._directory_came(left, node, notice.name, path, visible, now)
            else:
                self._file_came(left, path, visible, now)
        elif visible and is_directory:
            if mask & Mask.CREATE:
                self._walk_below(path)
        elif visible:
            self._file(mask, path, now)

    def _file(self, mask: int, path: str, now: float) -> None:
        if mask & Mask.CLOSE_WRITE:
            self.settling.closed(path, now)
        elif mask & Mask.MODIFY:
            self.settling.wrote(path, now)
        elif mask & Mask.CREATE:
            self.settling.made(path, now)
        elif mask & Mask.DELETE:
            self.settling.removed(path, now)

    def _leave(self, cookie: int, path: str, visible: bool, is_directory: bool, now: float) -> None:
        node = self.tree.find(path) if is_directory else None
        if node is not None:
            self.tree.detach(node)
        if len(self._left) >= WAITING_MAX:
            self._left.clear()
            self.walk_all()
        self._left[cookie] = _Left(path, visible, node, is_directory, now + PAIR_S)

    def _file_came(self, left: _Left | None, path: str, visible: bool, now: float) -> None:
        if left is not None and left.visible:
            if visible:
                self.settling.moved(left.path, path, now)
            else:
                self.settling.removed(left.path, now)
        elif visible:
            self.settling.closed(path, now)

    def _directory_came(
        self, left: _Left | None, parent: Node, name: str, path: str, visible: bool, now: float
    ) -> list[int]:
        node = None if left is None else left.node
        if left is not None and left.visible:
            if visible:
                self.settling.renamed(left.path, path, now)
            else:
                self.settling.scan(left.path, now)
        if not visible:
            return [] if node is None else self.tree.cut(node)
        if node is not None:
            self.tree.attach(node, parent, name)
        # Also what was watched before: a walk that was under way may have looked for it at its old place.
        self._walk_below(path)
        return []

    def _walk_below(self, path: str) -> None:
        if len(self.walks) >= WAITING_MAX:
            self.walk_all()
        elif self.walks and not self.walks[0].top:
            self.walks[0].waiting.append(path)  # ends with a gap
        else:
            self.walks.append(_Walk(path, deque([path])))

    def _visible(self, path: str, is_directory: bool, now: float) -> bool:
        """Whether a name is any of our business; one that no workspace can hold is told as such."""
        if self._rules.excludes(path, directory=is_directory):
            return False
        if is_directory or names.refusal("/" + path) is None:
            return True
        self.settling.refused(path, now)
        return False

    def _stranger(self, notice: Notice) -> None:
        """News of a directory whose watch is being made; of any other, it is over."""
        if not self.walking:
            return
        if len(self._strangers) >= STRANGERS_MAX:
            self._strangers.clear()
            self.walk_all()
        self._strangers.append(notice)


def _watch(inotify: Inotify, root_fd: int, paths: list[str]) -> tuple[list[_Met], str]:
    """Watch directories and list them, in that order: what comes later is news. Those that are gone are left out.

    Also why it ended early, where the kernel has no more watches; empty: it did not.
    """
    met: list[_Met] = []
    for path in paths:
        try:
            fd = descriptors.open_beneath(root_fd, path)
        except (OSError, UnicodeEncodeError):
            continue  # gone, moved, a link by now, or not ours to read: a scan says which
        try:
            watch = inotify.add(fd)
            directories: list[str] = []
            files: list[str] = []
            with os.scandir(fd) as entries:
                for entry in entries:
                    (directories if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
            met.append(_Met(path, watch, directories, files))
        except WatchesExhausted as error:
            return met, str(error)
        except OSError:
            continue  # as above
        finally:
            os.close(fd)
    return met, ""
