"""Finding what differs by digests: down from a root into the directories, and the buckets, whose sums differ.

What is equal is never listed. A part that was received is believed to be all there is, and so what it lacks to be gone,
when its sum is the directory's own, told in the same message. The answers may be of different revisions: who calls
replays the events since the first of them. Refuses to fetch content.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from relayfile.errors import DataCorrupted
from relayfile.paths import join, name, parent
from relayfile.syncd.digest import EMPTY, MODULUS, TreeSum, element
from relayfile.syncd.feed import tree_sum
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.rows import Cursor, RemoteFile
from relayfile.v1 import file_pb2, types_pb2

REQUESTS_MAX: Final = 400
"""Where more directories differ, one listing of everything is cheaper."""
WIDE_ENTRIES: Final = 4_096
"""The store keeps buckets of directories with more entries."""
BUCKETS: Final = 256
CHILDREN_MAX: Final = 20_000
"""The store names about so many entries of several buckets in one answer."""
BUCKET_REQUESTS_MAX: Final = 16
"""Where more are needed for a directory, its entries are listed once: the store looks at all names for each."""
_ROWS: Final = 5_000
_sha256 = hashlib.sha256


class TooDifferent(Exception):
    """Descending would take more requests than it saves."""


@dataclass(slots=True)
class _Local:
    """What the journal has directly in a directory."""

    sums: dict[str, TreeSum] = field(default_factory=dict)
    """Name of a directory to its sum."""
    files: dict[str, bytes] = field(default_factory=dict)
    """Name of a file to its hash."""


@dataclass(slots=True)
class _Entries:
    """What the store has directly in a directory, or in a bucket of it."""

    at: Cursor
    files: dict[str, RemoteFile] = field(default_factory=dict)
    directories: dict[str, TreeSum] = field(default_factory=dict)
    told: TreeSum | None = None
    """What they sum up to, told of the same revision; None: nobody did."""

    def is_complete(self) -> bool:
        """Proved by their sum: a name that is not here is not there."""
        return self.told is not None and self.told == _total(self)


class Descent:
    """One comparison of a mirror with the store. Used with the mirror's turn."""

    def __init__(self, mirror: OpenMirror, progress: Progress, *, access_changed: bool = False) -> None:
        """``access_changed``: what is gone is what the mirror's token may not read any more."""
        self._access_changed = access_changed
        self._mirror = mirror
        self._progress = progress
        self._waiting: list[str] = []
        self._sums: dict[str, TreeSum] = {}
        """Of directories that differ and of what is in them, as the journal has it."""
        self.begun: Cursor | None = None
        """Where the first answer stood."""
        self.requests = 0
        self.changed_count = 0

    async def run(self) -> None:
        """Learn everything that differs. ``TooDifferent`` part of the way: what was learned until then is right."""
        for root in self._mirror.remote_paths:
            held = await self._mirror.feed.held(root)
            self._progress.wire_bytes += held.wire_bytes
            self._see(held.at)
            if held.total != self._mirror.journal.sums[root]:
                self._sums[root] = self._mirror.journal.sums[root]
                self._waiting.append(root)
        while self._waiting:
            await self._directory(self._waiting.pop())

    async def _directory(self, path: str) -> None:
        local = await self._local(path)
        entry_count = len(local.sums) + len(local.files)
        if not entry_count:
            await self._whole(path)
            return
        if entry_count <= WIDE_ENTRIES:
            answer = await self._ask(path, children=True)
            if answer.children or not answer.directory.totals.file_count:
                entries = _entries(answer.children, _cursor(answer))
                entries.told = tree_sum(answer.directory.totals)
                await self._compare(path, local, {*local.sums, *local.files}, entries)
                return
        await self._wide(path, local)

    async def _wide(self, path: str, local: _Local) -> None:
        answer = await self._ask(path, buckets=True)
        digests, by_bucket = _bucket_digests(path, local)
        differing = [
            each.bucket for each in answer.buckets if tree_sum(each.totals).digest != digests[each.bucket] % MODULUS
        ]
        together = max(1, BUCKETS * CHILDREN_MAX // max(1, answer.directory.entry_count))
        if not answer.buckets or len(differing) > BUCKET_REQUESTS_MAX * together:
            await self._compare(path, local, {*local.sums, *local.files}, await self._listed(path))
            return
        for start in range(0, len(differing), together):
            asked = differing[start : start + together]
            part = await self._ask(path, children=True, buckets=True, bucket=asked)
            entries = _entries(part.children, _cursor(part))
            if part.buckets:
                entries.told = _sum(tree_sum(each.totals) for each in part.buckets if each.bucket in asked)
            names = [each_name for bucket in asked for each_name in by_bucket[bucket]]
            await self._compare(path, local, names, entries)

    async def _compare(self, path: str, local: _Local, names: Iterable[str], entries: _Entries) -> None:
        """Learn the files that differ, and go down into directories that do.

        What has the name of a file has nothing below it, and a directory is no file; only a name that is missing
        needs a proof.
        """
        changes = [each for each_name, each in entries.files.items() if local.files.get(each_name) != each.content_hash]
        for each_name, total in entries.directories.items():
            if local.sums.get(each_name) != total:
                self._waiting.append(join(path, each_name))
        self._learn(changes)
        missing = [each for each in names if each not in entries.files and each not in entries.directories]
        if missing and entries.is_complete():  # summed up only where somebody must know
            for each_name in missing:
                await self._gone(join(path, each_name), entries.at)
        for each_name, each in entries.files.items():  # nothing is below a file, though there may have been
            if each_name in local.sums:
                await self._gone(each.path, entries.at, but=each.path)
        self._learn(
            [
                RemoteFile(join(path, each), entries.at.revision, None)
                for each in entries.directories
                if each in local.files
            ]
        )

    async def _gone(self, path: str, at: Cursor, but: str = "") -> None:
        async for rows in self._rows(path):
            gone = [each for each, _, _ in rows if each != but]
            if self._access_changed:
                self._mirror.journal.scopes.lost(gone)
            self._learn([RemoteFile(each, at.revision, None) for each in gone])

    async def _whole(self, path: str) -> None:
        """Everything below a directory of which the journal has nothing."""
        self.requests += 1
        async for page in self._mirror.feed.list_tree(path):
            self._progress.wire_bytes += page.ByteSize()
            self._see(Cursor(page.revision, page.history_id))
            self._learn([_file(entry.file) for entry in page.entries])

    async def _listed(self, path: str) -> _Entries:
        """The entries of a wide directory, page by page; complete when nothing was committed meanwhile."""
        found: _Entries | None = None
        one_revision = True
        self.requests += 1
        async for page in self._mirror.feed.list_tree(path, depth=1):
            self._progress.wire_bytes += page.ByteSize()
            at = Cursor(page.revision, page.history_id)
            self._see(at)
            part = _entries(page.entries, at)
            if found is None:
                found = part
            one_revision = one_revision and found.at == at
            found.files.update(part.files)
            found.directories.update(part.directories)
        if found is None:
            raise DataCorrupted(what="the store answered a listing without a page")
        held = await self._mirror.feed.held(path)
        self._progress.wire_bytes += held.wire_bytes
        found.told = held.total if one_revision and held.at == found.at else None
        return found

    async def _ask(
        self, path: str, *, children: bool = False, buckets: bool = False, bucket: Sequence[int] = ()
    ) -> file_pb2.GetTreeDigestResponse:
        self.requests += 1
        if self.requests > REQUESTS_MAX:
            raise TooDifferent
        answer = await self._mirror.feed.digest(path, children=children, buckets=buckets, bucket=bucket)
        self._progress.wire_bytes += answer.ByteSize()
        self._see(_cursor(answer))
        return answer

    def _see(self, at: Cursor) -> None:
        self.begun = self.begun or at
        if at.history_id != self.begun.history_id:
            raise DataCorrupted(what="the store changed its history in the middle of a comparison")

    def _learn(self, changes: Sequence[RemoteFile]) -> None:
        if changes:
            self._mirror.journal.learn(changes, None)
            self.changed_count += len(changes)

    async def _sum_up(self, path: str) -> None:
        """One pass over the rows, for all directories below ``path`` at once."""
        start = len(path) + (path != "/")
        async for rows in self._rows(path):
            for directory, run in groupby(rows, _parent):
                if len(directory) <= start:
                    continue  # directly in ``path``, of which the sum is known
                count = size = digest = 0
                for each, content_hash, file_bytes in run:
                    count, size, digest = count + 1, size + file_bytes, digest + element(each, content_hash)
                self._add(path, directory, TreeSum(count, size, digest))

    def _add(self, top: str, directory: str, total: TreeSum) -> None:
        while directory != top:
            self._sums[directory] = self._sums.get(directory, EMPTY) + total
            directory = parent(directory)

    async def _local(self, path: str) -> _Local:
        """``path`` is known to differ; the sum of what is in it is found when it is first needed."""
        found = _Local()
        below: list[str] = []
        after = ""
        while True:
            files, directories, after = self._mirror.journal.listing.entries_in(path, after, _ROWS)
            found.files.update((each[each.rfind("/") + 1 :], content_hash) for each, content_hash in files)
            below += directories
            await asyncio.sleep(0)
            if not after:
                break
        if len(below) == 1 and not found.files:
            self._sums[join(path, below[0])] = self._sums[path]
        elif below and join(path, below[0]) not in self._sums:
            await self._sum_up(path)
        found.sums = {each: self._sums.get(join(path, each), EMPTY) for each in below}
        return found

    async def _rows(self, path: str) -> AsyncIterator[Sequence[tuple[str, bytes, int]]]:
        after = ""
        while rows := self._mirror.journal.listing.hashes(path, after, _ROWS):
            after = rows[-1][0]
            yield rows
            await asyncio.sleep(0)  # other mirrors and calls have their turn


def _bucket_digests(path: str, local: _Local) -> tuple[list[int], list[list[str]]]:
    """What the journal has in each bucket of a directory, and the names there."""
    digests = [0] * BUCKETS
    names: list[list[str]] = [[] for _ in range(BUCKETS)]
    for each, content_hash in local.files.items():
        bucket = _sha256(each.encode()).digest()[0]
        names[bucket].append(each)
        digests[bucket] += element(join(path, each), content_hash)
    for each, total in local.sums.items():
        bucket = _sha256(each.encode()).digest()[0]
        names[bucket].append(each)
        digests[bucket] += total.digest
    return digests, names


def _parent(row: tuple[str, bytes, int]) -> str:
    return row[0][: row[0].rfind("/")] or "/"


def _cursor(answer: file_pb2.GetTreeDigestResponse) -> Cursor:
    return Cursor(answer.revision, answer.history_id)


def _entries(children: Iterable[file_pb2.TreeEntry], at: Cursor) -> _Entries:
    found = _Entries(at)
    for each in children:
        if each.HasField("directory"):
            found.directories[name(each.directory.path)] = tree_sum(each.directory.totals)
        else:
            found.files[name(each.file.path)] = _file(each.file)
    return found


def _file(meta: types_pb2.FileMeta) -> RemoteFile:
    return RemoteFile(meta.path, meta.revision, meta.content_sha256, meta.size_bytes)


def _total(entries: _Entries) -> TreeSum:
    total = _sum(entries.directories.values())
    for each in entries.files.values():
        assert each.content_hash is not None, "the store has it"
        total = total.with_file(each.path, each.content_hash, each.size)
    return total


def _sum(parts: Iterable[TreeSum]) -> TreeSum:
    total = EMPTY
    for each in parts:
        total += each
    return total
