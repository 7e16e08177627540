"""Whether a workspace exists, wherever it is served.

Owns the question to another node: with this node's own credentials, because who may make a route need not be somebody
who reads the workspace. Refuses to guess: an owner that does not answer is `Unavailable`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import grpc.aio

from relayfile.errors import PeerFailed, RelayfileError, Unavailable, WorkspaceDeleted, WorkspaceNotFound
from relayfile.status import from_rpc_error
from relayfile.store.engine import Engine
from relayfile.store.ownership import Local, Ownership
from relayfile.store.proxy import Peers
from relayfile.v1 import workspace_pb2, workspace_pb2_grpc


@dataclass(frozen=True, slots=True)
class WorkspaceExistence:
    """Asks this node's engine, or the owner."""

    engine: Engine
    ownership: Ownership
    peers: Peers
    credentials: Callable[[], tuple[tuple[str, str], ...]]
    timeout_s: float

    async def require(self, workspace_id: str) -> None:
        """Return when there is such a workspace. `WorkspaceNotFound`, of a tombstone too; `Unavailable`."""
        owner = self.ownership.owner_of(workspace_id)
        if isinstance(owner, Local):
            async with self.engine.view(owner.key) as view:
                workspace = await view.workspace()
            if workspace is None or workspace.deleted_us is not None:
                raise WorkspaceNotFound(workspace=workspace_id)
            return
        stub: workspace_pb2_grpc.WorkspaceServiceAsyncStub = workspace_pb2_grpc.WorkspaceServiceStub(
            self.peers.channel(owner.address)
        )
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace_id)
        try:
            await stub.GetWorkspace(request, timeout=self.timeout_s, metadata=self.credentials())
        except grpc.aio.AioRpcError as error:
            raise _told(from_rpc_error(error), workspace_id) from error


def _told(error: RelayfileError, workspace_id: str) -> RelayfileError:
    if isinstance(error, WorkspaceNotFound | WorkspaceDeleted):
        return WorkspaceNotFound(workspace=workspace_id)
    if isinstance(error, PeerFailed):
        return error
    return Unavailable(what=f"owner of the workspace {workspace_id!r}")
