"""Workspaces: make, describe, list, remove."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime

from grpc.aio import Channel

from relayfile.client.calls import Calls
from relayfile.client.values import Quota, WorkspaceInfo
from relayfile.client.wire import moment, workspace_of
from relayfile.v1 import workspace_pb2
from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub


class Workspaces:
    """All workspaces that the caller's token grants."""

    def __init__(self, calls: Calls, channel: Channel, new_id: Callable[[], str]) -> None:
        self._calls = calls
        self._stub = WorkspaceServiceStub(channel)
        self._new_id = new_id

    async def create(self, workspace_id: str, quota: Quota | None = None) -> WorkspaceInfo:
        """Make an empty workspace. `WorkspaceAlreadyExists`, `WorkspaceDeleted`. A repeat by the client is harmless."""
        limits = quota or Quota()
        request = workspace_pb2.CreateWorkspaceRequest(
            workspace_id=workspace_id,
            quota=workspace_pb2.WorkspaceQuota(files_max=limits.files_max, total_bytes_max=limits.total_bytes_max),
            request_id=self._new_id(),
        )
        return workspace_of((await self._calls.unary(self._stub.CreateWorkspace, request)).workspace)

    async def get(self, workspace_id: str, *, min_revision: int = 0) -> WorkspaceInfo:
        """Describe a workspace. `WorkspaceNotFound`."""
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace_id, min_revision=min_revision)
        return workspace_of((await self._calls.unary(self._stub.GetWorkspace, request)).workspace)

    async def list(self, prefix: str = "", *, show_deleted: bool = False) -> AsyncIterator[WorkspaceInfo]:
        """Workspaces of all nodes that answer, by name. Needs a token for all workspaces."""
        request = workspace_pb2.ListWorkspacesRequest(workspace_id_prefix=prefix, show_deleted=show_deleted)
        while True:
            page = await self._calls.unary(self._stub.ListWorkspaces, request)
            for workspace in page.workspaces:
                yield workspace_of(workspace)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def delete(self, workspace_id: str, *, history_id: str = "", reason: str = "") -> datetime:
        """Remove a workspace with everything in it; when the name may be used again. It cannot be undone.

        With a `history_id` only the workspace of that history, else `HistoryMismatch`.
        """
        request = workspace_pb2.DeleteWorkspaceRequest(
            workspace_id=workspace_id, history_id=history_id, reason=reason, request_id=self._new_id()
        )
        return moment((await self._calls.unary(self._stub.DeleteWorkspace, request)).expire_time)
