"""The kinds of mutation that a workspace knows, and how each becomes a plan.

Owns the step from the committed state to a plan: load what it touches, decide with pure functions. Refuses to write.
To add a kind: a class here, or beside it, with `plan` as `relayfile.store.commit.EntryKind` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from relayfile.clock import Clock
from relayfile.errors import DeadLettersFull, RelayfileError, WorkspaceAlreadyExists, WorkspaceDeleted
from relayfile.model import Failure, MemberKind, RawDelivery
from relayfile.placement import app_of
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.letters.unrouted import queue_routed
from relayfile.store.plan.entry import Entry, Fold
from relayfile.store.plan.letters import LetterState
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.planner import plan
from relayfile.store.plan.result import MemberResult, Plan
from relayfile.store.plan.rows import WorkspaceRow
from relayfile.store.wire import member_message
from relayfile.telemetry import get_logger

INTERNAL_FAULT = "INTERNAL_FAULT"
"""Reason of a dead letter that is our fault and not the change's."""

FULL_REMEMBERED_MAX = 10_000

_log = get_logger(__name__)

FoldResults: TypeAlias = tuple[tuple[MemberResult, ...], ...]
"""Per fold, per member, in order."""


class NewWorkspace(NamedTuple):
    """A workspace to make; quotas of 0 are the node's defaults."""

    files_max: int = 0
    total_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class PlanContext:
    """What planning needs beside the rows."""

    engine: Engine
    clock: Clock
    new_id: Callable[[], str]


class ApplyFolds:
    """Folds of changes from ingest: `ApplyEnvelopes`. A mutation is the folds of one workspace in one sub-batch."""

    def __init__(self, context: PlanContext, limits: PlanLimits, *, creates_workspaces: bool) -> None:
        self._context = context
        self._limits = limits
        self._creates_workspaces = creates_workspaces
        self._full: set[WorkspaceKey] = set()
        """Workspaces whose dead letters are known to be too many."""

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[tuple[Fold, ...]]
    ) -> tuple[Plan | None, Sequence[FoldResults | Exception]]:
        try:
            return await self._plan(key, mutations)
        except RelayfileError:
            raise
        except Exception:
            if len(mutations) > 1:
                raise  # each comes again by itself
            _log.exception("changes could not be planned", workspace=key.workspace_id)
        # A fault of ours. What meets it is put aside, for else it would come again for ever and hold up the rest.
        sound = [fold if await self.can_plan(key, fold) else quarantined(fold) for fold in mutations[0]]
        return await self._plan(key, [tuple(sound)])

    async def _plan(
        self, key: WorkspaceKey, mutations: Sequence[tuple[Fold, ...]]
    ) -> tuple[Plan, Sequence[FoldResults]]:
        folds = mutations[0] if len(mutations) == 1 else tuple(fold for mutation in mutations for fold in mutation)
        planned = await self.planned(key, folds)
        if planned.dead_letters:
            await self._require_room(key, planned)
            if app_of(key.workspace_id):
                async with self._context.engine.view(key) as view:
                    await queue_routed(view, planned)
        results: list[FoldResults] = []
        start = 0
        for mutation in mutations:
            results.append(tuple(planned.results[start : start + len(mutation)]))
            start += len(mutation)
        return planned, results

    async def planned(self, key: WorkspaceKey, folds: Sequence[Fold]) -> Plan:
        """The plan of one entry of `folds`, in order, on the committed state."""
        entry = Entry(key.workspace_id, tuple(folds))
        loaded = await self._context.engine.load(key, entry)
        now_us = self._context.clock.now_us()
        created = loaded.workspace is None and (self._creates_workspaces or bool(app_of(key.workspace_id)))
        if created:
            loaded.workspace = WorkspaceRow(self._context.new_id(), 0, now_us)
        planned = plan(entry, loaded, now_us=now_us, limits=self._limits, new_id=self._context.new_id)
        if created:
            planned.workspace_changed = True
        return planned

    async def _require_room(self, key: WorkspaceKey, planned: Plan) -> None:
        """`DeadLettersFull` when the workspace keeps too many already: an entry may go over the limit, none starts
        there. What is refused stays with ingest, which brings it again."""
        if len(planned.dead_letters) <= len(planned.dead_letters_resolved):
            return
        async with self._context.engine.view(key) as view:
            open_letters = [each for each in await view.letter_totals() if each.state is not LetterState.ACKNOWLEDGED]
        kept, kept_bytes = (
            sum(each.letter_count for each in open_letters),
            sum(each.body_bytes for each in open_letters),
        )
        if kept < self._limits.dead_letters_max and kept_bytes < self._limits.dead_letter_bytes_max:
            self._full.discard(key)
            return
        full = DeadLettersFull(workspace=key.workspace_id, kept=kept, kept_bytes=kept_bytes)
        if key not in self._full:
            # Once: what is refused comes again every few seconds.
            if len(self._full) >= FULL_REMEMBERED_MAX:
                self._full.clear()
            self._full.add(key)
            _log.warning("a workspace takes no more failures", reason=full.reason, why=str(full))
        raise full

    async def can_plan(self, key: WorkspaceKey, fold: Fold) -> bool:
        """Whether a fold by itself meets no fault of ours."""
        try:
            await self.planned(key, (fold,))
        except RelayfileError:
            raise
        except Exception:  # noqa: BLE001 - logged by `plan`
            return False
        return True


def quarantined(fold: Fold) -> Fold:
    """The fold as deliveries that failed: each member becomes a dead letter that keeps it whole."""
    return fold._replace(
        members=tuple(
            member._replace(
                kind=MemberKind.FAILED,
                path="",
                content=None if member.content is None else b"",  # elided: it comes again, with its content
                raw=RawDelivery(member_message(member).SerializeToString(), {}),
                failure=Failure(INTERNAL_FAULT, "The change met a fault of Relayfile's own; the node's log has it."),
            )
            for member in fold.members
        )
    )


class CreateWorkspaces:
    """Empty workspaces: `CreateWorkspace`. Refuses names that exist, and those of tombstones."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[NewWorkspace]
    ) -> tuple[Plan | None, Sequence[WorkspaceRow | Exception]]:
        async with self._context.engine.view(key) as view:
            existing = await view.workspace()
        refusal = WorkspaceAlreadyExists(workspace=key.workspace_id)
        if existing is not None and existing.deleted_us is not None:
            return None, [WorkspaceDeleted(workspace=key.workspace_id)] * len(mutations)
        if existing is not None:
            return None, [refusal] * len(mutations)
        first = mutations[0]
        row = WorkspaceRow(
            self._context.new_id(),
            0,
            self._context.clock.now_us(),
            files_max=first.files_max,
            total_bytes_max=first.total_bytes_max,
        )
        return Plan(key.workspace_id, row, workspace_changed=True), [row, *[refusal] * (len(mutations) - 1)]
