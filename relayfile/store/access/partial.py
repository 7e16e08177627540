"""What a subtree holds for a caller who may read it in part: count, bytes and digest over what it may read (D9).

Owns the descent and what is remembered of it. A subtree that is wholly visible or wholly hidden costs its row; others
are listed, level by level. What was found for a directory is kept under everything it follows from: the caller, the
directory's revision, and what the rules above it say, so that nothing has to be invalidated and a change costs the
listing of the directories above it.
"""

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from relayfile.auth.file_rules import Standing
from relayfile.store.access.reading import Cover, Sight, Tree
from relayfile.store.plan import digest
from relayfile.store.plan.rows import DirectoryRow, FileRow

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


@dataclass(slots=True)
class PartialTotals:
    """Computes totals, and remembers those of the directories that were asked for last."""

    directories_max: int = DIRECTORIES_REMEMBERED_MAX
    _known: OrderedDict[_Key, _Sum] = field(default_factory=OrderedDict)

    async def tree(self, sight: Sight, path: str) -> Tree:
        """What is at and below `path`."""
        whole = await sight.whole_tree(path)
        if whole is not None:
            return whole
        directory = await sight.view.directory(path)
        return Tree(None, partial=True) if directory is None else await self.of_directory(sight, directory)

    async def of_directory(self, sight: Sight, directory: DirectoryRow) -> Tree:
        """What a directory that is there holds."""
        cover = await sight.cover(directory.path)
        if cover is Cover.WHOLE:
            return Tree(directory)
        if cover is Cover.NOTHING:
            return Tree(None, partial=True)
        total = await self._sum(sight, directory)
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

    async def _sum(self, sight: Sight, top: DirectoryRow) -> _Sum:
        # Not by recursion: a path may have two thousand segments. Those below come after those above.
        waiting = [top]
        holders: dict[str, str] = {}
        sums: dict[str, _Sum] = {}
        keys: dict[str, _Key] = {}
        workspace = await sight.view.workspace()
        history_id = "" if workspace is None else workspace.history_id
        for directory in waiting:
            key = await self._key(sight, history_id, directory)
            known = self._recall(key)
            if known is not None:
                sums[directory.path] = known
                continue
            keys[directory.path] = key
            sums[directory.path], parts = await self._level(sight, directory.path)
            holders.update((part.path, directory.path) for part in parts)
            waiting += parts
        for directory in reversed(waiting):
            path = directory.path
            if path in keys:
                self._remember(keys[path], sums[path])
            if path in holders:
                sums[holders[path]] = sums[holders[path]].plus(sums[path])
        return sums[top.path]

    async def _level(self, sight: Sight, directory: str) -> tuple[_Sum, list[DirectoryRow]]:
        """(what is directly in `directory`, the directories in it that are seen in part)."""
        total, parts, after = _Sum(), [], ""
        while True:
            rows = await sight.view.list_level(directory, 1, after, _SLICE_ENTRIES)
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
            if len(rows) < _SLICE_ENTRIES:
                return total, parts
            after = rows[-1].path
            # The snapshot stays: nothing but the loop's other work is waited for.
            await asyncio.sleep(0)

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
