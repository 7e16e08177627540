"""The kinds of mutation that a workspace knows, and how each becomes a plan.

Owns the step from the committed state to a plan: load what it touches, decide with pure functions. Refuses to write.
To add a kind: a class here, or beside it, with `plan` as `relayfile.store.commit.EntryKind` says.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from relayfile.clock import Clock
from relayfile.errors import WorkspaceAlreadyExists
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.plan.entry import Entry, Fold
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.planner import plan
from relayfile.store.plan.result import MemberResult, Plan
from relayfile.store.plan.rows import WorkspaceRow

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

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[tuple[Fold, ...]]
    ) -> tuple[Plan | None, Sequence[FoldResults | Exception]]:
        folds = mutations[0] if len(mutations) == 1 else tuple(fold for mutation in mutations for fold in mutation)
        entry = Entry(key.workspace_id, folds)
        loaded = await self._context.engine.load(key, entry)
        now_us = self._context.clock.now_us()
        created = loaded.workspace is None and self._creates_workspaces
        if created:
            loaded.workspace = WorkspaceRow(self._context.new_id(), 0, now_us)
        planned = plan(entry, loaded, now_us=now_us, limits=self._limits, new_id=self._context.new_id)
        if created:
            planned.workspace_changed = True
        results: list[FoldResults] = []
        start = 0
        for mutation in mutations:
            results.append(tuple(planned.results[start : start + len(mutation)]))
            start += len(mutation)
        return planned, results


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
