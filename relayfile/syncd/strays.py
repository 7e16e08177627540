"""What a kill left in a mirror's own directories and on no list: found when the mirror is opened, before it works.

Bytes are kept before something takes their name, and listed after it. A kill in between leaves a version of a user's
that nobody would ever be told of, or, in the staging directory, that the next batch would overwrite. Refuses to judge
what is listed.
"""

import asyncio
import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from relayfile.syncd import descriptors, kept
from relayfile.syncd.apply import INCOMING
from relayfile.syncd.descriptors import split
from relayfile.syncd.journal import Journal
from relayfile.syncd.names import suffixed
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.reconcile import ConflictKind
from relayfile.syncd.root import Root
from relayfile.syncd.rows import Conflict
from relayfile.syncd.swap import SWAPPING
from relayfile.syncd.trash import Stray

_ID_HEX: Final = 16
_STEP_FILES: Final = 256
_STEP_BYTES: Final = 8 << 20
"""After which a step of the writer's thread ends, with the file that it is at."""
_LISTED_AT_ONCE: Final = 10_000
"""Strays for which the journal's files are gone through once."""
_PAGE_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class _Version:
    """A kept version that no list names."""

    name: str
    place: str
    revision: int
    size: int
    content_hash: bytes


async def take_in(mirror: OpenMirror) -> None:
    """Make the lists of trash and conflicts agree with the directories. Reads what nobody listed, and only that.

    Walks and reads in the writer's thread, in steps that let other mirrors write between; what was listed before a
    cancellation stays listed.
    """
    now_us = mirror.clock.now_us()
    await mirror.writer.run(_rescue_swapped, mirror.root, now_us)
    await take_in_trash(mirror)
    found = await mirror.writer.run(_kept_names, mirror.root.own_fd)
    known = mirror.journal.conflicts.kept_names()
    waiting = sorted(name for name in found if name not in known)
    while waiting:
        looked, versions = await mirror.writer.run(_versions, mirror.root, waiting[:_STEP_FILES])
        mirror.journal.conflicts.add([_conflict(mirror.journal, each, now_us) for each in versions])
        del waiting[:looked]


async def take_in_trash(mirror: OpenMirror) -> None:
    """Make the list of the trash agree with its directory: a kill may have come between the two."""
    now_us = mirror.clock.now_us()
    found = await mirror.writer.run(mirror.root.trashed)
    unlisted = mirror.journal.trash.unlisted(found)
    for start in range(0, len(unlisted), _LISTED_AT_ONCE):
        names = unlisted[start : start + _LISTED_AT_ONCE]
        hashes: list[bytes] = []
        while len(hashes) < len(names):
            step = names[len(hashes) : len(hashes) + _STEP_FILES]
            hashes += await mirror.writer.run(_trashed_hashes, mirror.root, step)
        agreed = await _agreed(mirror, set(hashes))
        mirror.journal.trash.add_strays(
            [Stray(name, found[name], each, each in agreed) for name, each in zip(names, hashes, strict=True)], now_us
        )


async def _agreed(mirror: OpenMirror, hashes: set[bytes]) -> set[bytes]:
    agreed, after = mirror.journal.trash.agreed(hashes, "", _PAGE_ROWS)
    while after:
        await asyncio.sleep(0)
        more, after = mirror.journal.trash.agreed(hashes, after, _PAGE_ROWS)
        agreed |= more
    return agreed


def _trashed_hashes(root: Root, names: Sequence[str]) -> list[bytes]:
    """Of the first of ``names``, at least one, until enough was read for one step."""
    hashes: list[bytes] = []
    left = _STEP_BYTES
    for name in names:
        found = descriptors.look(root.trash_fd, name)
        left -= found.st_size if found is not None else 0
        hashes.append(root.trashed_hash(name))
        if left <= 0:
            break
    return hashes


def _rescue_swapped(root: Root, now_us: int) -> None:
    """A file that was being put in another's place may be either of the two: the trash's list tells which."""
    with _directory(root.staging_fd, INCOMING) as incoming:
        if incoming is None:
            return
        for name in os.listdir(incoming):
            if name.endswith(SWAPPING):
                descriptors.move_if_absent(incoming, name, root.trash_fd, suffixed(name, f"{now_us}/{name}"))


def _versions(root: Root, names: Sequence[str]) -> tuple[int, list[_Version]]:
    """How many of ``names`` were looked at, until enough was read for one step, and what is to be listed of them."""
    versions: list[_Version] = []
    left = _STEP_BYTES
    for looked, name in enumerate(names, 1):
        version = _version(root, name)
        if version is not None:
            versions.append(version)
            left -= version.size
        if left <= 0:
            return looked, versions
    return len(names), versions


def _version(root: Root, name: str) -> _Version | None:
    place, revision = _origin(name)
    above, last = split(f"{kept.CONFLICTS}/{name}")
    with _directory(root.own_fd, above) as versions, _directory(root.fd, split(place)[0]) as directory:
        found = None if versions is None else descriptors.look(versions, last)
        if versions is None or found is None:
            return None
        there = None if directory is None else descriptors.look(directory, split(place)[1])
        if there is not None and (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
            kept.drop(root.own_fd, name)  # it was not replaced: the version still has its own name
            return None
        return _Version(name, place, revision, found.st_size, _hash(versions, last))


def _conflict(journal: Journal, version: _Version, now_us: int) -> Conflict:
    path = journal.places.remote_path(version.place)
    row = journal.load((path,)).get(path)
    remote_hash = b"" if row is None or row.remote_hash is None else row.remote_hash
    return Conflict(
        conflict_id=f"{now_us:020}-{hashlib.sha256(version.name.encode()).hexdigest()[:_ID_HEX]}",
        kind=ConflictKind.BOTH_MODIFIED,
        path=path,
        disk_path=version.place,
        kept_name=version.name,
        base_revision=0,
        remote_revision=version.revision,
        remote_hash=remote_hash,
        remote_size=0 if row is None else row.size,
        local_hash=version.content_hash,
        local_size=version.size,
        create_time_us=now_us,
    )


def _origin(name: str) -> tuple[str, int]:
    """Where a kept version was, and the revision that took its place; as far as its name says so."""
    parent, last = split(name)
    stem, _, revision = last.rpartition("@")
    if not stem or not revision.isdecimal():
        return name, 0
    return (f"{parent}/{stem}" if parent else stem), int(revision)


def _kept_names(own: int) -> list[str]:
    """Every regular file below `conflicts`, by its name there; nothing else is ours."""
    names: list[str] = []
    waiting = [kept.CONFLICTS]
    while waiting:
        above = waiting.pop()
        with _directory(own, above) as directory:
            for name in [] if directory is None else os.listdir(directory):
                found = None if directory is None else descriptors.look(directory, name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    waiting.append(f"{above}/{name}")
                elif found is not None and stat.S_ISREG(found.st_mode):
                    names.append(f"{above}/{name}".removeprefix(f"{kept.CONFLICTS}/"))
    return names


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
