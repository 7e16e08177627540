"""The grammar of scopes: what the texts in a token grant for one resource and action, by path. Pure.

A scope is ``plane:resource:action[:path]``, split on the first three colons only, so that a path may contain colons.
Planes are ``relayfile`` and ``*``; ``workspace:<label>:<action>[:path]`` grants the resource ``fs``. Resource and
action are equal to what is required, or ``*``; ``manage`` implies read and write, and neither implies it. Paths:

======== ==================================================================
absent   everything, also where no path is required
``*``    the same
``/``    the root node only
``/a/b`` exactly this
``/a/**`` the directory and everything under it
``/a/*`` everything under it, at any depth, and not the directory itself
``/na*`` every path that starts with these characters
======== ==================================================================

Anything else (a star in the middle, ``x**``, no leading slash, empty, ``.`` or ``..`` segments, a trailing slash, an
empty path) matches nothing. A scope of two segments, such as ``fs:read``, is a literal: it satisfies only the identical
requirement, on every path, and nothing at all as soon as one grant with a path for that resource and action exists,
valid or not: whoever narrows a token must not be overruled by what was in it before.

Surrounding white space is trimmed; case counts. Refuses to know requests, files and their rules.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from relayfile.paths import ROOT, contains

SCOPE_PARTS_MAX: Final = 4
_ANY: Final = "*"
_MANAGE: Final = "manage"
_IMPLIED_BY_MANAGE: Final = frozenset({"read", "write", _MANAGE})
_PLANES: Final = frozenset({"relayfile", _ANY})
_CACHED_MAX: Final = 4_096
"""Token's scopes and requirements that are remembered compiled; a node serves few of each."""


class Scope(NamedTuple):
    """One scope, read."""

    resource: str
    action: str
    path: str | None
    """None: none was given. Trimmed, and perhaps of no form that matches anything."""

    def is_for(self, resource: str, action: str) -> bool:
        """Whether it speaks of this resource and action, whatever its path."""
        if self.resource not in (resource, _ANY):
            return False
        return self.action in (action, _ANY) or (self.action == _MANAGE and action in _IMPLIED_BY_MANAGE)


class Grants(NamedTuple):
    """What a caller may touch with one resource and action. Paths that are asked for are normalised."""

    everything: bool = False
    exact: frozenset[str] = frozenset()
    trees: tuple[str, ...] = ()
    """Directories that are granted with everything under them."""
    below: tuple[str, ...] = ()
    """Directories of which everything under them is granted, without themselves."""
    prefixes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self.everything or bool(self.exact or self.trees or self.below or self.prefixes)

    def allow(self, path: str) -> bool:
        """Whether `path` is granted; empty: a requirement without a path."""
        if self.everything or path in self.exact:
            return True
        if not path:
            return False
        return (
            any(contains(tree, path) for tree in self.trees)
            or any(path != above and contains(above, path) for above in self.below)
            or any(map(path.startswith, self.prefixes))
        )

    def cover(self, directory: str) -> bool:
        """Whether everything strictly below `directory` is granted."""
        if self.everything:
            return True
        inside = directory if directory == ROOT else directory + "/"
        return any(contains(tree, directory) for tree in (*self.trees, *self.below)) or any(
            map(inside.startswith, self.prefixes)
        )

    def reach(self, directory: str) -> bool:
        """Whether anything at or below `directory` may be granted."""
        if self.cover(directory) or directory in self.exact:
            return True
        return (
            any(contains(directory, path) for path in (*self.exact, *self.trees, *self.below))
            or directory.startswith(self.prefixes)
            or any(contains(directory, prefix) for prefix in self.prefixes)
        )


NOTHING: Final = Grants()


@lru_cache(maxsize=_CACHED_MAX)
def grants(scopes: tuple[str, ...], requirement: str) -> Grants:
    """What `scopes` grant of `requirement`, for example ``fs:read``."""
    resource, _, action = requirement.partition(":")
    fitting = [scope for scope in map(read_scope, scopes) if scope is not None and scope.is_for(resource, action)]
    everything = any(scope.path is None or scope.path == _ANY for scope in fitting)
    is_narrowed = any(scope.path is not None for scope in fitting)
    if everything or (not is_narrowed and any(scope.strip() == requirement for scope in scopes)):
        return Grants(everything=True)
    return _by_form([scope.path for scope in fitting if scope.path is not None])


def read_scope(text: str) -> Scope | None:
    """The parts of a scope with a plane; None for a literal, and for what is no scope of ours."""
    parts = text.strip().split(":", SCOPE_PARTS_MAX - 1)
    if len(parts) < SCOPE_PARTS_MAX - 1:
        return None
    plane, resource, action = parts[:3]
    if plane == "workspace" and resource:
        resource = "fs"
    elif plane not in _PLANES:
        return None
    return Scope(resource, action, parts[3].strip() if len(parts) == SCOPE_PARTS_MAX else None)


def _by_form(paths: Sequence[str]) -> Grants:
    exact: set[str] = set()
    trees: list[str] = []
    below: list[str] = []
    prefixes: list[str] = []
    for path in paths:
        if path.endswith("/**"):
            trees += _directory(path[:-3])
        elif path.endswith("/*"):
            below += _directory(path[:-2])
        elif path.endswith("*"):
            prefixes += [path[:-1]] if _has_legal_segments(path[:-1], whole=False) else []
        elif path == ROOT or _has_legal_segments(path):
            exact.add(path)
    return Grants(False, frozenset(exact), tuple(trees), tuple(below), tuple(prefixes))


def _directory(stem: str) -> list[str]:
    """What stands before ``/*`` or ``/**``, as a directory; empty when it is none."""
    if not stem:
        return [ROOT]
    return [stem] if _has_legal_segments(stem) else []


def _has_legal_segments(path: str, *, whole: bool = True) -> bool:
    """Absolute, without stars and without segments that no path has; the last segment of a prefix is not `whole`."""
    if not path.startswith("/") or "*" in path:
        return False
    segments = path[1:].split("/")
    return not any(segment in ("", ".", "..") for segment in (segments if whole else segments[:-1]))
