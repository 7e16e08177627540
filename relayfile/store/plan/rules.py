"""What the planner must know of access rules: how many a file has, whether a change touches them, what that tells."""

import json

from relayfile import paths
from relayfile.auth.file_rules import enforceable_count, rules_of
from relayfile.model import NO_SEMANTICS, Semantics
from relayfile.store.plan.rows import FileRow

__all__ = [
    "carried", "carried_by_half", "differ", "enforceable_count", "is_marker", "read_carried", "read_carried_of_other",
    "ruled_anew",
]  # fmt: skip

_OWN, _OTHER = "own", "other"


def differ(old: Semantics | None, new: Semantics | None) -> bool:
    """Whether a file's enforceable rules are others; None stands for a file that is not there."""
    before = old.permissions if old is not None else ()
    after = new.permissions if new is not None else ()
    return before != after and set(rules_of(before)) != set(rules_of(after))


def carried(path: str, semantics: Semantics) -> str | None:
    """The rules that an event of a file carries, as a JSON list; None without any.

    Those of a marker file are its directory's, and hold for as long as it is there.
    """
    permissions = semantics.permissions
    if not permissions or not enforceable_count(permissions) or is_marker(path):
        return None
    return json.dumps([each for each in permissions if rules_of((each,))])


def carried_by_half(rules: str | None, other: str | None) -> str | None:
    """What one half of a move carries: its own rules, and those of the file at the other path, where there are any."""
    if other is None:
        return rules
    return json.dumps({_OWN: [] if rules is None else json.loads(rules), _OTHER: json.loads(other)})


def read_carried(rules: str) -> tuple[str, ...]:
    """The permissions of its file that an event carries."""
    read = json.loads(rules)
    return tuple(read[_OWN] if isinstance(read, dict) else read)


def read_carried_of_other(rules: str) -> tuple[str, ...]:
    """Those of the file at the other path of a move."""
    read = json.loads(rules)
    return tuple(read[_OTHER]) if isinstance(read, dict) else ()


def is_marker(path: str) -> bool:
    """Whether the file at `path` carries the rules of its directory."""
    return path.endswith(paths.ACCESS_MARKER) and paths.name(path) == paths.ACCESS_MARKER


def ruled_anew(path: str, old: FileRow | None, new: FileRow | None) -> str | None:
    """The path at and below which others may read than before this change of a file; None: the same may.

    Of a marker file its directory, of another file itself; that a file comes or goes says everything about itself. The
    event that tells of it comes right before the file's own.
    """
    before = NO_SEMANTICS if old is None else old.semantics
    after = NO_SEMANTICS if new is None else new.semantics
    if before is after or not (before.permissions or after.permissions) or not differ(before, after):
        return None
    if is_marker(path):
        return paths.parent(path)
    return None if old is None or new is None else path
