"""Agents' edits become operations, in the plan of the entry that makes them.

Owns which edits: those of files that are bound to an object, and those below the directory of a provider that is known,
by name or because the workspace has had a delivery of it. Everything else is an ordinary file.
"""

from collections.abc import Mapping, Sequence

from relayfile.model import NO_SEMANTICS, Origin, Semantics
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.operation_view import OperationView
from relayfile.store.plan.agent_edits import AgentEdit, EditKind
from relayfile.store.plan.holding import is_awaited
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import FileRow, ObjectKey
from relayfile.store.plan.rules import enforceable_count
from relayfile.store.plan.slice import Slice
from relayfile.store.plan.writeback.edits import Edit, queue_edit
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.plan.writeback.quarantine import new_deletes, quarantine
from relayfile.store.plan.writeback.queue import OperationQueue
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, ProviderKnown
from relayfile.wire import is_provider_name

_KINDS: Mapping[EditKind, OperationKind] = {
    EditKind.WRITE: OperationKind.WRITE,
    EditKind.DELETE: OperationKind.DELETE,
    EditKind.MOVE: OperationKind.MOVE,
}


class EditsToOperations:
    """An `EditsHook`."""

    def __init__(self, context: PlanContext, limits: WritebackLimits, providers: frozenset[str]) -> None:
        """`providers`: those whose directories are known in every workspace."""
        self._context = context
        self._limits = limits
        self._providers = providers

    async def __call__(
        self, key: WorkspaceKey, _loaded: Slice, edits: Sequence[AgentEdit], plan: Plan
    ) -> Sequence[str]:
        async with self._context.engine.view(key) as whole:
            view = whole.operations()
            trees = {name: await self._is_known(view, name) for name in _names(edits)}
            wanted = [_edits_of(edit, trees) for edit in edits]
            objects = {each.key for parts in wanted for each in parts}
            if not objects:
                return [""] * len(edits)
            objects.update(ObjectKey(each.key.provider, "p:" + each.path) for parts in wanted for each in parts)
            loaded = await view.of_objects(objects)
            rows = [row for found in loaded.rows.values() for row in found]
            queue = OperationQueue(rows, self._limits, self._context.clock.now_us(), self._context.new_id)
            ids = [_queue_all(queue, parts) for parts in wanted]
            if new_deletes(queue):
                await self._guard(view, queue)
            for held in loaded.held:
                if not is_awaited(queue.of(held)):
                    queue.free(held)
        queue.settle(plan)
        return ids

    async def _guard(self, view: OperationView, queue: OperationQueue) -> None:
        """Too many deletes wait for an approval."""
        limit = self._limits.quarantine_deletes
        recent = await view.recent_deletes(queue.now_us - self._limits.quarantine_us, limit + 1)
        if recent + len(new_deletes(queue)) > limit:
            quarantine(queue, recent, await view.open_quarantine(), await view.pending_deletes())

    async def _is_known(self, view: OperationView, provider: str) -> bool:
        return provider in self._providers or (is_provider_name(provider) and await view.is_seen(provider))


def _names(edits: Sequence[AgentEdit]) -> set[str]:
    """Top-level directories of files without an object."""
    paths = [path for edit in edits if not edit.object_key for path in (edit.path, edit.moved_from) if path]
    return {name for path in paths if (name := _top(path))}


def _top(path: str) -> str:
    """The top-level directory; empty for a file in the root."""
    name, slash, _ = path[1:].partition("/")
    return name if slash else ""


def _edits_of(edit: AgentEdit, trees: Mapping[str, bool]) -> list[Edit]:
    """What the providers are to hear of an edit: nothing, one thing, or of a draft that changes its provider two."""
    kind = _KINDS[edit.kind]
    if edit.object_key:
        return [_edit(edit, kind, ObjectKey(edit.provider, edit.object_key), is_draft=False)]
    here = _top(edit.path) if trees.get(_top(edit.path)) else ""
    if kind is not OperationKind.MOVE:
        return [_edit(edit, kind, ObjectKey(here, "p:" + edit.path), is_draft=True)] if here else []
    before = _top(edit.moved_from) if trees.get(_top(edit.moved_from)) else ""
    if here and here == before:
        return [_edit(edit, kind, ObjectKey(here, "p:" + edit.moved_from), is_draft=True)]
    parts = []
    if before:
        left = _edit(edit, OperationKind.DELETE, ObjectKey(before, "p:" + edit.moved_from), is_draft=True)
        parts.append(left._replace(path=edit.moved_from, moved_from=""))
    if here:
        new = _edit(edit, OperationKind.WRITE, ObjectKey(here, "p:" + edit.path), is_draft=True)
        parts.append(new._replace(moved_from="", base_revision=0))
    return parts


def _edit(edit: AgentEdit, kind: OperationKind, key: ObjectKey, *, is_draft: bool) -> Edit:
    after = None if kind is OperationKind.DELETE else edit.after
    return Edit(
        kind=kind,
        key=key,
        path=edit.path,
        revision=edit.revision,
        base_revision=edit.base_revision,
        actor=edit.actor,
        is_draft=is_draft,
        moved_from=edit.moved_from,
        content_sha256=b"" if after is None else after.content_sha256,
        size_bytes=0 if after is None else after.size_bytes,
        content_type="" if after is None else after.content_type,
        semantics=_rules_left(edit.before) if after is None else after.semantics,
        known=_known(edit.before),
        correlation_id=edit.correlation_id,
        traceparent=edit.traceparent,
    )


def _rules_left(before: FileRow | None) -> Semantics:
    """What stays with the delete of a file: whoever could not read it does not see that either."""
    if before is None or before.semantics is NO_SEMANTICS or not enforceable_count(before.semantics.permissions):
        return NO_SEMANTICS
    return Semantics(permissions=before.semantics.permissions)


def _known(before: FileRow | None) -> ProviderKnown | None:
    if before is None or before.origin is not Origin.PROVIDER:
        return None
    return ProviderKnown(before.content_sha256, before.size_bytes, before.content_type)


def _queue_all(queue: OperationQueue, parts: Sequence[Edit]) -> str:
    """The id of the operation that carries the last of them; empty when the provider need not hear of it."""
    row: OperationRow | None = None
    for edit in parts:
        row = queue_edit(queue, edit)
    return "" if row is None else row.operation_id
