"""Files of a first pull on their way from the store into the staging tree and the journal.

Owns their order and how many there may be: what was asked for and is not journalled is what a kill makes the pull fetch
again, and what is staged behind the last barrier is what a power cut may take.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from relayfile import faults
from relayfile.errors import DataCorrupted, MirrorRefused, StorageFailed
from relayfile.syncd import descriptors, names
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.stage import Stage, StagedBatch, reason_of
from relayfile.syncd.write_back import WriteBack
from relayfile.syncd.writer import finished
from relayfile.v1.file_pb2 import FileWithContent

AHEAD_MESSAGES_MAX: Final = 4
"""Messages that are read and not yet written (about 1 MiB each)."""
ASKED_BYTES_MAX: Final = 8 << 20
"""Content that is asked for and not yet journalled, unless one file has more."""


class Staging:
    """Batches on their way through the writer thread, journalled in the order in which they were handed over."""

    def __init__(self, mirror: OpenMirror, root: str, progress: Progress) -> None:
        self._mirror = mirror
        self._root = root
        self._progress = progress
        self._stage = Stage(mirror.root.staging_fd, root, mirror.journal.ignores)
        self._under_way: deque[tuple[asyncio.Future[StagedBatch | None], int]] = deque()
        self._turn = asyncio.Lock()
        self._asked_bytes = 0
        self._moved = asyncio.Event()
        settings = mirror.settings
        self._ahead_max = max(1, min(AHEAD_MESSAGES_MAX, settings.sync_read_bytes_max // settings.message_bytes_target))
        self._barrier = mirror.journal.first_pull.mark().barrier
        self._since_barrier_bytes = 0
        self._write_back = WriteBack(mirror.writer, mirror.root.staging_fd)

    async def room(self, size: int) -> None:
        """Wait until ``size`` bytes more may be asked for: what is not journalled, a kill makes us fetch again.

        What is handed to ``add`` gives its part back when it is journalled, the rest ``unasked``.
        """
        while self._asked_bytes and self._asked_bytes + size > ASKED_BYTES_MAX:
            if self._under_way:
                async with self._turn:
                    if self._under_way:
                        await self._settle()
            else:
                self._moved.clear()
                await self._moved.wait()
        self._asked_bytes += size

    def unasked(self, size: int) -> None:
        """So many bytes that were asked for are journalled, or do not come."""
        self._asked_bytes -= size
        self._moved.set()

    async def add(self, files: Sequence[FileWithContent], asked_bytes: int = 0) -> None:
        """Hand over a message's files; waits while too many are under way. ``asked_bytes`` had to wait for room."""
        mirror = self._mirror
        async with self._turn:
            while len(self._under_way) >= self._ahead_max:
                await self._settle()
            disk_paths = [_disk_path(mirror, each.file.path) for each in files] if mirror.root.folds else None
            written = mirror.writer.submit(self._write, files, disk_paths, self._barrier, mirror.clock.now_us())
            self._under_way.append((written, asked_bytes))
            self._moved.set()
            if self._since_barrier_bytes >= mirror.settings.sync_barrier_bytes:
                self._under_way.append((mirror.writer.submit(self._sync), 0))
                self._barrier += 1
                self._since_barrier_bytes = 0

    async def drain(self) -> None:
        """Until everything that was handed over is written and journalled."""
        async with self._turn:
            while self._under_way:
                await self._settle()
            with self._disk_errors():
                await self._write_back.end()

    async def close(self) -> None:
        """Let the thread finish what it has; its rows are kept if they can be."""
        try:
            while self._under_way:
                try:
                    await self._settle()
                except (DataCorrupted, MirrorRefused, StorageFailed):
                    continue  # the first failure is already on its way to the caller
        finally:
            try:
                with contextlib.suppress(OSError):  # after an end without failure, ``drain`` has met it
                    await self._write_back.end()
            finally:  # in the thread, behind whatever still uses the directories
                await self._mirror.writer.run(self._stage.close)

    def _write(
        self, files: Sequence[FileWithContent], disk_paths: Sequence[str] | None, barrier: int, now_us: int
    ) -> StagedBatch | None:
        return self._stage.write(files, disk_paths, barrier, now_us)

    def _sync(self) -> StagedBatch | None:
        descriptors.barrier(self._mirror.root.staging_fd)
        return None

    async def _settle(self) -> None:
        future, asked_bytes = self._under_way[0]
        try:
            with self._disk_errors():
                batch = await finished(future)
        finally:
            if future.done() and self._under_way and self._under_way[0][0] is future:
                del self._under_way[0]
        if batch is None:
            self._mirror.journal.first_pull.passed_barrier()
            return
        self._since_barrier_bytes += batch.added.total_bytes
        faults.point("syncd.stage.after_write_before_journal")
        self._mirror.journal.first_pull.stage(self._root, batch.rows, batch.added, batch.problems)
        faults.point("syncd.journal.after_commit")
        self.unasked(asked_bytes)
        self._progress.advance(batch.added.file_count, batch.added.total_bytes, self._mirror.clock.monotonic())
        written = batch.added.file_count - len(batch.problems)
        self._progress.wrote(written, batch.added.total_bytes)
        self._mirror.instruments.files_written_total.inc(written)
        self._mirror.instruments.bytes_written_total.inc(batch.added.total_bytes)
        with self._disk_errors():
            await self._write_back.staged(batch.added.total_bytes)

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason, message = reason_of(error)
            raise MirrorRefused(mirror=self._mirror.root.marker.mirror_id, why=f"{reason}: {message}") from error


@asynccontextmanager
async def staged(mirror: OpenMirror, root: str, progress: Progress) -> AsyncIterator[Staging]:
    """Everything that is added in the block is staged and journalled when it ends well."""
    staging = Staging(mirror, root, progress)
    try:
        yield staging
        await staging.drain()
    finally:
        await staging.close()


def _disk_path(mirror: OpenMirror, path: str) -> str:
    return path[1:] if mirror.journal.ignores(path) or names.refusal(path) else mirror.journal.unfolded(path)
