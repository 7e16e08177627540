"""Walking a mirror's directory in order of place and comparing it with what the journal says of each place.

Runs in the writer thread, in bounded steps. Directories are opened one below the other and no link is followed (I2).
What cannot be read is unknown, never missing.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from relayfile.syncd import descriptors, ignore_files, names
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.journal_places import Found, Known
from relayfile.syncd.rows import DiskStat

DEPTH_MAX: Final = 256
"""Directories below each other that are walked: each is an open descriptor."""

_Entry: TypeAlias = tuple[str, os.stat_result, int]
"""Place, stat, and the open directory that it is in."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something on disk that cannot be a file of the workspace."""

    place: str
    """As the kernel gave it: undecodable bytes are lone surrogates."""
    reason: str
    message: str


@dataclass(slots=True)
class Compared:
    """What one step found."""

    changed: list[str] = field(default_factory=list)
    """Places where the disk is not what was written: other bytes perhaps, another kind, or nothing was written."""
    new: list[Found] = field(default_factory=list)
    gone: list[Found] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    rules_changed: list[str] = field(default_factory=list)
    """Directories whose ignore file says something new."""
    looked: int = 0
    verified: int = 0
    ended: bool = False
    """Everything was compared; False: more rows are needed, or another step."""


class Walk:
    """A comparison of everything below one directory. ``close`` it. Used by one thread at a time."""

    def __init__(self, root_fd: int, directory: str, rules: IgnoreRules, *, verify: bool = False) -> None:
        self._rules = rules
        self._verify = verify
        self._refused: list[Refusal] = []
        self._rules_changed: list[str] = []
        self._unknown: list[str] = []
        self._open: list[int] = []
        self._entries = self._below(root_fd, directory)
        self._entry: _Entry | None = None
        self._ahead = False
        self._known: list[Known] = []
        self._at = 0

    def close(self) -> None:
        """Let go of the directories."""
        self._entries.close()
        for fd in self._open:
            os.close(fd)
        self._open.clear()

    def step(self, known: Sequence[Known], *, last: bool, looks_max: int) -> Compared:
        """Compare up to ``looks_max`` places. ``known`` follows, in order, what was given before; none: go on.

        ``last`` says that nothing follows. Ends early when it runs out of ``known``.
        """
        self._known = [*self._known[self._at :], *known]
        self._at = 0
        done = Compared()
        while done.looked < looks_max:
            if not self._ahead:
                self._entry, self._ahead = next(self._entries, None), True
            row = self._known[self._at] if self._at < len(self._known) else None
            if row is None and not last:
                break
            if row is None and self._entry is None:
                done.ended = True
                break
            done.looked += 1
            self._compare(row, self._entry, done)
        done.refused, self._refused = self._refused, []
        done.rules_changed, self._rules_changed = self._rules_changed, []
        return done

    @property
    def hungry(self) -> bool:
        """Everything that was given has been compared."""
        return self._at >= len(self._known)

    # --- comparing --------------------------------------------------------------------------------------------------

    def _compare(self, row: Known | None, entry: _Entry | None, done: Compared) -> None:
        if entry is not None and (row is None or entry[0] < row.place):
            self._unmatched(entry, done)
            self._ahead = False
            return
        assert row is not None, "there is one of the two"
        self._at += 1
        if entry is None or row.place < entry[0]:
            if row.stat is not None and not self._is_unknown(row.place):
                done.gone.append(Found(row.place, DiskStat(*row.stat)))
            return
        self._ahead = False
        _, found, directory = entry
        now = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        if now != row.stat or not stat.S_ISREG(found.st_mode):
            done.changed.append(row.place)
        elif self._verify:
            done.verified += 1
            if _hash(directory, row.place) != row.written_hash:
                done.changed.append(row.place)

    def _unmatched(self, entry: _Entry, done: Compared) -> None:
        place, found, _ = entry
        if not stat.S_ISREG(found.st_mode):
            kind = "A symbolic link" if stat.S_ISLNK(found.st_mode) else "Something that is no regular file"
            self._refused.append(Refusal(place, "NOT_A_REGULAR_FILE", f"{kind} is not mirrored; it is left alone."))
            return
        done.new.append(Found(place, descriptors.stat_of(found)))

    def _is_unknown(self, place: str) -> bool:
        return any(contains(each, place) for each in self._unknown) or self._rules.excludes_below(place)

    # --- walking ----------------------------------------------------------------------------------------------------

    def _below(self, root_fd: int, directory: str) -> Generator[_Entry, None, None]:
        try:
            fd = descriptors.open_beneath(root_fd, directory)
        except FileNotFoundError:
            return
        except OSError as error:
            self._cannot_read(directory, error)
            return
        self._open.append(fd)
        yield from self._entries_of(fd, directory + "/" if directory else "")

    def _entries_of(self, fd: int, prefix: str) -> Generator[_Entry, None, None]:
        try:
            ordered = self._ordered(fd, prefix)
        except OSError as error:
            self._cannot_read(prefix[:-1], error)
            return
        for key in ordered:
            if key[-1] == "/":
                yield from self._directory(fd, prefix, key[:-1])
                continue
            try:
                found = os.stat(key, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._cannot_read(prefix + key, error)
                continue
            if not stat.S_ISDIR(found.st_mode):  # else it became one meanwhile
                yield prefix + key, found, fd
            else:
                self._unknown.append(prefix + key)

    def _ordered(self, fd: int, prefix: str) -> list[str]:
        """Names, directories with a slash behind them, so that they sort as the places below them do."""
        rules = self._rules
        ordered: list[str] = []
        if ignore_files.read(fd, prefix[:-1], rules):
            self._rules_changed.append(prefix[:-1])
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if rules.excludes(prefix + name, directory=is_directory):
                    continue
                why = names.refusal(f"/{prefix}{name}")
                if why is not None:
                    self._refused.append(Refusal(prefix + name, "NAME_REFUSED", f"The name {why}."))
                else:
                    ordered.append(name + "/" if is_directory else name)
        ordered.sort()
        return ordered

    def _directory(self, above: int, prefix: str, name: str) -> Generator[_Entry, None, None]:
        if len(self._open) >= DEPTH_MAX:
            self._refused.append(Refusal(prefix + name, "TOO_DEEP", f"Only {DEPTH_MAX} directories deep is mirrored."))
            self._unknown.append(prefix + name)
            return
        try:
            fd = descriptors.open_beneath(above, name)
        except FileNotFoundError:
            return
        except OSError as error:
            self._cannot_read(prefix + name, error)
            return
        self._open.append(fd)
        yield from self._entries_of(fd, f"{prefix}{name}/")
        self._open.pop()
        os.close(fd)

    def _cannot_read(self, place: str, error: OSError) -> None:
        self._unknown.append(place)
        reason = "PERMISSION_DENIED" if error.errno in (errno.EACCES, errno.EPERM) else "IO_ERROR"
        message = f"It cannot be read ({error.strerror}); what was known of it is taken as it was."
        self._refused.append(Refusal(place, reason, message))


def contains(directory: str, place: str) -> bool:
    """Whether ``place`` is ``directory`` (empty: the root) or below it."""
    return not directory or place == directory or place.startswith(directory + "/")


def _hash(directory: int, place: str) -> bytes | None:
    """The hash of a file, None when it cannot be read."""
    digest = hashlib.sha256()
    try:
        for piece in descriptors.chunks(directory, descriptors.split(place)[1]):
            digest.update(piece)
    except OSError:
        return None
    return digest.digest()
