"""What `.relayfileignore` files say, read and taken into the journal: what they match is ignored from then on.

A file that comes under a rule stays on disk as it is and is nobody's business from then on; when the rule goes, it is
compared with the store's again.
"""

import errno
from collections.abc import Sequence
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.ignore import IGNORE_BYTES_MAX, IGNORE_FILE, IgnoreRules
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import FileRow, FileState

_PAGE_ROWS: Final = 2_000


def read(directory_fd: int, directory: str, rules: IgnoreRules) -> bool:
    """Read the ignore file of an open directory; True when the rules changed. An unreadable one changes nothing."""
    try:
        content = descriptors.read(directory_fd, IGNORE_FILE, IGNORE_BYTES_MAX)
    except OSError as error:
        return error.errno == errno.ENOENT and rules.learn(directory, "")
    return rules.learn(directory, content.decode(errors="replace"))


def begin(mirror: OpenMirror) -> None:
    """Heed the rules of a mirror that was just opened: those of its root at once, nested ones as a scan meets them."""
    read(mirror.root.fd, "", mirror.ignore)
    mirror.journal.ignores = mirror.ignore.covers


async def take_in(mirror: OpenMirror, directory: str) -> None:
    """The rules for what is below ``directory`` changed: mark files as ignored, or no longer."""
    after = ""
    places = mirror.journal.places
    while rows := places.page(directory, after, _PAGE_ROWS):
        after = rows[-1].path
        covered = await mirror.writer.run(_covered, mirror.ignore, rows)
        pairs = list(zip(rows, covered, strict=True))
        mirror.journal.ignore(
            [row.path for row, is_covered in pairs if is_covered and row.state is not FileState.IGNORED],
            [row.path for row, is_covered in pairs if not is_covered and row.state is FileState.IGNORED],
        )


def _covered(rules: IgnoreRules, rows: Sequence[FileRow]) -> list[bool]:
    return [rules.covers(row.path) for row in rows]
