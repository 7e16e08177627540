"""The rules that directories pass on, read where there are any: one lookup for each directory that has rules below it.

Owns the way from the root down. A directory's row counts the rules below it, so that a subtree without rules costs
nothing however large it is: its standing is that of the directory above. What was found is remembered for as long as
the snapshot that it was read in; nothing has to be invalidated.
"""

from typing import NamedTuple

from relayfile.auth import Principal
from relayfile.auth.file_rules import Standing, enforceable_count, standing
from relayfile.paths import ACCESS_MARKER, ROOT, ancestors, join
from relayfile.store.engine import TreeView
from relayfile.store.plan.rows import FileRow


class Level(NamedTuple):
    """A directory, as the rules see it."""

    standing: Standing
    """What the marker files from the root down to the directory itself say."""
    rules_below: int
    """Rules in files below it, without those of its own marker."""


class Levels:
    """The directories of one snapshot, for one caller."""

    __slots__ = ("_caller", "_known", "_view")

    def __init__(self, view: TreeView, caller: Principal) -> None:
        self._view = view
        self._caller = caller
        self._known: dict[str, Level] = {}

    async def at(self, directory: str) -> Level:
        """The rules that hold for what is directly in `directory`, whether or not it exists."""
        known = self._known.get(directory)
        if known is not None:
            return known
        missing = [directory]
        above: Level | None = None
        for each in ancestors(directory):
            above = self._known.get(each)
            if above is not None:
                break
            missing.append(each)
        while missing:
            step = missing.pop()
            above = self._known[step] = await self._inside(step, above)
        assert above is not None, "the directory itself is one of them"
        return above

    async def of_file(self, path: str, row: FileRow | None) -> Standing:
        """What all rules say about the file at `path`; `row` is None where there is none."""
        level = await self.at(path[: path.rfind("/")] or ROOT)
        if row is None or not row.semantics.permissions:
            return level.standing
        return level.standing | standing(row.semantics.permissions, self._caller)

    async def _inside(self, directory: str, above: Level | None) -> Level:
        if above is not None and not above.rules_below:
            return above
        row = await self._view.directory(directory)
        passed_on = Standing.FREE if above is None else above.standing
        if row is None or not row.rule_count:
            return Level(passed_on, 0)
        marker = await self._view.file(join(directory, ACCESS_MARKER))
        if marker is None:
            return Level(passed_on, row.rule_count)
        permissions = marker.semantics.permissions
        return Level(passed_on | standing(permissions, self._caller), row.rule_count - enforceable_count(permissions))
