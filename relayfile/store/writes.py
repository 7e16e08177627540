"""Writes, deletes and moves of files by agents and services: the kind of mutation, and the way into the pipeline.

Owns the step from requests to one plan: many callers' batches of one workspace share an entry, each planned on the
result of the one before, and each gets the results of its own items. Refuses to check requests (the servicer's work)
and to decide what a mutation does (`relayfile.store.plan.file_write`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from relayfile.auth import Principal
from relayfile.auth.scopes import grants
from relayfile.errors import (
    ERRORS,
    DeadlineExpired,
    HistoryMismatch,
    Overloaded,
    RelayfileError,
    RevisionConflict,
    WorkspaceNotFound,
)
from relayfile.paths import ROOT
from relayfile.store.access import ReadAccess, WriteAccess
from relayfile.store.access.reading import READ
from relayfile.store.commit import Committer
from relayfile.store.engine import TreeView, WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.once import Asked, Once, RequestMark
from relayfile.store.ownership import Ownership
from relayfile.store.plan.agent_edits import AgentEdit
from relayfile.store.plan.file_write import (
    FileMove,
    FileMutation,
    FileResult,
    FileWrite,
    InTheWay,
    MutationPlanner,
    MutationsPlan,
    more_write_needs,
    write_needs,
)
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import FileRow, WorkspaceRow
from relayfile.store.plan.rules import differ
from relayfile.store.plan.slice import Needs, Slice

BYTES_PER_MUTATION = 1_024
"""What a waiting mutation counts for in the node's queue, beside its content."""
MUTATIONS_AT_ONCE = 100
"""Planned without a turn for other calls: about 3 ms."""
PREVIEW_BYTES_MAX = 1_000
RETRY_AFTER_S = 0.5

ItemResult: TypeAlias = FileResult | RelayfileError
EditsHook: TypeAlias = Callable[[WorkspaceKey, Slice, Sequence[AgentEdit], Plan], Awaitable[Sequence[str]]]
"""What follows from agents' edits: adds to the plan, before its commit, and says the operation id of each edit (empty:
none). The workspace is not changed by anybody else meanwhile; what else is needed may be loaded from the engine."""


async def no_operations(_key: WorkspaceKey, _loaded: Slice, edits: Sequence[AgentEdit], _plan: Plan) -> Sequence[str]:
    """Edits that nothing follows from."""
    return [""] * len(edits)


@dataclass(slots=True, eq=False)
class WriteBatch:
    """The mutations of one request."""

    mutations: tuple[FileMutation, ...]
    is_single: bool = True
    """Its one mutation is the request: when it is refused the request is, and may succeed when it is repeated."""
    access: WriteAccess | None = None
    """Of the caller; None is held to no rules."""
    history_id: str = ""
    """Of the revisions that its mutations expect; empty: the workspace's, whichever that is."""
    answer: "asyncio.Future[BatchAnswer] | None" = None
    """What its caller waits for, once it is queued."""

    @property
    def is_withdrawn(self) -> bool:
        """Whether its caller has gone: what is not planned yet has no effect."""
        return self.answer is not None and self.answer.cancelled()


class BatchAnswer(NamedTuple):
    """What became of a batch."""

    revision: int
    """The workspace's, after the commit."""
    results: tuple[ItemResult, ...]
    """For each mutation, in order."""


class _Record(msgspec.Struct, array_like=True, omit_defaults=True):
    """An item's result as it is remembered. Fields are only ever added, at the end."""

    file: FileRow | None = None
    revision: int = 0
    changed: bool = False
    created: bool = False
    operation_id: str = ""
    reason: str = ""
    """Of a refusal; empty when it was none."""
    fields: dict[str, str] = {}
    """Of a refusal."""


_records = msgspec.json.Decoder(tuple[int, tuple[_Record, ...]])
_REASONS = {kind.reason: kind for kind in ERRORS}


def encode_answer(answer: BatchAnswer) -> bytes:
    """Its record."""
    records = [
        _Record(reason=each.reason, fields=each.metadata())
        if isinstance(each, RelayfileError)
        else _Record(each.file, each.revision, each.changed, each.created, each.operation_id)
        for each in answer.results
    ]
    return msgspec.json.encode((answer.revision, records))


def decode_answer(record: bytes) -> BatchAnswer:
    """The answer of a record, by this release or an earlier one."""
    revision, records = _records.decode(record)
    results: list[ItemResult] = [
        _REASONS.get(each.reason, RelayfileError).from_metadata(each.fields)
        if each.reason
        else FileResult(each.file, each.revision, each.changed, each.created, each.operation_id)
        for each in records
    ]
    return BatchAnswer(revision, tuple(results))


class FileMutations:
    """The `EntryKind` of batches of mutations. Their answer: a result for each item."""

    def __init__(
        self,
        context: PlanContext,
        limits: PlanLimits,
        *,
        creates_workspaces: bool,
        edits_hook: EditsHook = no_operations,
    ) -> None:
        self._context = context
        self._limits = limits
        self._creates_workspaces = creates_workspaces
        self._edits_hook = edits_hook

    async def plan(
        self, key: WorkspaceKey, batches: Sequence[WriteBatch]
    ) -> tuple[Plan | None, Sequence[BatchAnswer | Exception]]:
        # Asked once: a caller may leave while others have their turn below.
        live: list[WriteBatch | RelayfileError]
        live = [DeadlineExpired(what="its turn") if batch.is_withdrawn else batch for batch in batches]
        mutations = [each for batch in live if isinstance(batch, WriteBatch) for each in batch.mutations]
        loaded = await self._context.engine.load_rounds(key, write_needs(mutations), partial(_more_needs, mutations))
        now_us = self._context.clock.now_us()
        is_first = loaded.workspace is None
        if is_first and self._creates_workspaces:
            loaded.workspace = WorkspaceRow(self._context.new_id(), 0, now_us)
        if loaded.workspace is None or loaded.workspace.deleted_us is not None:
            return None, [WorkspaceNotFound(workspace=key.workspace_id)] * len(batches)
        live = [_of_history(batch, loaded.workspace.history_id) for batch in live]
        mutations = await self._permitted(key, loaded, [batch for batch in live if isinstance(batch, WriteBatch)])
        planner = MutationPlanner(key.workspace_id, loaded, now_us=now_us, limits=self._limits)
        for start in range(0, len(mutations), MUTATIONS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            planner.plan_next(mutations[start : start + MUTATIONS_AT_ONCE])
        planned = planner.finished()
        if planned.plan is not None and planned.edits:
            operation_ids = await self._edits_hook(key, loaded, planned.edits, planned.plan)
            _name_operations(planned, operation_ids)
        workspace = loaded.workspace if planned.plan is None else planned.plan.workspace
        assert workspace is not None, "it exists"
        return planned.plan, await self._answers(key, live, planned, workspace.revision)

    async def _permitted(self, key: WorkspaceKey, loaded: Slice, batches: Sequence[WriteBatch]) -> list[FileMutation]:
        """The mutations in order, those marked that the rules of files refuse: the rules as they were committed."""
        root = loaded.directories.get(ROOT)
        if root is None or not root.rule_count:
            return [each for batch in batches for each in batch.mutations]
        async with self._context.engine.view(key) as view:
            return [await _judged(view, batch.access, each, loaded) for batch in batches for each in batch.mutations]

    async def _answers(
        self, key: WorkspaceKey, live: Sequence[WriteBatch | RelayfileError], planned: MutationsPlan, revision: int
    ) -> list[BatchAnswer | Exception]:
        answers: list[BatchAnswer | Exception] = []
        start = 0
        for batch in live:
            if isinstance(batch, RelayfileError):
                answers.append(batch)
                continue
            end = start + len(batch.mutations)
            results = planned.results[start:end]
            for place in range(start, end):
                met = planned.in_the_way.get(place)
                if met is not None and batch.is_single and batch.access is not None:
                    results[place - start] = await self._shown(key, planned.results[place], met, batch.access.caller)
            first = results[0]
            if batch.is_single and isinstance(first, RelayfileError):
                answers.append(first)
            else:
                answers.append(BatchAnswer(revision, tuple(results)))
            start = end
        return answers

    async def _shown(self, key: WorkspaceKey, conflict: ItemResult, met: InTheWay, caller: Principal) -> ItemResult:
        """The conflict, with a preview of what is there if the caller may read that."""
        assert isinstance(conflict, RevisionConflict)
        async with self._context.engine.view(key) as view:
            sight = await ReadAccess(caller, grants(caller.scopes, READ)).sight(view)
            if not await sight.allows(met.file.path, met.file):
                return conflict
        content = met.content
        if content is None:
            content = await self._context.engine.content_chunk(key, met.file.content_id, 0, PREVIEW_BYTES_MAX)
        preview = _preview((content or b"")[:PREVIEW_BYTES_MAX])
        return RevisionConflict(expected=conflict.expected, current=conflict.current, preview=preview)


def _of_history(batch: WriteBatch | RelayfileError, history_id: str) -> WriteBatch | RelayfileError:
    """The batch, unless it speaks of revisions that were lost: a number of them may be another version's by now."""
    if isinstance(batch, RelayfileError) or batch.history_id in ("", history_id):
        return batch
    return HistoryMismatch(expected=batch.history_id, current=history_id)


async def _judged(view: TreeView, access: WriteAccess | None, mutation: FileMutation, loaded: Slice) -> FileMutation:
    if access is None or mutation.by.refusal is not None:
        return mutation
    there = loaded.files.get(mutation.path)
    changes_rules = False
    if isinstance(mutation, FileWrite) and mutation.semantics is not None:
        changes_rules = differ(None if there is None else there.semantics, mutation.semantics)
    refusal = await access.refusal(view, mutation.path, there, changes_rules=changes_rules)
    if refusal is None and isinstance(mutation, FileMove):
        refusal = await access.refusal(view, mutation.to_path, loaded.files.get(mutation.to_path))
    return mutation if refusal is None else mutation._replace(by=mutation.by._replace(refusal=refusal))


def _more_needs(mutations: Sequence[FileMutation], loaded: Slice) -> Needs:
    """One round more, once."""
    if loaded.complete:
        return Needs()
    loaded.complete = True
    return more_write_needs(mutations, loaded)


def _name_operations(planned: MutationsPlan, operation_ids: Sequence[str]) -> None:
    for place, operation_id in zip(planned.edit_places, operation_ids, strict=True):
        result = planned.results[place]
        if operation_id and isinstance(result, FileResult):
            planned.results[place] = result._replace(operation_id=operation_id)


def _preview(start: bytes) -> str:
    """The start of a content as text; empty when it is none. A character that the cut halves is left out."""
    try:
        return start.decode()
    except UnicodeDecodeError as error:
        is_cut = len(start) == PREVIEW_BYTES_MAX and error.start >= len(start) - 3
        return start[: error.start].decode() if is_cut else ""


class FileWriter:
    """Queues mutations of files at the node that owns the workspace."""

    def __init__(self, context: PlanContext, kind: FileMutations, committer: Committer, ownership: Ownership) -> None:
        self._committer = committer
        self._ownership = ownership
        self._kind = Once(context, kind, encode_answer, decode_answer, lambda batch: batch.is_withdrawn)

    async def mutate(self, workspace_id: str, batch: WriteBatch, mark: RequestMark | None) -> BatchAnswer:
        """A result for each mutation, once they are durable; a refusal of a single one is raised.

        `WorkspaceNotFound`, `HistoryMismatch`, `Overloaded`, `RequestIdReused`; `NotOwner` elsewhere. A caller that is
        cancelled withdraws the batch: it has no effect unless it was being committed.
        """
        if self._committer.is_full:
            raise Overloaded(what="queue of changes that wait for the disk", retry_after_s=RETRY_AFTER_S)
        key = self._ownership.local_key(workspace_id)
        count = len(batch.mutations)
        size = sum(len(each.content) for each in batch.mutations if isinstance(each, FileWrite))
        batch.answer = self._committer.submit(
            key, self._kind, Asked(batch, mark), change_count=count, byte_count=size + count * BYTES_PER_MUTATION
        )
        try:
            return await batch.answer
        except RelayfileError:
            batch.answer = None  # its traceback leads here: what is refused often must not wait for the collector
            raise
