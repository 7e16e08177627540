"""The rules of paths, as pure functions of text.

Owns normalising, containment, what may be written, and the key range of a subtree. Refuses to know a file system: a
path here is a name in a workspace's tree. Paths are case-sensitive and compared byte by byte as UTF-8, which for text
without lone surrogates is the order of Python's ``str``, of SQLite's BINARY and of PostgreSQL's "C" collation.

Functions other than ``normalise`` and ``check_write_path`` expect normalised paths.
"""

import re
from typing import Final, NewType

from relayfile.errors import InvalidPath

TreePath = NewType("TreePath", str)
"""A normalised absolute path: ``/`` or ``/a/b``."""

ROOT: Final = TreePath("/")
PATH_BYTES_MAX: Final = 4096
SEGMENT_BYTES_MAX: Final = 1024
ACCESS_MARKER: Final = ".relayfile.acl"
"""The last segment of a path that carries access rules for its directory."""

_UTF8_BYTES_PER_CHARACTER_MAX = 4
_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]|/(?:\.{1,2})?(?:/|\Z)")


def normalise(raw: str) -> TreePath:
    """``raw`` with a leading slash and without one trailing slash; empty is the root. Nothing else is changed."""
    if not raw:
        return ROOT
    path = raw if raw[0] == "/" else "/" + raw
    return TreePath(path[:-1]) if len(path) > 1 and path[-1] == "/" else TreePath(path)


def contains(base: str, path: str) -> bool:
    """Whether ``path`` is ``base`` or lies below it. ``/github`` does not contain ``/github2``."""
    return base == ROOT or path == base or path.startswith(base + "/")


def check_write_path(path: str) -> str | None:
    """Why nothing may be written at ``path`` (a phrase that completes "it ..."), or None when it may.

    That a directory stands where a file is to be written, or the reverse, only the store can know.
    """
    if path == ROOT or not path:
        return "is the root itself"
    if path[0] != "/":
        return "does not start with /"
    # What nearly every path is, told apart by plain searches: they cost a third of the pattern.
    is_plain = path.isascii() and path.isprintable() and "//" not in path and "/." not in path and "\\" not in path
    if not (is_plain and path[-1] != "/") and _REFUSED.search(path) is not None:
        return _refusal(path)
    if len(path) * _UTF8_BYTES_PER_CHARACTER_MAX > SEGMENT_BYTES_MAX:
        return _length_refusal(path)
    return None


def require_write_path(raw: str) -> TreePath:
    """The normalised form of ``raw``; ``InvalidPath`` when nothing may be written there."""
    path = normalise(raw)
    why = check_write_path(path)
    if why is not None:
        raise InvalidPath(path=path, why=why)
    return path


def segments(path: str) -> tuple[str, ...]:
    """The names from the root down; none for the root."""
    return () if path == ROOT else tuple(path[1:].split("/"))


def name(path: str) -> str:
    """The last segment; empty for the root."""
    return path[path.rfind("/") + 1 :]


def parent(path: str) -> TreePath:
    """The directory that holds ``path``. The root has none: asking for it is a mistake in the caller."""
    assert path != ROOT, "the root has no parent"
    return TreePath(path[: path.rfind("/")] or "/")


def ancestors(path: str) -> tuple[TreePath, ...]:
    """Every directory above ``path``, the nearest first, the root last; none for the root."""
    if path == ROOT:
        return ()
    above: list[TreePath] = []
    end = path.rfind("/")
    while end > 0:
        above.append(TreePath(path[:end]))
        end = path.rfind("/", 0, end)
    above.append(ROOT)
    return tuple(above)


def join(base: str, relative: str) -> TreePath:
    """``relative`` (without a leading slash; empty means ``base``) below ``base``."""
    if not relative:
        return TreePath(base)
    return TreePath(base + relative if base == ROOT else f"{base}/{relative}")


def relative(base: str, path: str) -> str:
    """``path`` as seen from ``base``, which must contain it: without a leading slash, empty for ``base`` itself."""
    assert contains(base, path), (base, path)
    return path[1:] if base == ROOT else path[len(base) + 1 :]


def prefix_range(base: str) -> tuple[str, str]:
    """(low, high) such that exactly what lies strictly below ``base`` has ``low <= path < high``.

    ``0`` is the character after ``/``. The root's own path is its prefix, so its range starts after it: no stored path
    has a character below U+0020.
    """
    if base == ROOT:
        return "/\x01", "0"
    return base + "/", base + "0"


def _refusal(path: str) -> str:
    for character in path:
        if character == "\x00":
            return "contains a NUL"
        if character == "\\":
            return "contains a backslash"
        if character < " " or "\x7f" <= character <= "\x9f":
            return f"contains the control character U+{ord(character):04X}"
        if "\ud800" <= character <= "\udfff":
            return "is not valid UTF-8 (a lone surrogate)"
    return "has an empty segment" if "" in segments(path) else "has a segment that is . or .."


def _length_refusal(path: str) -> str | None:
    if len(path.encode()) > PATH_BYTES_MAX:
        return f"is longer than {PATH_BYTES_MAX} bytes"
    if any(len(segment.encode()) > SEGMENT_BYTES_MAX for segment in segments(path)):
        return f"has a segment of more than {SEGMENT_BYTES_MAX} bytes"
    return None
