"""A scan: the disk held against the journal in order of place, told as local changes (`local_changes.py`).

What is told is a hint like the watcher's: the scan holds no turn, and whoever acts on it looks again. Memory is
bounded: rows come by pages, the disk by steps of the writer thread, and what may turn out to be renamed waits in the
journal's temporary tables. Owns the list of names on disk that cannot be files of the workspace.
"""

import os
import stat
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from relayfile.paths import contains as below
from relayfile.syncd import descriptors, names
from relayfile.syncd.ignore import IGNORE_FILE, is_transient
from relayfile.syncd.ignore_files import take_in
from relayfile.syncd.journal_places import Found
from relayfile.syncd.local_changes import CHANGES_MAX, LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import Problem
from relayfile.syncd.walk import Compared, Refusal, Walk, contains

PAGE_ROWS: Final = 1_000
LOOKS_MAX: Final = 2_000
"""Places that one step of the writer thread compares."""


@dataclass(slots=True)
class Scanned:
    """What a scan has come to so far."""

    looked_count: int = 0
    verified_count: int = 0
    changed_count: int = 0
    new_count: int = 0
    missing_count: int = 0
    moved_count: int = 0
    refused_count: int = 0


async def scan(
    mirror: OpenMirror, directory: str = "", *, verify: bool = False, scanned: Scanned | None = None
) -> AsyncGenerator[LocalChanges, None]:
    """Everything below ``directory`` (a disk path; empty: the mirror) that is not as the journal has it.

    ``verify`` also reads and hashes every file. Changed files are told as they are met; moves, then what is missing or
    new, at the end: only then is known what was renamed. ``RootLost`` when the mirror's directory is not there.
    """
    mirror.root.check()
    scanned = scanned or Scanned()
    places = mirror.journal.places
    number = places.start_scan()
    walk = Walk(mirror.root.fd, directory, mirror.ignore, verify=verify)
    refused = _Refused(mirror, directory)
    try:
        async for done in _steps(mirror, walk, directory):
            for changed in done.rules_changed:
                await take_in(mirror, changed)
            new = refused.take(done)
            places.note(number, new, done.gone)
            scanned.looked_count += done.looked
            scanned.verified_count += done.verified
            scanned.changed_count += len(done.changed)
            scanned.missing_count += len(done.gone)
            scanned.new_count += len(new)
            if done.changed:
                yield LocalChanges(tuple(done.changed))
        mirror.root.check()  # an unmounted or replaced directory has nothing missing
        refused.end()  # before anybody looks at the new ones, and lists what is wrong with those
        scanned.refused_count = refused.count
        while moves := places.take_moves(number, CHANGES_MAX // 2):
            scanned.moved_count += len(moves)
            yield LocalChanges(moves=tuple(moves))
        while rest := places.take_rest(number, CHANGES_MAX):
            yield LocalChanges(tuple(sorted(rest)))
    finally:
        places.end_scan(number)
        await mirror.writer.run(walk.close)


async def resolved(mirror: OpenMirror, changes: LocalChanges) -> AsyncGenerator[LocalChanges, None]:
    """The same as single files and moves between known and new places: gaps scanned, what nobody pushes left out.

    A renamed file is a move only when the journal knows where it was; a name that an editor uses for a moment counts
    only when the store has such a file.
    """
    if changes.refused:
        await list_refused(mirror, changes.refused)
    single = _single(mirror, changes)
    if single:
        yield single
    told = {place for move in changes.moves for place in move} | set(changes.disk_paths)
    ruled = {descriptors.split(place)[0] for place in told if descriptors.split(place)[1] == IGNORE_FILE}
    directories = {"", *ruled} if changes.gap else {*changes.directories, *ruled}
    for directory in ("",) if "" in directories else sorted(directories):
        async with aclosing(scan(mirror, directory)) as found:
            async for each in found:
                yield each


async def list_refused(mirror: OpenMirror, places: Sequence[str]) -> None:
    """Look at names that cannot be files of the workspace: list those that are there, forget those that are gone."""
    there = await mirror.writer.run(_look, mirror.root.fd, places)
    now_us = mirror.clock.now_us()
    found = {place: names.refusal("/" + place) for place in places if place in there}
    mirror.journal.list_problems(
        [_problem(Refusal(place, "NAME_REFUSED", f"The name {why}."), now_us) for place, why in found.items() if why]
    )
    mirror.journal.problems.gone([shown(place) for place in places if not found.get(place)])


def shown(place: str) -> str:
    """A place as text that can be stored and sent: undecodable bytes as `\\xff`."""
    return place.encode(errors="surrogateescape").decode(errors="backslashreplace")


# --- inside ---------------------------------------------------------------------------------------------------------


async def _steps(mirror: OpenMirror, walk: Walk, directory: str) -> AsyncGenerator[Compared, None]:
    after, last, ended = "", False, False
    while not ended:
        known = []
        if walk.hungry and not last:
            known = mirror.journal.places.known(directory, after, PAGE_ROWS)
            last = len(known) < PAGE_ROWS
            after = known[-1].place if known else after
        done = await mirror.writer.run(walk.step, known, last=last, looks_max=LOOKS_MAX)
        ended = done.ended
        yield done


def _single(mirror: OpenMirror, changes: LocalChanges) -> LocalChanges:
    """The files and moves of ``changes`` that are anybody's business."""
    ends = [place for move in changes.moves for place in move]
    asked = [*ends, *(place for place in changes.disk_paths if is_transient(place))]
    rows = mirror.journal.places.rows(asked)
    looks = {place for place in changes.disk_paths if place in rows or not is_transient(place)}
    moves: list[tuple[str, str]] = []
    for source, target in changes.moves:
        if source in rows and (target in rows or not is_transient(target)):
            moves.append((source, target))
        else:
            looks.update(place for place in (source, target) if place in rows or not is_transient(place))
    return LocalChanges(tuple(sorted(looks)), tuple(moves))


class _Refused:
    """Names that a scan met and that cannot be files of the workspace."""

    def __init__(self, mirror: OpenMirror, directory: str) -> None:
        self._mirror = mirror
        self._directory = directory
        self._kept: set[str] = set()
        self._above = ("", "")
        self._now_us = mirror.clock.now_us()
        self.count = 0

    def take(self, done: Compared) -> list[Found]:
        """List what a step refused. Returns its new files without those that nobody pushes."""
        problems = [_problem(each, self._now_us) for each in done.refused]
        new: list[Found] = []
        for each in done.new:
            if is_transient(each.place):
                continue
            remote = self._remote_path(each.place)
            why = names.refusal(remote)
            if why is not None:
                problems.append(Problem(each.place, "NAME_REFUSED", f"The name {why}.", 0, self._now_us))
            elif not any(below(root, remote) for root in self._mirror.remote_paths):
                message = "It lies in no part of the workspace that is mirrored here; it is left alone."
                problems.append(Problem(each.place, "NOT_IN_MIRROR", message, 0, self._now_us))
            else:
                new.append(each)
        self.count += len(problems)
        room = self._mirror.settings.problems_max - len(self._kept)
        self._kept.update(each.path for each in problems[: max(0, room)])
        if problems:
            self._mirror.journal.list_problems(problems)
        return new

    def _remote_path(self, place: str) -> str:
        """Of a place that the journal does not know; asked once for a directory."""
        above, name = descriptors.split(place)
        if above != self._above[0]:
            self._above = above, self._mirror.journal.places.remote_path(place).rpartition("/")[0]
        return f"{self._above[1]}/{name}"

    def end(self) -> None:
        """Forget those of an earlier scan that are not there any more."""
        journal = self._mirror.journal
        listed = journal.problems.on_disk_only(self._mirror.settings.problems_max)
        journal.problems.gone([path for path in listed if contains(self._directory, path) and path not in self._kept])


def _problem(refusal: Refusal, now_us: int) -> Problem:
    return Problem(shown(refusal.place), refusal.reason, refusal.message, 0, now_us)


def _look(root_fd: int, places: Iterable[str]) -> set[str]:
    there: set[str] = set()
    for place in places:
        above, name = descriptors.split(place)
        try:
            fd = descriptors.open_beneath(root_fd, above)
        except (OSError, UnicodeEncodeError):
            continue
        try:
            found = descriptors.look(fd, name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                there.add(place)
        finally:
            os.close(fd)
    return there
