"""What a subtree holds for a caller who may read it in part: count, bytes and digest over what it may read (D9).

Owns the descent and what is remembered of it. A subtree that is wholly visible or wholly hidden costs its row; others
are listed, after the first rows in turns with other bulk work. What was found for a directory is kept under everything
it follows from: the caller, the directory's revision, and what the rules above it say, so that nothing has to be
invalidated and a change costs the listing of the directories above it.

That is also why no snapshot is held over a long descent: `gather` reads each page in one of its own and keeps what did
not change meanwhile, and `tree`, in one snapshot, lists only the rest.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from relayfile.auth.file_rules import Standing
from relayfile.store.access.reading import Cover, Sight, Tree
from relayfile.store.plan import digest
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.turns import LoopTurns

DIRECTORIES_REMEMBERED_MAX = 20_000
"""About 10 MB."""
_SLICE_ENTRIES = 1_000

Sights: TypeAlias = Callable[[], AbstractAsyncContextManager[Sight]]
"""What one caller sees of one workspace, each time in a new snapshot."""


class _Key(NamedTuple):
    caller: tuple[object, ...]
    history_id: str
    """Of the workspace, which it names: no two have the same."""
    path: str
    revision: int
    standing: Standing


class _Sum(NamedTuple):
    file_count: int = 0
    total_bytes: int = 0
    digest: int = 0
    entry_count: int = 0

    def plus(self, other: "_Sum | DirectoryRow") -> "_Sum":
        """With a directory as one more entry."""
        return _Sum(
            self.file_count + other.file_count,
            self.total_bytes + other.total_bytes,
            digest.add(self.digest, other.digest),
            self.entry_count + (other.file_count > 0),
        )

    def plus_file(self, row: FileRow) -> "_Sum":
        """With one more file."""
        return _Sum(
            self.file_count + 1,
            self.total_bytes + row.size_bytes,
            digest.add(self.digest, digest.file_term(row.path, row.content_sha256)),
            self.entry_count + 1,
        )


@dataclass(slots=True)
class _Listed:
    """A directory whose sum is being made."""

    wanted: _Key
    """What the directory above it held."""
    key: _Key | None = None
    """What was listed; None when it is gone, or changed meanwhile."""
    total: _Sum = _Sum()
    """Of what is directly in it, and of those that were in `parts`."""
    parts: list[_Key] = field(default_factory=list)
    """Those in it that are seen in part, and are not in `total` yet."""


class _Descent:
    """Lists directories, some rows at a time."""

    __slots__ = ("_begun", "_sights", "_turns")

    def __init__(self, sights: Sights, turns: LoopTurns) -> None:
        self._sights = sights
        self._turns = turns
        self._begun = False

    async def list(self, wanted: _Key) -> _Listed:
        """What is directly in a directory: of one revision where the result has a key, of several where it has none."""
        listed, after, path = _Listed(wanted), "", wanted.path
        while True:
            # What is small is answered as any call is.
            async with self._turns.piece() if self._begun else nullcontext(), self._sights() as sight:
                self._begun = True
                directory = await sight.view.directory(path)
                key = None if directory is None else await _key(sight, directory)
                if not after:
                    listed.key = key
                elif key != listed.key:
                    listed.key = None  # the rest is still listed: what is below it may be as it was
                limit = self._turns.rows(_SLICE_ENTRIES)
                rows = await sight.view.list_level(path, 1, after, limit)
                for row in rows:
                    if isinstance(row, FileRow):
                        if await sight.allows(row.path, row):
                            listed.total = listed.total.plus_file(row)
                        continue
                    cover = await sight.cover(row.path)
                    if cover is Cover.WHOLE:
                        listed.total = listed.total.plus(row)
                    elif cover is Cover.PART:
                        listed.parts.append(await _key(sight, row))
            if len(rows) < limit:
                return listed
            after = rows[-1].path


@dataclass(slots=True)
class PartialTotals:
    """Computes totals, and remembers those of the directories that were asked for last."""

    directories_max: int = DIRECTORIES_REMEMBERED_MAX
    _known: OrderedDict[_Key, _Sum] = field(default_factory=OrderedDict)

    async def remembered(self, sight: Sight, path: str) -> Tree | None:
        """As `tree`, but None where that takes listing."""
        whole = await sight.whole_tree(path)
        if whole is not None:
            return whole
        directory = await sight.view.directory(path)
        return Tree(None, partial=True) if directory is None else await self._at_once(sight, directory)

    async def tree(self, sight: Sight, path: str, turns: LoopTurns) -> Tree:
        """What is at and below `path`. Never inside a piece of `turns`: it takes its own, and the snapshot stays open
        over them. Where that may be long, `gather` comes first."""
        found = await self.remembered(sight, path)
        if found is not None:
            return found
        directory = await sight.view.directory(path)
        assert directory is not None, "of what is not there the total is known"
        return await self.of_directory(sight, directory, turns)

    async def of_directory(self, sight: Sight, directory: DirectoryRow, turns: LoopTurns) -> Tree:
        """What a directory that is there holds; as `tree`."""
        found = await self._at_once(sight, directory)
        if found is not None:
            return found
        total = await self._sum(lambda: nullcontext(sight), turns, await _key(sight, directory))
        assert total is not None, "nothing changes in a snapshot"
        return _tree(directory, total)

    async def gather(self, sights: Sights, paths: Sequence[str], turns: LoopTurns) -> None:
        """Remember what `tree` of these paths needs, but for what changes meanwhile: in any number of snapshots, each
        no longer than a piece of `turns`."""
        for path in paths:
            async with sights() as sight:
                if await self.remembered(sight, path) is not None:
                    continue
                directory = await sight.view.directory(path)
                assert directory is not None, "of what is not there the total is known"
                key = await _key(sight, directory)
            await self._sum(sights, turns, key)

    async def _at_once(self, sight: Sight, directory: DirectoryRow) -> Tree | None:
        cover = await sight.cover(directory.path)
        if cover is Cover.WHOLE:
            return Tree(directory)
        if cover is Cover.NOTHING:
            return Tree(None, partial=True)
        total = self._recall(await _key(sight, directory))
        return None if total is None else _tree(directory, total)

    async def _sum(self, sights: Sights, turns: LoopTurns, wanted: _Key) -> _Sum | None:
        """That of `wanted`; None when it is no longer so. What is below it is remembered in any case, where it was
        listed as of one revision."""
        # Not by recursion: a path may have two thousand segments.
        descent = _Descent(sights, turns)
        above = [await descent.list(wanted)]
        while True:
            here = above[-1]
            if here.parts:
                part = here.parts.pop()
                known = self._recall(part)
                if known is None:
                    above.append(await descent.list(part))
                else:
                    here.total = here.total.plus(known)
                continue
            above.pop()
            if here.key is not None:
                self._remember(here.key, here.total)
            is_wanted = here.key == here.wanted
            if not above:
                return here.total if is_wanted else None
            if is_wanted:
                above[-1].total = above[-1].total.plus(here.total)
            else:
                above[-1].key = None

    def _recall(self, key: _Key) -> _Sum | None:
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def _remember(self, key: _Key, total: _Sum) -> None:
        self._known[key] = total
        while len(self._known) > self.directories_max:
            self._known.popitem(last=False)


async def _key(sight: Sight, directory: DirectoryRow) -> _Key:
    workspace = await sight.view.workspace()
    history_id = "" if workspace is None else workspace.history_id
    standing = await sight.standing_in(directory.path)
    return _Key(sight.access.identity, history_id, directory.path, directory.revision, standing)


def _tree(directory: DirectoryRow, total: _Sum) -> Tree:
    if not total.file_count:
        return Tree(None, partial=True)
    if total.file_count == directory.file_count:
        return Tree(directory)  # none of its rules hides anything
    row = directory._replace(
        file_count=total.file_count,
        total_bytes=total.total_bytes,
        rule_count=0,
        digest=total.digest,
        entry_count=total.entry_count,
    )
    return Tree(row, partial=True)
