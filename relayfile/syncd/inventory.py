"""What a first pull need not fetch: contents that are on the disk already, found by their hash.

Files that stood in the directory before it was a mirror, and what a pull of another history staged. Nothing of it is
trusted: a content is used only after its bytes were read and hashed again, and what is not there after all is fetched.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from relayfile.syncd import descriptors
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.ignore import IgnoreRules
from relayfile.syncd.journal_held import HASHES_MAX, Held
from relayfile.syncd.names import OWN_DIRECTORY
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.root import STAGING
from relayfile.syncd.walk import Walk
from relayfile.v1.file_pb2 import FileWithContent
from relayfile.v1.types_pb2 import FileMeta

HASH_BYTES: Final = 32
_LOOKS: Final = 500
"""Files hashed in one step of the writer thread, which others want too."""
_STEP_BYTES_MAX: Final = 32 << 20
"""Content after which such a step ends; one file more than that at most."""
_FILL_FILES: Final = 1_000


class Inventory:
    """Taken when a pull begins or goes on. Used with the mirror's turn."""

    def __init__(self, mirror: OpenMirror, progress: Progress) -> None:
        self._mirror = mirror
        self._progress = progress
        self.held: Held = mirror.journal.first_pull.held
        self.count = 0
        """Contents that are held."""

    async def take(self) -> None:
        """Look at everything that is there. Of an empty directory it is one look."""
        root = self._mirror.root
        self.held.start()
        await self._take_below(root.fd, "", "")
        for name in await self._mirror.writer.run(root.aside):
            await self._take_below(root.staging_fd, name, f"{OWN_DIRECTORY}/{STAGING}/")
        self.count = self.held.count()

    async def _take_below(self, base: int, directory: str, prefix: str) -> None:
        mirror = self._mirror
        walk = Walk(base, directory, IgnoreRules())
        try:
            more = True
            while more and self.count <= HASHES_MAX - _LOOKS:
                found, more = await mirror.writer.run(_step, walk, base, mirror.settings.content_bytes_max)
                self.held.add((content_hash, prefix + place) for content_hash, place in found)
                self.count += len(found)
        finally:
            walk.close()

    def split(self, metas: Sequence[FileMeta]) -> tuple[list[FileWithContent], list[FileMeta]]:
        """Files whose content is held, as the store would tell of them, and the others."""
        if not self.count:
            return [], list(metas)
        held: list[FileWithContent] = []
        others: list[FileMeta] = []
        for meta, place in zip(metas, self.held.places([meta.content_sha256 for meta in metas]), strict=True):
            if place is None:
                others.append(meta)
            else:
                held.append(FileWithContent(file=meta, content_known=True))
        return held, others

    async def filled(self, files: Sequence[FileWithContent]) -> AsyncIterator[Sequence[FileWithContent]]:
        """``files`` with their contents, about a message at a time: known ones from the disk, or else fetched."""
        if not self.count or not any(each.content_known for each in files):
            yield files
            return
        piece: list[FileWithContent] = []
        size = 0
        for each in files:
            piece.append(each)
            size += each.file.size_bytes
            if size >= self._mirror.settings.message_bytes_target or len(piece) >= _FILL_FILES:
                yield await self._fill(piece)
                piece, size = [], 0
        if piece:
            yield await self._fill(piece)

    async def _fill(self, files: Sequence[FileWithContent]) -> Sequence[FileWithContent]:
        known = [each for each in files if each.content_known]
        hashes = [each.file.content_sha256 for each in known]
        contents = await self._mirror.writer.run(
            _read_back,
            self._mirror.root.fd,
            self.held.places(hashes),
            hashes,
            self._mirror.settings.content_bytes_max,
        )
        lost: list[str] = []
        for each, content in zip(known, contents, strict=True):
            if content is None:
                lost.append(each.file.path)
            else:
                each.content = content
        self._progress.reused_count += len(known) - len(lost)
        if not lost:
            return files
        fetched: dict[str, FileWithContent] = {}
        async for part, wire_bytes in self._mirror.feed.read_files(lost):
            self._progress.wire_bytes += wire_bytes
            fetched.update((each.file.path, each) for each in part)
        absent = set(lost) - fetched.keys()  # gone from the store meanwhile, as an event will tell
        return [fetched.get(each.file.path, each) for each in files if each.file.path not in absent]


def _step(walk: Walk, base: int, bytes_max: int) -> tuple[list[tuple[bytes, str]], bool]:
    """In the writer thread: (hash and place of what was found, whether there is more)."""
    found: list[tuple[bytes, str]] = []
    looked = size = 0
    with Directories(base) as directories:
        while looked < _LOOKS and size < _STEP_BYTES_MAX:
            compared = walk.step((), last=True, looks_max=1)
            if compared.ended:
                return found, False
            looked += 1
            for each in compared.new:
                content = _read(directories, each.place, bytes_max)
                if content is not None:
                    size += len(content)
                    found.append((hashlib.sha256(content).digest(), each.place))
    return found, True


def _read_back(
    root_fd: int, places: Sequence[str | None], hashes: Sequence[bytes], bytes_max: int
) -> list[bytes | None]:
    """In the writer thread: contents; None where something else is there by now."""
    contents: list[bytes | None] = []
    with Directories(root_fd) as directories:
        for place, content_hash in zip(places, hashes, strict=True):
            content = None if place is None else _read(directories, place, bytes_max)
            is_it = content is not None and hashlib.sha256(content).digest() == content_hash
            contents.append(content if is_it else None)
    return contents


def _read(directories: Directories, place: str, bytes_max: int) -> bytes | None:
    parent, name = split(place)
    try:
        return descriptors.read(directories.get(parent), name, bytes_max)
    except OSError:
        return None  # not usable: it is fetched
