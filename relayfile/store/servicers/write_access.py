"""What a mutation of files needs of its caller, and the one place that is asked.

Owns which requirement stands on which path: `fs:write` on every path that changes (of a move on both), `fs:manage` on
the directory of an access marker. That permissions change is only known when the mutation is planned: there the answer
of `may_manage` counts. Refuses to judge.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from relayfile import paths
from relayfile.errors import PermissionDenied
from relayfile.store.engine import WorkspaceKey
from relayfile.store.plan.rows import FileRow

WRITE = "fs:write"
MANAGE = "fs:manage"


class Wanted(NamedTuple):
    """An action on a path; of `fs:manage` the path is a directory."""

    action: str
    path: str


def wanted(*changed_paths: str) -> list[Wanted]:
    """What a mutation that changes these files needs."""
    needs = [Wanted(WRITE, path) for path in changed_paths]
    needs += [Wanted(MANAGE, paths.parent(path)) for path in changed_paths if paths.name(path) == paths.ACCESS_MARKER]
    return needs


class WriteAccess(Protocol):
    """Judges the caller of the call that is being served."""

    async def refusal(self, key: WorkspaceKey, needs: Sequence[Wanted]) -> PermissionDenied | None:
        """Why one of the needs is not met; None: all are."""
        ...

    async def may_manage(self, key: WorkspaceKey, directory: str) -> bool:
        """Whether the caller may change access rules in `directory`."""
        ...

    def may_read(self, key: WorkspaceKey) -> Callable[[FileRow], bool]:
        """Tells which files the caller may read, later and outside of the call."""
        ...


class WorkspaceAccess:
    """Who may use the workspace may change its files: the claim was checked when the call came."""

    async def refusal(self, key: WorkspaceKey, needs: Sequence[Wanted]) -> PermissionDenied | None:
        return None

    async def may_manage(self, key: WorkspaceKey, directory: str) -> bool:
        return True

    def may_read(self, key: WorkspaceKey) -> Callable[[FileRow], bool]:
        return _all_files


def _all_files(_file: FileRow) -> bool:
    return True
