"""What a provider's changes should do to files: applied, held while edits are on their way, or not taken.

Restricted so that what should happen is plain: changes bring no semantics, and each that has a provider time has
another one.
"""

import json
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from tests.model.operation import DELETE, DIRECTORY, FETCH, ON_THE_WAY, SECOND_US, Operation
from tests.model.operations import Operations
from tests.model.workspace import PROVIDER_ORIGIN, SYSTEM, File, Workspace

APPLIED, UNCHANGED, STALE, DUPLICATE, SUPPRESSED, DEAD_LETTERED = (
    "applied", "unchanged", "stale", "duplicate", "suppressed", "dead_lettered",
)  # fmt: skip
UPSERTED, DELETED, PATCHED, SIGNALLED = "upsert", "delete", "patch", "signal"
HOLD_US = 30 * SECOND_US
JSON_TYPE = "application/json"
DRAFTS = "/_new/"


@dataclass(frozen=True, slots=True)
class Change:
    """One change of one object."""

    kind: str
    object_id: str
    path: str
    """Empty: where the object is."""
    content: bytes
    """Of a patch its document."""
    occurred_us: int | None
    """None: the provider does not say, and it came after all others."""
    delivery: int = 0
    content_type: str = JSON_TYPE
    operation_id: str = ""
    """The operation that it says it echoes."""
    correlation_id: str = ""
    """The same, by what joins them."""


@dataclass(slots=True)
class ProviderObject:
    """What is known of one object."""

    path: str | None = None
    newest_us: int = 0
    """Of all changes."""
    full_us: int = 0
    """Of upserts and deletes, with which patches are compared."""
    patched_us: dict[str, int] = field(default_factory=dict)
    displaced_from: str | None = None
    """Where another object has taken its path."""
    held: Change | None = None
    held_since_us: int = 0


@dataclass(slots=True)
class Provider:
    """All objects of a workspace."""

    workspace: Workspace
    operations: Operations
    now_us: Callable[[], int]
    objects: dict[str, ProviderObject] = field(default_factory=dict)
    outcomes: Counter[str] = field(default_factory=Counter)
    recorded: dict[int, str] = field(default_factory=dict)
    """The outcome of each delivery."""
    dead: dict[int, Change] = field(default_factory=dict)
    """Of the deliveries whose outcome is a dead letter, what is kept: of what was held what it had become."""

    left_by_answers: int = 0
    """Dead letters of what workers brought."""

    def deliver(self, change: Change) -> str:
        """The outcome of a change in another envelope than all before."""
        before = self.recorded.get(change.delivery)
        if before is not None:
            self.outcomes[DUPLICATE] += 1
            if before != DEAD_LETTERED:
                return DUPLICATE
            # Not final: it is tried again, and of the two the first is the duplicate.
            self.outcomes[DEAD_LETTERED] -= 1
        return self._record(change)

    def replay(self, delivery: int) -> str:
        """The outcome of a dead letter that is tried once more."""
        self.outcomes[DEAD_LETTERED] -= 1
        return self._record(self.dead[delivery])

    def _record(self, change: Change) -> str:
        outcome = self._deliver(change)
        self.outcomes[outcome] += 1
        self.recorded[change.delivery] = outcome
        self.dead.pop(change.delivery, None)
        if outcome == DEAD_LETTERED:
            self.dead[change.delivery] = change
        return outcome

    def look(self, object_id: str) -> ProviderObject:
        """An object, and where its file is now: agents move and delete it."""
        subject = self.objects.setdefault(object_id, ProviderObject())
        subject.path = next((path for path, file in self.workspace.files.items() if file.object_id == object_id), None)
        return subject

    def answered(self, row: Operation, change: Change) -> bool:
        """Take what the worker of an operation says that the provider has; False: it cannot be placed."""
        subject = self.look(change.object_id)
        signalled_us = subject.newest_us
        if row.kind == FETCH:
            # What signals have asked for is not older than they are.
            subject.newest_us = subject.full_us
        outcome = self._taken(subject, change, other=row)
        subject.newest_us = max(subject.newest_us, signalled_us)
        path = self.look(change.object_id).path
        if path is not None and self.operations.waiting_fetch("o:" + change.object_id) is not None:
            # The next signal came before this answer.
            self.workspace.files[path] = replace(self.workspace.files[path], is_stale=True)
        return outcome != DEAD_LETTERED

    def acknowledged(self, row: Operation, at_us: int) -> None:
        """An edit reached the provider at this time of it."""
        subject = self.look(row.key[2:])
        subject.newest_us = max(subject.newest_us, at_us)
        subject.full_us = max(subject.full_us, at_us)

    def release(self, keys: Collection[str], answered_us: int | None = None) -> None:
        """Make files of what was held long enough, or behind edits of these objects of which none is left.

        What is older than the provider's answer to an edit is dropped.
        """
        for object_id, subject in self.objects.items():
            is_due = subject.held_since_us + HOLD_US <= self.now_us()
            is_named = "o:" + object_id in keys
            change = subject.held
            if change is None:
                continue
            self.look(object_id)
            if is_named and answered_us is not None and (change.occurred_us or answered_us) < answered_us:
                subject.held = None
                self._keep_stale(subject)
            elif is_due or (is_named and not self._is_edited(object_id)):
                subject.held = None
                if self._release(subject, change) == DEAD_LETTERED:
                    self._bury(change)

    def link(self, row: Operation, object_id: str, canonical_path: str) -> None:
        """The provider has named a draft."""
        workspace, draft_path = self.workspace, row.key[2:]
        subject = self.look(object_id)
        draft = workspace.files.get(draft_path)
        path = subject.path or draft_path
        if draft is not None and not draft.object_id:
            if subject.path is not None:
                workspace.remove(draft_path, SYSTEM)
            else:
                wanted = canonical_path or (_default(object_id) if DRAFTS in draft_path else draft_path)
                is_free = wanted not in workspace.files and not workspace.obstacle(wanted, leaving=draft_path)
                bound = replace(draft, object_id=object_id)
                subject.displaced_from = None
                if wanted == draft_path or not is_free:
                    workspace.files[draft_path] = bound
                else:
                    path = wanted
                    workspace.remove(draft_path, SYSTEM, moved_to=path)
                    workspace.put(path, bound, SYSTEM, moved_from=draft_path)
        self.operations.follow(row.key, "o:" + object_id, draft_path, path)

    # ---

    def _bury(self, change: Change) -> None:
        """What was held has become a dead letter. What came with an answer was counted nowhere until now."""
        self.outcomes[DEAD_LETTERED] += 1
        if not change.delivery:
            self.left_by_answers += 1
        else:
            self.outcomes[APPLIED] -= 1
            self.recorded[change.delivery], self.dead[change.delivery] = DEAD_LETTERED, change

    def _deliver(self, change: Change) -> str:
        subject = self.look(change.object_id)
        if self._is_echo(change):
            self._advance(subject, change, {})
            return SUPPRESSED
        return self._taken(subject, change)

    def _taken(self, subject: ProviderObject, change: Change, other: Operation | None = None) -> str:
        """Applied or held. `other`: the operation that the change ends."""
        at_us = change.occurred_us
        if at_us is not None and at_us < (subject.full_us if change.kind == PATCHED else subject.newest_us):
            return STALE
        if subject.path is not None and _is_marker(subject.path):
            # An agent moved the object's file to where access rules are: no provider writes there.
            return DEAD_LETTERED
        fresh: dict[str, Any] = {}
        is_held = change.kind != SIGNALLED and (subject.held is not None or self._is_edited(change.object_id, other))
        if change.kind == PATCHED:
            given = json.loads(change.content)
            fresh = {
                key: value for key, value in given.items() if at_us is None or at_us >= subject.patched_us.get(key, 0)
            }
            if not fresh:
                return STALE
            merged = self._merged(subject, change, fresh, is_held=is_held)
            if merged is None:
                return DEAD_LETTERED
            outcome = self._hold(subject, merged) if is_held else self._put(subject, merged, is_full=False)
        else:
            outcome = self._hold(subject, change) if is_held else self._apply(subject, change)
            if change.kind in (UPSERTED, DELETED) and outcome in (APPLIED, UNCHANGED) and other is None:
                self.operations.cancel_fetch("o:" + change.object_id)
        if outcome in (APPLIED, UNCHANGED):
            self._advance(subject, change, fresh)
        return outcome

    def _advance(self, subject: ProviderObject, change: Change, fresh: dict[str, Any]) -> None:
        at_us = change.occurred_us
        if at_us is None:
            return
        subject.newest_us = max(subject.newest_us, at_us)
        if change.kind in (UPSERTED, DELETED):
            subject.full_us = max(subject.full_us, at_us)
        for key in fresh:
            subject.patched_us[key] = max(subject.patched_us.get(key, 0), at_us)

    def _is_echo(self, change: Change) -> bool:
        return any(
            each.key == "o:" + change.object_id and each.is_echoed_at(self.now_us()) and _is_result(each, change)
            for each in self.operations.made
            if change.operation_id in ("", each.operation_id)
            and change.correlation_id in ("", each.correlation_id)
            and (change.operation_id or change.correlation_id)
        )  # fmt: skip

    def _is_edited(self, object_id: str, other: Operation | None = None) -> bool:
        return any(
            each.key == "o:" + object_id and each.kind != FETCH and each.state in ON_THE_WAY and each is not other
            for each in self.operations.made
        )

    def _merged(
        self, subject: ProviderObject, change: Change, fresh: dict[str, Any], *, is_held: bool
    ) -> Change | None:
        """The upsert that a patch amounts to; None: it is of no JSON."""
        own = None if subject.path is None else self.workspace.files[subject.path]
        base, content_type = (None, JSON_TYPE) if own is None else (own.content, own.content_type)
        if is_held and subject.held is not None:
            base, content_type = subject.held.content, subject.held.content_type
            if subject.held.kind == DELETED:
                base, content_type = None, JSON_TYPE
        elif not is_held and own is None:
            there = self.workspace.files.get(self._target(subject, change))
            if there is not None and not there.object_id:
                base, content_type = there.content, there.content_type
        try:
            before = {} if base is None else json.loads(base)
        except ValueError:
            return None
        after = _patched(before, fresh)
        content = base if base is not None and after == before else _written(after)
        return replace(change, kind=UPSERTED, content=content, content_type=content_type)

    def _hold(self, subject: ProviderObject, change: Change) -> str:
        held = subject.held
        if change.kind == UPSERTED and held is not None and held.kind == UPSERTED and not change.path:
            change = replace(change, path=held.path)  # Where the object is to be.
        path = self._target(subject, change)
        own = None if subject.path is None else self.workspace.files[subject.path]
        if change.kind == UPSERTED and path != subject.path and self.workspace.obstacle(path, subject.path or ""):
            return DEAD_LETTERED
        if held is None:
            if change.kind == DELETED and own is None:
                return UNCHANGED
            if (
                own is not None
                and path == subject.path
                and change.kind == UPSERTED
                and (own.content, own.content_type) == (change.content, change.content_type)
            ):
                return UNCHANGED
            subject.held_since_us = self.now_us()
        subject.held = change
        return APPLIED

    def _release(self, subject: ProviderObject, change: Change) -> str:
        if subject.path is not None and _is_marker(subject.path):
            return DEAD_LETTERED
        if subject.path is None:
            stale = self.operations.waiting_fetch("o:" + change.object_id) is not None
        else:
            stale = self.workspace.files[subject.path].is_stale and self._is_fetched(change.object_id)
        if change.kind == DELETED:
            return self._delete(subject)
        outcome = self._put(subject, change, is_full=True)
        if outcome != DEAD_LETTERED and stale:
            path = self.look(change.object_id).path
            assert path is not None
            self.workspace.files[path] = replace(self.workspace.files[path], is_stale=True)
        return outcome

    def _keep_stale(self, subject: ProviderObject) -> None:
        """What was held answers signals before it also when the provider's answer to an edit is newer still."""
        if subject.path is None:
            return
        file = self.workspace.files[subject.path]
        if file.is_stale and not self._is_fetched(file.object_id):
            self.workspace.files[subject.path] = replace(file, is_stale=False)

    def _is_fetched(self, object_id: str) -> bool:
        """Whether a fetch is on its way: what a signal has told is still to come."""
        return any(
            each.key == "o:" + object_id and each.kind == FETCH and each.state in ON_THE_WAY
            for each in self.operations.made
        )

    def _apply(self, subject: ProviderObject, change: Change) -> str:
        if change.kind == DELETED:
            return self._delete(subject)
        if change.kind == UPSERTED:
            return self._put(subject, change, is_full=True)
        files, path = self.workspace.files, subject.path
        revision = 0
        if path is not None:
            files[path] = replace(files[path], is_stale=True)
            revision = files[path].revision
        self.operations.signal("o:" + change.object_id, path or self._target(subject, change), revision)
        return APPLIED

    def _delete(self, subject: ProviderObject) -> str:
        if subject.path is None:
            return UNCHANGED
        self.workspace.remove(subject.path, PROVIDER_ORIGIN)
        return APPLIED

    def _put(self, subject: ProviderObject, change: Change, *, is_full: bool) -> str:
        files = self.workspace.files
        own = None if subject.path is None else files[subject.path]
        path = self._target(subject, change)
        if path != subject.path and self.workspace.obstacle(path, subject.path or ""):
            return DEAD_LETTERED
        there = files.get(path)
        holder = None if there is None or there.object_id in ("", change.object_id) else self.look(there.object_id)
        if holder is not None and subject.displaced_from == path and not _is_newer(change, holder):
            return STALE
        base = own or there
        new = File(change.content, change.content_type, object_id=change.object_id)
        if base is not None:
            new = replace(new, tags=base.tags, is_stale=base.is_stale and not is_full)
        is_moved = own is not None and path != subject.path
        same = there is not None and (there.content, there.content_type, there.tags) == (
            new.content, new.content_type, new.tags,
        )  # fmt: skip
        if holder is not None:
            holder.displaced_from = path
        subject.displaced_from = None
        if there is not None and same and not is_moved:
            files[path] = replace(there, object_id=change.object_id, is_stale=new.is_stale)
            return UNCHANGED
        if is_moved:
            assert subject.path is not None
            self.workspace.remove(subject.path, PROVIDER_ORIGIN, moved_to=path)
        self.workspace.put(path, new, PROVIDER_ORIGIN, moved_from=(subject.path or "") if is_moved else "")
        return APPLIED

    def _target(self, subject: ProviderObject, change: Change) -> str:
        return change.path or subject.path or _default(change.object_id)


def _is_newer(change: Change, holder: ProviderObject) -> bool:
    """By the provider's clock, which both must have told."""
    return change.occurred_us is not None and bool(holder.newest_us) and change.occurred_us > holder.newest_us


def _is_result(row: Operation, change: Change) -> bool:
    """Whether the change brings what the operation brought."""
    if row.kind == FETCH:
        return False
    if change.kind in (SIGNALLED, DELETED):
        return change.kind == SIGNALLED or row.kind == DELETE
    if change.kind == PATCHED or row.kind == DELETE or change.path not in ("", row.path):
        return False
    return change.content in (row.content, row.result)


def _patched(before: Any, patch: Any) -> Any:
    """RFC 7386, as it stands there."""
    if not isinstance(patch, dict):
        return patch
    after = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            after.pop(key, None)
        else:
            after[key] = _patched(after.get(key), value)
    return after


def _written(value: Any) -> bytes:
    """The form of JSON files that the store writes itself: sorted, indented by two."""
    return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def _default(object_id: str) -> str:
    return f"/{DIRECTORY}/{object_id.replace('/', '_')}.json"


def _is_marker(path: str) -> bool:
    return path.rpartition("/")[2] == ".relayfile.acl"
