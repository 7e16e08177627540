"""`.relayfile/problems/<path>.json`: why a path is not as expected, where an agent that works on it looks.

Owns the directory. It agrees with the list of problems after each batch of changes, up to a bound. Nothing else is
written there, and nothing is followed (I2): what stands in the way is left, and the list has the problem all the same.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from relayfile.syncd import descriptors, names
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.journal import Journal
from relayfile.syncd.root import PROBLEMS, remove_tree
from relayfile.syncd.rows import Problem
from relayfile.syncd.writer import Writer

FILES_MAX: Final = 1_000
_SUFFIX: Final = ".json"
_HASH_HEX: Final = 32


class ProblemFiles:
    """Of one opened mirror."""

    def __init__(self, own_fd: int, journal: Journal, writer: Writer) -> None:
        """``own_fd``: of `.relayfile/`. What an earlier run left there is removed at the first ``agree``."""
        self._own_fd = own_fd
        self._journal = journal
        self._writer = writer
        self._seen = -1
        self._written: dict[str, bytes] = {}

    async def agree(self) -> None:
        """Write and remove what has changed since the last time."""
        problems = self._journal.problems
        if problems.changes == self._seen:
            return
        seen, first = problems.changes, self._seen < 0
        wanted = contents([each for each in problems.page(None, FILES_MAX) if each.path])
        changed = {name: content for name, content in wanted.items() if self._written.get(name) != content}
        gone = [name for name in self._written if name not in wanted]
        if first or changed or gone:
            await self._writer.run(_write, self._own_fd, changed, gone, first)
        self._written, self._seen = wanted, seen


def contents(problems: Sequence[Problem]) -> dict[str, bytes]:
    """File name, relative to the directory, to what it says. Pure."""
    by_path: dict[str, list[Problem]] = {}
    for each in problems:
        by_path.setdefault(each.path, []).append(each)
    return {_name(path): _content(path, found) for path, found in by_path.items()}


def _name(path: str) -> str:
    if names.refusal(path) is None:
        shortened = names.shortened(path)
        parent, last = split(shortened)
        if len(last.encode()) + len(_SUFFIX) <= names.NAME_BYTES_MAX:
            return f"{parent}/{last}{_SUFFIX}" if parent else last + _SUFFIX
    return f"~{hashlib.sha256(path.encode(errors='surrogatepass')).hexdigest()[:_HASH_HEX]}{_SUFFIX}"


def _content(path: str, problems: Sequence[Problem]) -> bytes:
    told = [
        {
            "reason": each.reason,
            "message": each.message,
            "since": _time(each.create_time_us),
            "last_attempt": _time(each.attempt_time_us or each.create_time_us),
            "attempts": each.attempt_count,
            "revision": each.revision,
        }
        for each in problems
    ]
    return json.dumps({"path": path, **told[0], "more": told[1:]}, indent=1).encode() + b"\n"


def _write(own_fd: int, changed: Mapping[str, bytes], gone: Sequence[str], first: bool) -> None:
    if first:
        with contextlib.suppress(OSError):
            remove_tree(own_fd, PROBLEMS)
    with Directories(own_fd) as directories:
        for name in gone:
            _remove(directories, f"{PROBLEMS}/{name}")
        for name, content in changed.items():
            parent, last = split(f"{PROBLEMS}/{name}")
            try:
                directory = directories.make(parent)
                descriptors.create(directory, last + ".new", content)
                os.rename(last + ".new", last, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                continue  # no room, or a name in the way: the list and the status file have it


def _remove(directories: Directories, path: str) -> None:
    parent, last = split(path)
    try:
        os.unlink(last, dir_fd=directories.get(parent))
        while parent != PROBLEMS:
            directories.drop(parent)
            above, last = split(parent)
            os.rmdir(last, dir_fd=directories.get(above))
            parent = above
    except OSError:
        return  # gone already, or others are still in the directory


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat()
