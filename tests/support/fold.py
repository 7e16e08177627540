"""What a tree must be after a series of deliveries, said once more and as briefly as possible.

Per object: the newest provider time wins, a delete wins a tie, otherwise the last arrival; without a provider time the
last arrival wins. Per path: whoever arrived last at it holds it; who lost it comes back only with a newer provider time
than the holder's. Contents are JSON objects, compared by value. Shares no code with the planner and the coalescer.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal["upsert", "delete", "patch"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Arrival:
    """One change of one delivery, as the provider's adapter reads it."""

    object_id: str
    path: str
    kind: Kind
    occurred_us: int | None
    content: Json

    @property
    def is_delete(self) -> bool:
        return self.kind == "delete"


@dataclass(slots=True)
class _Object:
    newest_us: int | None = None
    deleted: bool = False
    path: str = ""
    lost_path: bool = False


@dataclass(slots=True)
class _Tree:
    objects: dict[str, _Object] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)
    contents: dict[str, Json] = field(default_factory=dict)

    def arrive(self, change: Arrival) -> None:
        known = self.objects.setdefault(change.object_id, _Object())
        if self._loses(known, change):
            return
        if change.occurred_us is not None:
            known.newest_us = change.occurred_us
        known.deleted = change.is_delete
        if change.is_delete:
            self._leave(change.object_id, known)
            known.lost_path = False
        else:
            self._place(known, change)

    @staticmethod
    def _loses(known: _Object, change: Arrival) -> bool:
        if change.occurred_us is None or known.newest_us is None:
            return False
        if change.occurred_us == known.newest_us:
            return known.deleted and not change.is_delete
        return change.occurred_us < known.newest_us

    def _place(self, known: _Object, change: Arrival) -> None:
        holder = self.holders.get(change.path)
        if holder not in (None, change.object_id):
            assert holder is not None
            if known.lost_path and not _newer(change.occurred_us, self.objects[holder].newest_us):
                return
            displaced = self.objects[holder]
            displaced.path, displaced.lost_path = "", True
            del self.holders[change.path]
            del self.contents[change.path]
        if known.path not in ("", change.path):
            self._leave(change.object_id, known)
        known.path, known.lost_path = change.path, False
        self.holders[change.path] = change.object_id
        before = self.contents.get(change.path, {}) if known.path == change.path and change.kind == "patch" else {}
        self.contents[change.path] = _merged(before, change.content) if change.kind == "patch" else change.content

    def _leave(self, object_id: str, known: _Object) -> None:
        if known.path and self.holders.get(known.path) == object_id:
            del self.holders[known.path]
            del self.contents[known.path]
        known.path = ""


def _merged(value: Json, patch: Json) -> Json:
    """RFC 7386."""
    result = dict(value)
    for name, new in patch.items():
        if new is None:
            result.pop(name, None)
        elif isinstance(new, dict):
            old = result.get(name)
            result[name] = _merged(old if isinstance(old, dict) else {}, new)
        else:
            result[name] = new
    return result


def _newer(left: int | None, right: int | None) -> bool:
    return left is not None and (right is None or left > right)


def fold(arrivals: Iterable[Arrival]) -> dict[str, Json]:
    """Path to content at the end."""
    arrivals = list(arrivals)
    tree = _Tree()
    for change in arrivals:
        tree.arrive(change)
    _check_against_sorting(arrivals, tree)
    return tree.contents


def _check_against_sorting(arrivals: list[Arrival], tree: _Tree) -> None:
    """The same per object by sorting instead of by walking, where all its changes carry a time."""
    by_object: dict[str, list[tuple[int, bool, int, Arrival]]] = {}
    untimed: set[str] = set()
    for index, change in enumerate(arrivals):
        if change.occurred_us is None:
            untimed.add(change.object_id)
        else:
            by_object.setdefault(change.object_id, []).append((change.occurred_us, change.is_delete, index, change))
    for object_id, changes in by_object.items():
        known = tree.objects[object_id]
        if object_id in untimed:
            continue
        winner = max(changes)[3]
        assert known.deleted == winner.is_delete, object_id
        if known.path:
            assert tree.contents[known.path] == winner.content, object_id
