"""Who may write where: `fs:write` on every path, `fs:manage` where rules change, and the rules of the files themselves.

Three questions, in this order. `require_scopes` needs only the path and may be asked before anything is read;
`refusal` needs the rows and is asked in the snapshot that the mutation is planned on, so that a rule that was committed
before the mutation holds for it.

A write that changes rules (of a marker file, or of `permissions`) is decided by `fs:manage` on the directory alone: a
rule that shuts everybody out can be taken back by whoever may set it.
"""

from dataclasses import dataclass
from typing import Self

from relayfile import paths
from relayfile.auth import Principal, current_principal
from relayfile.auth.scopes import Grants, grants
from relayfile.errors import PermissionDenied
from relayfile.store.access.levels import Levels
from relayfile.store.engine import TreeView
from relayfile.store.plan.rows import FileRow
from relayfile.store.plan.rules import is_marker

WRITE = "fs:write"
MANAGE = "fs:manage"


@dataclass(frozen=True, slots=True)
class WriteAccess:
    """What one caller may write in one workspace. Made in the servicer, carried in the mutation."""

    caller: Principal

    @classmethod
    def current(cls) -> Self:
        """That of the call that is being served."""
        return cls(current_principal())

    def require_scopes(self, path: str, *, changes_rules: bool = False) -> None:
        """`PermissionDenied` unless the token grants writing at `path` (normalised), from the scopes alone.

        Of a move, ask for both paths. `changes_rules`: `permissions` are set; a marker file is known by its name.
        """
        if (refused := self.scope_refusal(path, changes_rules=changes_rules)) is not None:
            raise refused

    def scope_refusal(self, path: str, *, changes_rules: bool = False) -> PermissionDenied | None:
        """What `require_scopes` raises; None when the scopes suffice."""
        if not self._granted(WRITE).allow(path):
            return PermissionDenied(why=f"no scope of the token grants {WRITE} at {path[:256]!r}")
        if (changes_rules or is_marker(path)) and not self.may_manage(path):
            directory = paths.parent(path)
            return PermissionDenied(
                why=f"no scope of the token grants {MANAGE} at {directory[:256]!r}, which changing access rules needs"
            )
        return None

    async def require(self, view: TreeView, path: str, row: FileRow | None, *, changes_rules: bool = False) -> None:
        """`PermissionDenied` unless scopes and rules allow writing at `path`."""
        if (refused := await self.refusal(view, path, row, changes_rules=changes_rules)) is not None:
            raise refused

    async def refusal(
        self, view: TreeView, path: str, row: FileRow | None, *, changes_rules: bool = False
    ) -> PermissionDenied | None:
        """Why `path` may not be written, deleted, or moved from or to; None when it may.

        `row` is the file that stands there now, in the snapshot of `view`, or None. `changes_rules`: its enforceable
        `permissions` will be others (`relayfile.store.plan.rules.differ`). Without rules in the workspace it costs one
        lookup of a row.
        """
        if (refused := self.scope_refusal(path, changes_rules=changes_rules)) is not None:
            return refused
        if changes_rules or is_marker(path):
            return None
        if (await Levels(view, self.caller).of_file(path, row)).may_pass:
            return None
        return PermissionDenied(
            why=f"the access rules of {path[:256]!r} do not let {self.caller.subject[:128]!r} write"
        )

    def may_manage(self, path: str) -> bool:
        """Whether the caller may change the rules of the file at `path`."""
        return self._granted(MANAGE).allow(paths.parent(path))

    def _granted(self, action: str) -> Grants:
        return grants(self.caller.scopes, action)
