"""What a provider's changes should do to files: applied, held while edits are on their way, or not taken.

Restricted so that what should happen is plain: every change has a provider time, newer than all before it unless it is
meant to be stale, and no semantics.
"""

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace

from tests.model.operations import DIRECTORY, SECOND_US, UNFINISHED, Operations
from tests.model.workspace import PROVIDER_ORIGIN, File, Workspace

APPLIED, UNCHANGED, STALE, DUPLICATE, DEAD_LETTERED = "applied", "unchanged", "stale", "duplicate", "dead_lettered"
HOLD_US = 30 * SECOND_US
JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class Change:
    """An upsert, or with no content a delete, of one object."""

    object_id: str
    path: str
    """Empty: where the object is."""
    content: bytes | None
    occurred_us: int
    delivery: int


@dataclass(slots=True)
class ProviderObject:
    """What is known of one object."""

    path: str | None = None
    newest_us: int = 0
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
    dead: set[int] = field(default_factory=set)
    """Deliveries that ended as dead letters: delivered again they are tried again."""

    def deliver(self, change: Change) -> str:
        """The outcome of a change that was not delivered before."""
        subject = self.objects.setdefault(change.object_id, ProviderObject())
        self.look(change.object_id)
        if change.occurred_us < subject.newest_us:
            outcome = STALE
        elif subject.path is not None and _is_marker(subject.path):
            # An agent moved the object's file to where access rules are: no provider writes there.
            outcome = DEAD_LETTERED
        elif subject.held is not None or self._is_edited(change.object_id):
            outcome = self._hold(subject, change)
        else:
            outcome = self._apply(subject, change)
        if outcome in (APPLIED, UNCHANGED):
            subject.newest_us = max(subject.newest_us, change.occurred_us)
        elif outcome == DEAD_LETTERED:
            self.dead.add(change.delivery)
        self.outcomes[outcome] += 1
        return outcome

    def look(self, object_id: str) -> None:
        """Where its file is now: agents move and delete it."""
        subject = self.objects[object_id]
        subject.path = next((path for path, file in self.workspace.files.items() if file.object_id == object_id), None)

    def release(self, keys: Collection[str]) -> None:
        """Make files of what was held long enough, or behind edits of these objects of which none is left."""
        for object_id, subject in self.objects.items():
            is_due = subject.held_since_us + HOLD_US <= self.now_us()
            if subject.held is not None and (is_due or ("o:" + object_id in keys and not self._is_edited(object_id))):
                self.look(object_id)
                change, subject.held = subject.held, None
                if self._apply(subject, change) == DEAD_LETTERED:
                    self.outcomes[APPLIED] -= 1
                    self.outcomes[DEAD_LETTERED] += 1
                    self.dead.add(change.delivery)

    def _is_edited(self, object_id: str) -> bool:
        return any(each.key == "o:" + object_id and each.state in UNFINISHED for each in self.operations.made)

    def _hold(self, subject: ProviderObject, change: Change) -> str:
        path = self._target(subject, change)
        own = None if subject.path is None else self.workspace.files[subject.path]
        if change.content is not None and path != subject.path and self.workspace.obstacle(path, subject.path or ""):
            return DEAD_LETTERED
        if subject.held is None:
            if change.content is None and own is None:
                return UNCHANGED
            if own is not None and path == subject.path and (own.content, own.content_type) == (
                change.content, JSON_TYPE,
            ):  # fmt: skip
                return UNCHANGED
            subject.held_since_us = self.now_us()
        subject.held = change
        return APPLIED

    def _apply(self, subject: ProviderObject, change: Change) -> str:
        if subject.path is not None and _is_marker(subject.path):
            return DEAD_LETTERED
        files = self.workspace.files
        own = None if subject.path is None else files[subject.path]
        if change.content is None:
            if subject.path is None:
                return UNCHANGED
            self.workspace.remove(subject.path, PROVIDER_ORIGIN)
            return APPLIED
        path = self._target(subject, change)
        is_moved = own is not None and path != subject.path
        if path != subject.path and self.workspace.obstacle(path, subject.path or ""):
            return DEAD_LETTERED
        there = files.get(path)
        base = own or there
        new = File(change.content, JSON_TYPE, object_id=change.object_id)
        if base is not None:
            new = replace(new, tags=base.tags)
        same = there is not None and (there.content, there.content_type, there.tags) == (
            new.content, new.content_type, new.tags,
        )  # fmt: skip
        if there is not None and same and not is_moved:
            files[path] = replace(there, object_id=change.object_id)
            return UNCHANGED
        if is_moved:
            assert subject.path is not None
            self.workspace.remove(subject.path, PROVIDER_ORIGIN, moved_to=path)
        self.workspace.put(path, new, PROVIDER_ORIGIN, moved_from=(subject.path or "") if is_moved else "")
        return APPLIED

    def _target(self, subject: ProviderObject, change: Change) -> str:
        default = f"/{DIRECTORY}/{change.object_id.replace('/', '_')}.json"
        return change.path or subject.path or default


def _is_marker(path: str) -> bool:
    return path.rpartition("/")[2] == ".relayfile.acl"
