"""Snapshots of a workspace for the read services: found, waited for, and never held while a peer is waited for.

Owns the rules that every read follows: an unknown or deleted workspace is `WorkspaceNotFound`, `min_revision` is waited
for up to the call's deadline, and a view is left before anything is sent, or before turns are waited for.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol

from relayfile.clock import SystemClock
from relayfile.errors import DeadlineExpired, WorkspaceNotFound
from relayfile.page_token import SealedTokens
from relayfile.store.access import PartialTotals, ReadAccess, Sight, Tree
from relayfile.store.engine import Engine, WorkspaceKey, WorkspaceView
from relayfile.store.ownership import Ownership
from relayfile.store.plan.rows import WorkspaceRow
from relayfile.store.turns import LoopTurns

GATHERINGS_MAX: Final = 3
"""Of one total. Each lists only what changed during the one before; what still changes is left to a snapshot."""


class Feed(Protocol):
    """Wakes those who wait for commits of a workspace. It carries no events: the log does."""

    async def wait(self, workspace_id: str, after_revision: int) -> int:
        """Return as soon as this process has committed a revision after `after_revision`, at once when it has."""
        ...


class TimeLeft(Protocol):
    """What a servicer's context knows of its deadline."""

    def time_remaining(self) -> float | None:
        """Seconds; None without a deadline."""
        ...


class Snapshot(NamedTuple):
    """A workspace at one moment. Valid only inside of the `async with` that made it."""

    view: WorkspaceView
    workspace: WorkspaceRow


class Described(NamedTuple):
    """A snapshot, and what directories hold in it for one caller."""

    snapshot: Snapshot
    trees: Sequence[Tree]


@dataclass(frozen=True, slots=True)
class Reading:
    """How servicers get at a workspace."""

    engine: Engine
    feed: Feed
    ownership: Ownership
    wait_s_max: float
    """How long `min_revision` is waited for when the call has no deadline."""
    totals: PartialTotals = field(default_factory=PartialTotals)
    """What callers see of directories that they may read in part."""
    tokens: SealedTokens = field(default_factory=SealedTokens)
    """Of lists whose positions may name what rules hide."""
    turns: LoopTurns = field(default_factory=lambda: LoopTurns(SystemClock()))
    """For those that read much."""

    def key(self, workspace_id: str) -> WorkspaceKey:
        """Where the workspace's rows are; `NotOwner` when that is another node. Bulk work makes way from then on."""
        self.turns.called()
        return self.ownership.local_key(workspace_id)

    @asynccontextmanager
    async def snapshot(self, key: WorkspaceKey) -> AsyncIterator[Snapshot]:
        """A snapshot of an existing workspace. Leave it before waiting for anything but the engine."""
        async with self.engine.view(key) as view:
            workspace = await view.workspace()
            if workspace is None or workspace.deleted_us is not None:
                raise WorkspaceNotFound(workspace=key.workspace_id)
            yield Snapshot(view, workspace)

    @asynccontextmanager
    async def sight(self, key: WorkspaceKey, access: ReadAccess) -> AsyncIterator[Sight]:
        """A snapshot as one caller sees it."""
        async with self.snapshot(key) as snapshot:
            yield await access.sight(snapshot.view)

    async def gather(self, key: WorkspaceKey, access: ReadAccess, paths: Sequence[str]) -> None:
        """See `PartialTotals.gather`."""
        await self.totals.gather(partial(self.sight, key, access), paths, self.turns)

    @asynccontextmanager
    async def described(self, key: WorkspaceKey, access: ReadAccess, paths: Sequence[str]) -> AsyncIterator[Described]:
        """A snapshot with the totals of `paths` in it. What takes long is found out before it is taken."""
        for _ in range(GATHERINGS_MAX):
            async with self.snapshot(key) as snapshot:
                sight = await access.sight(snapshot.view)
                found = [await self.totals.remembered(sight, path) for path in paths]
                trees = [tree for tree in found if tree is not None]
                if len(trees) == len(paths):
                    yield Described(snapshot, trees)
                    return
            await self.gather(key, access, paths)
        async with self.snapshot(key) as snapshot:
            sight = await access.sight(snapshot.view)
            yield Described(snapshot, [await self.totals.tree(sight, path, self.turns) for path in paths])

    async def reached(self, key: WorkspaceKey, min_revision: int, call: TimeLeft) -> None:
        """Wait until the workspace has `min_revision`; `DeadlineExpired` when it does not come in time."""
        if min_revision <= 0:
            return
        remaining = call.time_remaining()
        try:
            async with asyncio.timeout(self.wait_s_max if remaining is None else remaining):
                while (revision := await self._revision(key)) < min_revision:
                    await self.feed.wait(key.workspace_id, revision)
        except TimeoutError:
            raise DeadlineExpired(what=f"revision {min_revision} of workspace {key.workspace_id!r}") from None

    async def _revision(self, key: WorkspaceKey) -> int:
        async with self.snapshot(key) as (_, workspace):
            return workspace.revision
