"""Which workspaces exist, as far as ingest must know to answer 404.

Owns the set of known workspaces: durable, only growing, a hint and no authority (the shard decides what becomes of a
change). One unknown to it is asked for at its owner, within `RELAYFILE_WORKSPACE_LOOKUP_TIMEOUT`. Refuses to create
any.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import grpc
import grpc.aio

from relayfile.clock import Clock
from relayfile.errors import RelayfileError, Unavailable, WorkspaceDeleted, WorkspaceNotFound
from relayfile.status import from_rpc_error
from relayfile.v1 import workspace_pb2, workspace_pb2_grpc

MISSING_REMEMBERED_S: Final = 1.0
"""How long a workspace that did not exist is not asked for again."""
MISSING_MAX: Final = 10_000
LOOKUPS_MAX: Final = 64
"""Questions to the store at once; a flood of unknown names does not become a flood there."""


ASK_S_MAX: Final = 1.0
"""Longest wait for an answer, with the wait for a free question: a request has to be answered in time too."""
REMEMBER_S_MAX: Final = 0.25
"""Longest wait for the spool's disk: what is known but not yet durable is asked for again after a restart."""


class KnownWorkspaces(Protocol):
    """Where what is known is made durable (the spool)."""

    async def add_known(self, workspaces: Sequence[str], now_us: int) -> None:
        """Remember; return when that is durable."""
        ...


class WorkspaceLookup(Protocol):
    """Asks the owner."""

    async def exists(self, workspace: str) -> bool:
        """Whether there is such a workspace. `RelayfileError` when the owner does not say."""
        ...


class WorkspaceDirectory:
    """Answers whether deliveries for a workspace are accepted."""

    def __init__(
        self,
        known: Iterable[str],
        store: KnownWorkspaces,
        lookup: WorkspaceLookup,
        clock: Clock,
        *,
        creates: bool,
        ask_s_max: float = ASK_S_MAX,
        remember_s_max: float = REMEMBER_S_MAX,
    ) -> None:
        """``creates``: an unknown workspace comes with its first delivery (`RELAYFILE_CREATE_WORKSPACES`)."""
        self._ask_s_max = ask_s_max
        self._remember_s_max = remember_s_max
        self._known = set(known)
        self._store = store
        self._lookup = lookup
        self._clock = clock
        self._creates = creates
        self._missing: dict[str, float] = {}
        self._lookups = asyncio.Semaphore(LOOKUPS_MAX)

    def is_known(self, workspace: str) -> bool:
        """Whether nothing needs to be asked: the usual case."""
        return self._creates or workspace in self._known

    async def admit(self, workspace: str, *, has_secret: bool) -> None:
        """Return when deliveries for ``workspace`` are accepted.

        `WorkspaceNotFound` when its owner does not know it. With the owner away: accepted when a secret is configured
        for it (``has_secret``), else `Unavailable`.
        """
        if self.is_known(workspace):
            return
        if self._is_missing(workspace):
            raise WorkspaceNotFound(workspace=workspace)
        try:
            async with asyncio.timeout(self._ask_s_max), self._lookups:
                exists = await self._lookup.exists(workspace)
        except (RelayfileError, TimeoutError):
            if has_secret:
                return
            raise Unavailable(what=f"owner of the workspace {workspace!r}") from None
        if not exists:
            if len(self._missing) >= MISSING_MAX:
                self._missing.clear()
            self._missing[workspace] = self._clock.monotonic()
            raise WorkspaceNotFound(workspace=workspace)
        self._known.add(workspace)
        try:
            async with asyncio.timeout(self._remember_s_max):
                await self._store.add_known([workspace], self._clock.now_us())
        except TimeoutError:
            pass  # The disk is slow; it is written when the disk gets to it, and the delivery must not wait for that.

    def _is_missing(self, workspace: str) -> bool:
        since = self._missing.get(workspace)
        if since is None:
            return False
        if self._clock.monotonic() - since < MISSING_REMEMBERED_S:
            return True
        del self._missing[workspace]
        return False


class OwnerLookup:
    """Asks `WorkspaceService.GetWorkspace` of the node that owns the workspace."""

    def __init__(
        self,
        channel_to: Callable[[str], grpc.aio.Channel],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        timeout_s: float,
    ) -> None:
        """``channel_to`` gives the channel to a workspace's owner."""
        self._channel_to = channel_to
        self._metadata = metadata
        self._timeout_s = timeout_s

    async def exists(self, workspace: str) -> bool:
        """As `WorkspaceLookup`; a tombstone counts as existing: its deliveries end as `ignored`."""
        stub: workspace_pb2_grpc.WorkspaceServiceAsyncStub = workspace_pb2_grpc.WorkspaceServiceStub(
            self._channel_to(workspace)
        )
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace)
        try:
            await stub.GetWorkspace(request, timeout=self._timeout_s, metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error)
            if isinstance(told, WorkspaceNotFound | WorkspaceDeleted):
                return isinstance(told, WorkspaceDeleted)
            raise told from error
        return True
