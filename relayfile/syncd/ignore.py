"""Which names a mirror leaves alone (I9): `.git` and the like, and what `.relayfileignore` files say. No I/O.

The rules have gitignore's syntax and meaning, files nested in directories included, and concern both sides: what they
match is neither pushed nor materialised. Names that editors and systems use for a moment (``is_transient``) are another
matter: new ones are not pushed, but a file of the store with such a name is a file like any other.
"""

import re
from fnmatch import translate
from typing import Final

from pathspec import GitIgnoreSpec

from relayfile.syncd import names

IGNORE_FILE: Final = ".relayfileignore"
IGNORE_BYTES_MAX: Final = 256 * 1024
"""A larger ignore file is not read."""
PATTERNS_MAX: Final = 2_000
"""Lines of one ignore file that count."""
STARS_MAX: Final = 3
"""Stars in one segment of a pattern, and `**` segments; a line with more is no pattern."""

TRANSIENT: Final = (
    "*~",  # backups of vim, emacs, gedit
    "4913",  # vim asks whether it may write here
    "*.sw[opx]",  # vim
    ".#*",  # emacs: locks
    "#*#",  # emacs: unsaved
    ".~lock.*#",  # LibreOffice
    "~$*",  # Microsoft Office
    ".goutputstream-*",  # GLib
    "*___jb_tmp___",  # JetBrains
    "*___jb_old___",
    ".nfs[0-9a-f]*",  # NFS: removed while open
    ".fuse_hidden*",
    ".DS_Store",
    "._*",  # macOS, on file systems that are not its own
    "Thumbs.db",
    "desktop.ini",
)

_transient = re.compile("|".join(translate(pattern) for pattern in TRANSIENT))


def is_transient(path: str) -> bool:
    """Whether the last segment of ``path`` is a name that editors and systems use for a moment."""
    return _transient.match(path[path.rfind("/") + 1 :]) is not None


class IgnoreRules:
    """The rules of one mirror, by the directory whose ignore file says them. ``version`` changes when they do."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._specs: dict[str, GitIgnoreSpec] = {}
        self.version = 0

    def learn(self, directory: str, text: str) -> bool:
        """What the ignore file of ``directory`` (relative, empty: the root) says now; empty: there is none.

        True when it said something else before. A line that is no pattern says nothing, as in git.
        """
        if self._texts.get(directory, "") == text:
            return False
        self._texts.pop(directory, None)
        self._specs.pop(directory, None)
        spec = parsed(text)
        if text:
            self._texts[directory] = text
        if spec is not None:
            self._specs[directory] = spec
        self.version += 1
        return True

    def directories(self) -> list[str]:
        """Directories that have an ignore file."""
        return sorted(self._texts)

    def excludes(self, path: str, *, directory: bool) -> bool:
        """Whether a disk path, none of whose directories is excluded, is left alone."""
        name = path[path.rfind("/") + 1 :]
        if name[:1] == "." and names.fold(name) in names.NEVER_MATERIALISED:
            return True
        return bool(self._specs) and self._matches(path, directory)

    def excludes_below(self, path: str) -> bool:
        """Whether a file is left alone, because of itself or of a directory above it."""
        at = path.find("/")
        while at >= 0:
            if self.excludes(path[:at], directory=True):
                return True
            at = path.find("/", at + 1)
        return self.excludes(path, directory=False)

    def covers(self, path: str) -> bool:
        """Whether a remote path is left alone."""
        return names.is_ignored(path) or (bool(self._specs) and self.excludes_below(path[1:]))

    def _matches(self, path: str, directory: bool) -> bool:
        """The nearest ignore file that has something to say decides."""
        asked = path + "/" if directory else path
        above = path
        while above:
            above = above.rpartition("/")[0]
            spec = self._specs.get(above)
            if spec is not None:
                said = spec.check_file(asked[len(above) + 1 :] if above else asked).include
                if said is not None:
                    return said
        return False


def parsed(text: str) -> GitIgnoreSpec | None:
    """The patterns of an ignore file; None when it has none. Never raises: a line that is no pattern is passed over."""
    spec = GitIgnoreSpec.from_lines([line for line in text.splitlines()[:PATTERNS_MAX] if _is_pattern(line)])
    return spec if any(pattern.include is not None for pattern in spec.patterns) else None


def _is_pattern(line: str) -> bool:
    """Whether a line can be used, and at a bounded price: time grows with a name's length to the power of its stars."""
    segments = line.split("/")
    if segments.count("**") > STARS_MAX or any(each.count("*") > STARS_MAX for each in segments):
        return False
    try:
        GitIgnoreSpec.from_lines([line])
    except Exception:  # noqa: BLE001 - whatever a pattern library makes of a person's line, the others count
        return False
    return True
