"""What a subtree holds for a caller who may read it in part: count, bytes and digest over what it may read (D9).

Owns the descent and what is remembered of it. A subtree that is wholly visible or wholly hidden costs its row; others
are listed, level by level, after the first rows in turns with other bulk work. What was found for a directory is kept
under everything it follows from: the caller, the directory's revision, and what the rules above it say, so that nothing
has to be invalidated and a change costs the listing of the directories above it.
"""

from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

from relayfile.auth.file_rules import Standing
from relayfile.store.access.reading import Cover, Sight, Tree
from relayfile.store.plan import digest
from relayfile.store.plan.rows import DirectoryRow, FileRow
from relayfile.store.turns import LoopTurns

DIRECTORIES_REMEMBERED_MAX = 20_000
"""About 10 MB."""
_SLICE_ENTRIES = 1_000


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


class _Descent:
    """Lists the directories of one sum, some rows at a time. The snapshot stays: nobody but the node is waited for."""

    __slots__ = ("_begun", "_turns")

    def __init__(self, turns: LoopTurns) -> None:
        self._turns = turns
        self._begun = False

    async def level(self, sight: Sight, directory: str) -> tuple[_Sum, list[DirectoryRow]]:
        """(what is directly in `directory`, the directories in it that are seen in part)."""
        total, parts, after = _Sum(), [], ""
        while True:
            # What is small is answered as any call is.
            async with self._turns.piece() if self._begun else nullcontext():
                self._begun = True
                limit = self._turns.rows(_SLICE_ENTRIES)
                rows = await sight.view.list_level(directory, 1, after, limit)
                for row in rows:
                    if isinstance(row, FileRow):
                        if await sight.allows(row.path, row):
                            total = total.plus_file(row)
                        continue
                    cover = await sight.cover(row.path)
                    if cover is Cover.WHOLE:
                        total = total.plus(row)
                    elif cover is Cover.PART:
                        parts.append(row)
            if len(rows) < limit:
                return total, parts
            after = rows[-1].path


@dataclass(slots=True)
class PartialTotals:
    """Computes totals, and remembers those of the directories that were asked for last."""

    directories_max: int = DIRECTORIES_REMEMBERED_MAX
    _known: OrderedDict[_Key, _Sum] = field(default_factory=OrderedDict)

    async def tree(self, sight: Sight, path: str, turns: LoopTurns) -> Tree:
        """What is at and below `path`. Never inside a piece of `turns`: it takes its own."""
        whole = await sight.whole_tree(path)
        if whole is not None:
            return whole
        directory = await sight.view.directory(path)
        return Tree(None, partial=True) if directory is None else await self.of_directory(sight, directory, turns)

    async def of_directory(self, sight: Sight, directory: DirectoryRow, turns: LoopTurns) -> Tree:
        """What a directory that is there holds; as `tree`."""
        cover = await sight.cover(directory.path)
        if cover is Cover.WHOLE:
            return Tree(directory)
        if cover is Cover.NOTHING:
            return Tree(None, partial=True)
        total = await self._sum(sight, directory, turns)
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

    async def _sum(self, sight: Sight, top: DirectoryRow, turns: LoopTurns) -> _Sum:
        # Not by recursion: a path may have two thousand segments. Those below come after those above.
        waiting = [top]
        holders: dict[str, str] = {}
        sums: dict[str, _Sum] = {}
        keys: dict[str, _Key] = {}
        descent = _Descent(turns)
        workspace = await sight.view.workspace()
        history_id = "" if workspace is None else workspace.history_id
        for directory in waiting:
            key = await self._key(sight, history_id, directory)
            known = self._recall(key)
            if known is not None:
                sums[directory.path] = known
                continue
            keys[directory.path] = key
            sums[directory.path], parts = await descent.level(sight, directory.path)
            holders.update((part.path, directory.path) for part in parts)
            waiting += parts
        for directory in reversed(waiting):
            path = directory.path
            if path in keys:
                self._remember(keys[path], sums[path])
            if path in holders:
                sums[holders[path]] = sums[holders[path]].plus(sums[path])
        return sums[top.path]

    async def _key(self, sight: Sight, history_id: str, directory: DirectoryRow) -> _Key:
        standing = await sight.standing_in(directory.path)
        return _Key(sight.access.identity, history_id, directory.path, directory.revision, standing)

    def _recall(self, key: _Key) -> _Sum | None:
        found = self._known.get(key)
        if found is not None:
            self._known.move_to_end(key)
        return found

    def _remember(self, key: _Key, total: _Sum) -> None:
        self._known[key] = total
        while len(self._known) > self.directories_max:
            self._known.popitem(last=False)
