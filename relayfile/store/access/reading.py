"""What one caller sees of a workspace: the filter of every reader of files, listings, exports, queries and events.

Owns the verdict on rows that were read. `ReadAccess` is made once for a call; its `sight` once for each snapshot, where
rows are filtered. A caller whose scopes cover a subtree in which there are no rules sees its rows as they are, at the
cost of one lookup for the snapshot.

What a caller may not read because of its scopes is refused by the stage (`PERMISSION_DENIED`, from the request alone);
what rules hide, and what of a larger tree lies outside of its scopes, is not there for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Self

from relayfile.auth import Principal, current_principal
from relayfile.auth.file_rules import Standing, standing
from relayfile.auth.scopes import Grants, grants
from relayfile.model import EventType
from relayfile.paths import ROOT
from relayfile.store.access.levels import Level, Levels
from relayfile.store.engine import TreeView
from relayfile.store.plan.digest import file_term
from relayfile.store.plan.rows import DirectoryRow, EventRow, FileRow
from relayfile.store.plan.rules import read_carried, read_carried_of_other

READ = "fs:read"
LOOKED_AT_MAX = 2_000
"""Entries that are looked at to know whether a directory holds anything for the caller; then it is shown."""
_SLICE_ENTRIES = 500


class Cover(Enum):
    """How much of a subtree a caller may read."""

    WHOLE = "whole"
    PART = "part"
    """Perhaps nothing: only the rows can tell."""
    NOTHING = "nothing"


class Tree(NamedTuple):
    """What is at and below a path, for one caller."""

    row: DirectoryRow | None
    """Of a file as if it were a directory of one entry; None: nothing."""
    partial: bool = False
    """`row` tells what the caller may read, not what there is."""


@dataclass(frozen=True, slots=True)
class ReadAccess:
    """What one caller may read. Made in the servicer, once for a call."""

    caller: Principal
    granted: Grants

    @classmethod
    def current(cls, action: str = READ) -> Self:
        """That of the call that is being served, by its scopes for `action`."""
        caller = current_principal()
        return cls(caller, grants(caller.scopes, action))

    async def sight(self, view: TreeView) -> "Sight":
        """What the caller sees in one snapshot. Valid as long as `view`."""
        levels = Levels(view, self.caller)
        return Sight(self, view, levels, await levels.at(ROOT))

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for callers who see the same."""
        return self.caller.subject, self.caller.workspaces, self.caller.scopes, self.granted


class Sight:
    """One snapshot through the eyes of one caller."""

    __slots__ = ("_levels", "access", "sees_all", "view")

    def __init__(self, access: ReadAccess, view: TreeView, levels: Levels, root: Level) -> None:
        self.access = access
        self.view = view
        self._levels = levels
        self.sees_all = access.granted.everything and not root.rules_below and root.standing.may_pass
        """Nothing of the workspace is hidden: no row needs to be looked at."""

    async def allows(self, path: str, row: FileRow | None = None, then: tuple[str, ...] = ()) -> bool:
        """Whether the file at `path` may be read; `row` is the file itself, where it is known.

        `then`: of something that happened to the file, its own permissions at that time. They count besides those of
        now, because the file may be gone, or another one.
        """
        if then:
            inherited = await self._levels.of_file(path, None)
            if not (inherited | standing(then, self.access.caller)).may_pass:
                return False
        if self.sees_all:
            return True
        return self.access.granted.allow(path) and (await self._levels.of_file(path, row)).may_pass

    async def file(self, row: FileRow | None) -> FileRow | None:
        """`row`, or None when it is not for this caller."""
        return row if row is None or await self.allows(row.path, row) else None

    async def files(self, rows: Sequence[FileRow | None]) -> list[FileRow | None]:
        """`rows` in their order, with None for what is not for this caller."""
        return list(rows) if self.sees_all else [await self.file(row) for row in rows]

    async def only(self, rows: Sequence[FileRow]) -> list[FileRow]:
        """Those of `rows` that may be read."""
        return list(rows) if self.sees_all else [row for row in rows if await self.allows(row.path, row)]

    async def entries(self, rows: Sequence[FileRow | DirectoryRow]) -> list[FileRow | DirectoryRow]:
        """Those of a listing that are there for the caller. Of a directory that it sees in part, the row tells only the
        path."""
        if self.sees_all:
            return list(rows)
        shown: list[FileRow | DirectoryRow] = []
        for row in rows:
            if isinstance(row, FileRow):
                if await self.allows(row.path, row):
                    shown.append(row)
                continue
            cover = await self.cover(row.path)
            if cover is Cover.WHOLE:
                shown.append(row)
            elif cover is Cover.PART and await self.holds_any(row.path):
                shown.append(concealed(row.path))
        return shown

    async def cover(self, directory: str) -> Cover:
        """How much of what is strictly below `directory` may be read."""
        if self.sees_all:
            return Cover.WHOLE
        granted = self.access.granted
        if not granted.reach(directory):
            return Cover.NOTHING
        level = await self._levels.at(directory)
        if Standing.DENIED in level.standing or not (level.rules_below or level.standing.may_pass):
            return Cover.NOTHING
        return Cover.PART if level.rules_below or not granted.cover(directory) else Cover.WHOLE

    async def standing_in(self, directory: str) -> Standing:
        """What the marker files from the root down to `directory` say of the caller."""
        return (await self._levels.at(directory)).standing

    async def whole_tree(self, path: str) -> Tree | None:
        """What is at and below `path`, where the caller may read all of it; None where it may not."""
        directory = await self.view.directory(path)
        if directory is not None:
            return Tree(directory) if await self.cover(path) is Cover.WHOLE else None
        file = await self.view.file(path)
        if file is None:
            return Tree(None) if await self.cover(path) is Cover.WHOLE else None
        if not await self.allows(path, file):
            return None
        term = file_term(path, file.content_sha256)
        return Tree(DirectoryRow(path, 1, file.size_bytes, 0, term, 0, file.revision))

    async def holds_any(self, directory: str) -> bool:
        """Whether anything below `directory` may be read; also when that is not known after `LOOKED_AT_MAX` entries."""
        waiting = [directory]
        looked_at = 0
        while waiting:
            here, after = waiting.pop(), ""
            while True:
                rows = await self.view.list_level(here, 1, after, _SLICE_ENTRIES)
                for row in rows:
                    if isinstance(row, FileRow):
                        if await self.allows(row.path, row):
                            return True
                        continue
                    cover = await self.cover(row.path)
                    if cover is Cover.WHOLE:
                        return True
                    if cover is Cover.PART:
                        waiting.append(row.path)
                looked_at += len(rows)
                if looked_at >= LOOKED_AT_MAX:
                    return True
                if len(rows) < _SLICE_ENTRIES:
                    break
                after = rows[-1].path
        return False

    async def events(self, rows: Sequence[EventRow]) -> list[EventRow]:
        """Those of `rows` that the caller may see, without the other path of a move where it may not read that."""
        if self.sees_all and not any(event.rules for event in rows):
            return list(rows)
        present = {row.path: row for row in await self.view.files([event.path for event in rows]) if row is not None}
        shown: list[EventRow] = []
        for event in rows:
            if event.type is EventType.ACCESS_CHANGED:
                if await self._hears_of(event.path):
                    shown.append(event)
            elif await self.allows(event.path, present.get(event.path), _rules_then(event)):
                shown.append(await self._without_hidden_paths(event))
        return shown

    async def _without_hidden_paths(self, event: EventRow) -> EventRow:
        other = event.moved_to or event.moved_from
        if not other:
            return event
        then = read_carried_of_other(event.rules) if event.rules else ()
        if await self.allows(other, await self.view.file(other), then):
            return event
        return event._replace(moved_to="", moved_from="")

    async def _hears_of(self, path: str) -> bool:
        """Whether the caller is told that rules at `path` changed: by the rules above it, for those that changed may
        have shut it out just now."""
        if not self.access.granted.reach(path):
            return False
        return path == ROOT or (await self._levels.of_file(path, None)).may_pass


def _rules_then(event: EventRow) -> tuple[str, ...]:
    return read_carried(event.rules) if event.rules else ()


def concealed(path: str) -> DirectoryRow:
    """A directory of which only its path is told."""
    return DirectoryRow(path, 0, 0, 0, 0, 0, 0)
