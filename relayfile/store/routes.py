"""Changes of an app's routes: files of its system workspace `_app/<app>`, which the first one creates.

Owns what PutRoute and DeleteRoute do to a route, in one commit. Refuses to check names and the workspace that a route
leads to: that is the servicer's work, before anything is queued.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from relayfile.errors import RelayfileError, RevisionConflict, RouteNotFound, WorkspaceDeleted
from relayfile.model import Origin
from relayfile.placement import app_of, app_workspace
from relayfile.route_file import UNROUTED, RouteFile, read_route, route_path, write_route
from relayfile.store.commit import Committer
from relayfile.store.engine import WorkspaceKey, WorkspaceView
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.letters.dead_letters import DeadLetters
from relayfile.store.letters.unrouted import QUEUED_AT_ONCE_MAX, pending_of
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.order import Order
from relayfile.store.ownership import Ownership
from relayfile.store.plan.file_write import Author, FileDelete, FileMutation, FileWrite, plan_mutations, write_needs
from relayfile.store.plan.letters import LetterChanges
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import FileRow, WorkspaceRow
from relayfile.store.plan.slice import Slice

BYTES_PER_CHANGE = 1_024
"""What a waiting change of a route counts for in the node's queue."""


class RouteChange(NamedTuple):
    """A route to make, change or remove. Its names are checked."""

    tenant: str
    workspace_id: str
    """Empty: the route is removed."""
    if_revision: int | None
    """None: whatever is there; 0: there must be none."""
    order: Order
    traceparent: str = ""


class RouteChanged(NamedTuple):
    """The route after it; of one that was removed only the revision that removed it counts."""

    workspace_id: str
    revision: int
    created_us: int
    modified_us: int
    created: bool
    replayed_count: int = 0


class RouteChanges:
    """The `EntryKind` of one route's change. Each is an entry of its own, so that each has its own revision."""

    def __init__(self, context: PlanContext, limits: PlanLimits) -> None:
        self._context = context
        self._limits = limits

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[RouteChange]
    ) -> tuple[Plan | None, Sequence[RouteChanged | Exception]]:
        [change] = mutations
        now_us = self._context.clock.now_us()
        async with self._context.engine.view(key) as view:
            loaded = await _load(view, change)
            there = loaded.files.get(route_path(change.tenant))
            route = None if there is None else await _route(view, there)
        if loaded.workspace is not None and loaded.workspace.deleted_us is not None:
            return None, [WorkspaceDeleted(workspace=key.workspace_id)]
        refusal = _refusal(change, there, app_of(key.workspace_id))
        if refusal is not None:
            return None, [refusal]
        is_first = loaded.workspace is None
        if is_first:
            loaded.workspace = WorkspaceRow(self._context.new_id(), 0, now_us)
        created_us = now_us if route is None else route.created_us
        file = RouteFile(change.tenant, change.workspace_id, created_us)
        by = Author(Origin.SYSTEM, change.order.actor, change.order.correlation_id, change.traceparent)
        path = route_path(change.tenant)
        mutation: FileMutation = FileDelete(path, by, force=True)
        if change.workspace_id:
            mutation = FileWrite(path, write_route(file), by, force=True)
        planned = plan_mutations(key.workspace_id, [mutation], loaded, now_us=now_us, limits=self._limits)
        [written] = planned.results
        if isinstance(written, RelayfileError):
            return None, [written]
        plan = planned.plan or Plan(key.workspace_id, loaded.workspace)
        waiting = await pending_of(self._context.engine, key, change.tenant) if change.workspace_id else []
        if waiting:
            plan.letters = LetterChanges(queued=waiting)
        plan.workspace_changed |= is_first
        plan.admin_actions_put.append(
            change.order.action(
                self._context.new_id(),
                now_us,
                f"tenant {change.tenant!r}",
                detail=f"to workspace {change.workspace_id!r}" if change.workspace_id else "removed",
            )
        )
        answer = RouteChanged(
            change.workspace_id,
            written.revision,
            created_us,
            now_us if written.file is None else written.file.modified_us,
            created=written.created,
            replayed_count=len(waiting),
        )
        return plan, [answer]


class RouteWriter:
    """Queues changes of routes at the node that owns the app's system workspace."""

    def __init__(
        self,
        context: PlanContext,
        limits: PlanLimits,
        committer: Committer,
        ownership: Ownership,
        dead_letters: DeadLetters,
    ) -> None:
        self._committer = committer
        self._dead_letters = dead_letters
        self._ownership = ownership
        self._kind = Once(
            context,
            RouteChanges(context, limits),
            encode=msgspec.json.encode,
            decode=msgspec.json.Decoder(RouteChanged).decode,
        )

    async def change(self, app: str, change: RouteChange, mark: RequestMark | None) -> RouteChanged:
        """Return when it is durable. `RevisionConflict`, `RouteNotFound`, `RequestIdReused`; `NotOwner` elsewhere."""
        key = self._ownership.local_key(app_workspace(app))
        alone = object()
        changed = await self._committer.submit(
            key, self._kind, Asked(change, mark), change_count=1, byte_count=BYTES_PER_CHANGE, merge_key=alone
        )
        if changed.replayed_count:
            self._dead_letters.wake()
        if changed.replayed_count >= QUEUED_AT_ONCE_MAX:
            more = await self._dead_letters.queue_tenant(key.workspace_id, UNROUTED, change.tenant)
            changed = changed._replace(replayed_count=changed.replayed_count + more)
        return changed


async def _load(view: WorkspaceView, change: RouteChange) -> Slice:
    """What the write needs, in one snapshot. Nothing here is bound to an object."""
    needs = write_needs([FileDelete(route_path(change.tenant), Author(Origin.SYSTEM))])
    loaded = Slice(workspace=await view.workspace())
    if loaded.workspace is None:
        return loaded
    for path in needs.files:
        if (file := await view.file(path)) is not None:
            loaded.files[path] = file
    for path in needs.directories:
        if (directory := await view.directory(path)) is not None:
            loaded.directories[path] = directory
    return loaded


async def _route(view: WorkspaceView, file: FileRow) -> RouteFile:
    contents = await view.contents([file.content_id])
    return read_route(contents[file.content_id])


def _refusal(change: RouteChange, there: FileRow | None, app: str) -> RevisionConflict | RouteNotFound | None:
    """Stricter than for files: a route that is there already, with whatever workspace, is not "none"."""
    if there is None and not change.workspace_id:
        return RouteNotFound(app=app, tenant=change.tenant)
    current = 0 if there is None else there.revision
    if change.if_revision is not None and change.if_revision != current:
        return RevisionConflict(expected=change.if_revision, current=current)
    return None
