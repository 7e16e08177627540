"""WorkspaceService: making, describing and deleting one workspace. Listing is not served yet.

Owns the description: revision, totals, quota, and how each provider's changes ended, all of one snapshot. What ingest
processes still hold is not in it; `IngestService.GetIngestStatus` adds that.
"""

from typing import TYPE_CHECKING, Protocol

from relayfile.alerts import BALANCED
from relayfile.errors import WorkspaceDeleted, WorkspaceNotFound
from relayfile.model import Outcome
from relayfile.paths import ROOT
from relayfile.placement import check_workspace_id
from relayfile.store.access import ReadAccess
from relayfile.store.deletion import Deletion, WorkspaceDeletions
from relayfile.store.engine import DeadLetterFilter, ProviderOutcomes, ProviderWork, WorkspaceView
from relayfile.store.once import RequestMark, mark_of
from relayfile.store.order import current_order
from relayfile.store.plan.letters import LetterState
from relayfile.store.plan.rows import WorkspaceRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.wire import fill_provider, fill_totals, fill_workspace
from relayfile.store.servicers.workspace_listing import WorkspaceListing
from relayfile.v1 import ingest_pb2, workspace_pb2, workspace_pb2_grpc
from relayfile.wire import set_us

if TYPE_CHECKING:
    from relayfile.interception import Context


class WorkspaceMaker(Protocol):
    """Creates workspaces, durably."""

    async def create_workspace(
        self, workspace_id: str, files_max: int, total_bytes_max: int, mark: RequestMark | None
    ) -> WorkspaceRow:
        """The new workspace's row, once it is on disk; of a repeated request the row that it made.

        `WorkspaceAlreadyExists`, `WorkspaceDeleted`, `RequestIdReused`.
        """
        ...


class WorkspaceService(workspace_pb2_grpc.WorkspaceServiceServicer):
    """Workspaces of this node."""

    def __init__(
        self, reading: Reading, maker: WorkspaceMaker, deletions: WorkspaceDeletions, listing: WorkspaceListing
    ) -> None:
        self._reading = reading
        self._listing = listing
        self._maker = maker
        self._deletions = deletions

    async def CreateWorkspace(
        self, request: workspace_pb2.CreateWorkspaceRequest, context: "Context"
    ) -> workspace_pb2.CreateWorkspaceResponse:
        checks = Checks()
        _check_new_name(checks, request.workspace_id)
        checks.not_negative(request.quota.files_max, "quota.files_max")
        checks.not_negative(request.quota.total_bytes_max, "quota.total_bytes_max")
        checks.request_id(request.request_id)
        checks.done()
        key = self._reading.key(request.workspace_id)
        mark = mark_of("relayfile.v1.WorkspaceService/CreateWorkspace", request)
        quota = request.quota
        row = await self._maker.create_workspace(request.workspace_id, quota.files_max, quota.total_bytes_max, mark)
        answer = workspace_pb2.CreateWorkspaceResponse()
        # As it was made, for a repeat too, whatever happened to it since.
        fill_workspace(answer.workspace, key, row)
        fill_totals(answer.workspace.totals, None)
        return answer

    async def GetWorkspace(
        self, request: workspace_pb2.GetWorkspaceRequest, context: "Context"
    ) -> workspace_pb2.GetWorkspaceResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self._reading.key(request.workspace_id)
        try:
            await self._reading.reached(key, request.min_revision, context)
            return workspace_pb2.GetWorkspaceResponse(workspace=await self._describe(request.workspace_id))
        except WorkspaceNotFound:
            # Whoever brings changes for it must know the difference: those for a tombstone are taken.
            async with self._reading.engine.view(key) as view:
                row = await view.workspace()
                # One that is alive was made since it was looked for.
                if row is not None and row.deleted_us is not None:
                    raise WorkspaceDeleted(workspace=request.workspace_id) from None
            raise

    async def ListWorkspaces(
        self, request: workspace_pb2.ListWorkspacesRequest, context: "Context"
    ) -> workspace_pb2.ListWorkspacesResponse:
        return await self._listing.page(request, context)

    async def DeleteWorkspace(
        self, request: workspace_pb2.DeleteWorkspaceRequest, context: "Context"
    ) -> workspace_pb2.DeleteWorkspaceResponse:
        checks = Checks()
        _check_new_name(checks, request.workspace_id)
        checks.history_id(request.history_id)
        checks.reason(request.reason)
        checks.request_id(request.request_id)
        checks.done()
        deletion = Deletion(request.history_id, current_order(request.reason, request.request_id))
        mark = mark_of(deletion.order.method, request)
        deleted = await self._deletions.delete_workspace(request.workspace_id, deletion, mark)
        answer = workspace_pb2.DeleteWorkspaceResponse(deleted_file_count=deleted.file_count)
        set_us(answer.expire_time, deleted.expires_us)
        return answer

    async def _describe(self, workspace_id: str) -> workspace_pb2.Workspace:
        key = self._reading.key(workspace_id)
        async with self._reading.snapshot(key) as (view, row):
            message = workspace_pb2.Workspace(oldest_event_revision=await view.oldest_event_revision() or 0)
            fill_workspace(message, key, row)
            tree = await (await ReadAccess.current().sight(view)).whole_tree(ROOT)
            if tree is not None:  # else the caller may not know how much there is beside what it may read
                fill_totals(message.totals, tree.row)
            totals = await view.letter_totals()
            pending = {each.provider: each.letter_count for each in totals if each.state is LetterState.PENDING}
            work = await view.provider_work()
            known = {outcomes.provider: outcomes for outcomes in await view.outcomes()}
            # An agent may have edited below a provider's directory before it delivered anything.
            for name in sorted(known.keys() | work.keys()):
                stale_count, unfinished_count = work.get(name, ProviderWork())
                provider = message.providers.add(
                    pending_dead_letter_count=pending.get(name, 0),
                    stale_file_count=stale_count,
                    unfinished_operation_count=unfinished_count,
                )
                await _fill_sync(provider, known.get(name) or ProviderOutcomes(name, {}, {}, None, None), view)
        return message


def _check_new_name(checks: Checks, workspace_id: str) -> None:
    if not workspace_id:
        checks.refuse("workspace_id", "is required")
    elif workspace_id.startswith("_"):
        checks.refuse("workspace_id", "must not start with _, as the system's own workspaces do")
    elif (why := check_workspace_id(workspace_id)) is not None:
        checks.refuse("workspace_id", why)


async def _fill_sync(into: workspace_pb2.ProviderSync, outcomes: ProviderOutcomes, view: WorkspaceView) -> None:
    fill_provider(into.status, outcomes)
    into.status.health = _health(outcomes, into.status.accepted)
    if outcomes.last_applied_us is not None:
        set_us(into.last_applied_time, outcomes.last_applied_us)
    if not outcomes.failure_reasons:
        return
    for kept in await view.dead_letters(DeadLetterFilter(provider=outcomes.provider), "", 1):
        into.last_failure.reason = kept.row.failure.reason
        into.last_failure.message = kept.row.failure.message


def _health(outcomes: ProviderOutcomes, accepted: int) -> "ingest_pb2.ProviderHealth.ValueType":
    if BALANCED.are_too_many(outcomes.counts.get(Outcome.DEAD_LETTERED, 0), accepted):
        return ingest_pb2.PROVIDER_HEALTH_ERROR
    return ingest_pb2.PROVIDER_HEALTH_HEALTHY
