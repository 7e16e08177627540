"""What a kill left in a mirror's own directories and on no list: found when the mirror is opened, before it works.

Bytes are kept before something takes their name, and listed after it. A kill in between leaves a version of a user's
that nobody would ever be told of, or, in the staging directory, that the next batch would overwrite. Refuses to judge
what is listed.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from relayfile.syncd import descriptors, kept
from relayfile.syncd.apply import INCOMING
from relayfile.syncd.descriptors import split
from relayfile.syncd.journal import Journal
from relayfile.syncd.names import suffixed
from relayfile.syncd.reconcile import ConflictKind
from relayfile.syncd.root import Root
from relayfile.syncd.rows import Conflict
from relayfile.syncd.swap import SWAPPING

_ID_HEX: Final = 16


def take_in(root: Root, journal: Journal, now_us: int) -> None:
    """Make the lists of trash and conflicts agree with the directories. Reads what nobody listed, and only that."""
    _rescue_swapped(root, now_us)
    journal.trash.take_in(root.trashed(), root.trashed_hash, now_us)
    known = journal.conflicts.kept_names()
    for name in sorted(_kept_names(root.own_fd)):
        if name not in known:
            _list(root, journal, name, now_us)


def _rescue_swapped(root: Root, now_us: int) -> None:
    """A file that was being put in another's place may be either of the two: the trash's list tells which."""
    with _directory(root.staging_fd, INCOMING) as incoming:
        if incoming is None:
            return
        for name in os.listdir(incoming):
            if name.endswith(SWAPPING):
                descriptors.move_if_absent(incoming, name, root.trash_fd, suffixed(name, f"{now_us}/{name}"))


def _list(root: Root, journal: Journal, name: str, now_us: int) -> None:
    place, revision = _origin(name)
    above, last = split(f"{kept.CONFLICTS}/{name}")
    with _directory(root.own_fd, above) as versions, _directory(root.fd, split(place)[0]) as directory:
        found = None if versions is None else descriptors.look(versions, last)
        if versions is None or found is None:
            return
        there = None if directory is None else descriptors.look(directory, split(place)[1])
        if there is not None and (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
            kept.drop(root.own_fd, name)  # it was not replaced: the version still has its own name
            return
        content_hash = _hash(versions, last)
    path = journal.places.remote_path(place)
    row = journal.load((path,)).get(path)
    remote_hash = b"" if row is None or row.remote_hash is None else row.remote_hash
    conflict = Conflict(
        conflict_id=f"{now_us:020}-{hashlib.sha256(name.encode()).hexdigest()[:_ID_HEX]}",
        kind=ConflictKind.BOTH_MODIFIED,
        path=path,
        disk_path=place,
        kept_name=name,
        base_revision=0,
        remote_revision=revision,
        remote_hash=remote_hash,
        remote_size=0 if row is None else row.size,
        local_hash=content_hash,
        local_size=found.st_size,
        create_time_us=now_us,
    )
    journal.conflicts.add([conflict])


def _origin(name: str) -> tuple[str, int]:
    """Where a kept version was, and the revision that took its place; as far as its name says so."""
    parent, last = split(name)
    stem, _, revision = last.rpartition("@")
    if not stem or not revision.isdecimal():
        return name, 0
    return (f"{parent}/{stem}" if parent else stem), int(revision)


def _kept_names(own: int) -> Iterator[str]:
    """Every regular file below `conflicts`, by its name there; nothing else is ours."""
    waiting = [kept.CONFLICTS]
    while waiting:
        above = waiting.pop()
        with _directory(own, above) as directory:
            for name in [] if directory is None else os.listdir(directory):
                found = None if directory is None else descriptors.look(directory, name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    waiting.append(f"{above}/{name}")
                elif found is not None and stat.S_ISREG(found.st_mode):
                    yield f"{above}/{name}".removeprefix(f"{kept.CONFLICTS}/")


@contextlib.contextmanager
def _directory(base: int, relative: str) -> Iterator[int | None]:
    """The open directory; None when it is not there, or not reachable without a link."""
    try:
        fd = descriptors.open_beneath(base, relative)
    except (OSError, UnicodeEncodeError):
        yield None
        return
    try:
        yield fd
    finally:
        os.close(fd)


def _hash(directory: int, name: str) -> bytes:
    digest = hashlib.sha256()
    try:
        for piece in descriptors.chunks(directory, name):
            digest.update(piece)
    except OSError:
        return b""
    return digest.digest()
