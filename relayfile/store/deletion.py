"""`DeleteWorkspace`: the tombstone, durable at once; what is behind it is removed in the background.

Owns the kind of mutation, and who is told: watchers' streams end, ingest processes forget its pauses. From the commit
on the workspace is gone for every reader, and changes that arrive for it end as `ignored`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from relayfile.errors import HistoryMismatch, WorkspaceNotFound
from relayfile.paths import ROOT
from relayfile.store.commit import Committer
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.order import Order
from relayfile.store.ownership import Ownership
from relayfile.store.plan.result import Plan
from relayfile.store.streams.pausing import PauseNews
from relayfile.store.watch import RevisionFeed


class Deletion(NamedTuple):
    """A workspace to delete."""

    history_id: str
    """Empty: whichever it has."""
    order: Order


class Deleted(NamedTuple):
    """What was deleted."""

    file_count: int
    expires_us: int
    """When the tombstone ends."""


class DeleteWorkspaces:
    """The `EntryKind`. Deleting what is deleted already is fine: it holds nothing, and its tombstone stays as it is."""

    def __init__(self, context: PlanContext, tombstone_retention_us: int) -> None:
        self._context = context
        self._tombstone_retention_us = tombstone_retention_us

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[Deletion]
    ) -> tuple[Plan | None, Sequence[Deleted | Exception]]:
        async with self._context.engine.view(key) as view:
            workspace = await view.workspace()
            root = await view.directory(ROOT)
            pauses = await view.pauses()
        if workspace is None:
            return None, [WorkspaceNotFound(workspace=key.workspace_id)] * len(mutations)
        now_us = self._context.clock.now_us()
        plan: Plan | None = None
        answers: list[Deleted | Exception] = []
        deleted_us = workspace.deleted_us
        for history_id, order in mutations:
            if history_id not in ("", workspace.history_id):
                answers.append(HistoryMismatch(expected=history_id, current=workspace.history_id))
                continue
            file_count = 0
            if deleted_us is None:
                deleted_us = now_us
                file_count = root.file_count if root else 0
                detail = f"{file_count} files, {root.total_bytes if root else 0} bytes, revision {workspace.revision}"
                plan = Plan(key.workspace_id, workspace._replace(deleted_us=now_us), workspace_changed=True)
                plan.admin_actions_put.append(
                    order.action(self._context.new_id(), now_us, workspace.history_id, detail=detail)
                )
                plan.pauses_ended += [row.provider for row in pauses]
            answers.append(Deleted(file_count, deleted_us + self._tombstone_retention_us))
        return plan, answers


class WorkspaceDeletions:
    """Deletes workspaces of this node."""

    def __init__(
        self,
        context: PlanContext,
        committer: Committer,
        ownership: Ownership,
        feed: RevisionFeed,
        pauses: PauseNews,
        tombstone_retention_us: int,
    ) -> None:
        self.tombstone_retention_us = tombstone_retention_us
        self._committer = committer
        self._ownership = ownership
        self._feed = feed
        self._pauses = pauses
        self._kind = Once(
            context,
            DeleteWorkspaces(context, tombstone_retention_us),
            encode=msgspec.json.encode,
            decode=msgspec.json.Decoder(Deleted).decode,
        )

    async def delete_workspace(self, workspace_id: str, deletion: Deletion, mark: RequestMark | None) -> Deleted:
        """Durable when it returns. `WorkspaceNotFound`, `HistoryMismatch`; `NotOwner` at the wrong node."""
        key = self._ownership.local_key(workspace_id)
        answer = self._committer.submit(key, self._kind, Asked(deletion, mark), change_count=1, byte_count=0)
        # A caller that goes away undoes nothing: what is durable is told all the same.
        answer.add_done_callback(lambda _: self._tell(workspace_id))
        return await answer

    def _tell(self, workspace_id: str) -> None:
        self._feed.forget(workspace_id)
        self._pauses.changed()
