"""A process's directory of durable state: one owner at a time, and what an fsync that failed leaves behind (D1).

Owns the lock file, the failure marker and the dropping of cached pages. Refuses to know what is stored: the owner of a
database verifies it. After an fsync failed, the kernel may show pages as clean that never reached the disk; so the
process marks the directory and ends, and the next start reads everything anew from the disk before it trusts it.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from relayfile.errors import StartRefused

LOCK_NAME = "owner.lock"
MARKER_NAME = "storage-failed"


class DataDirectory:
    """Made, locked and released with ``with``; two processes can never hold the same directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Make the directory where it is missing and take its lock; ``StartRefused`` when another process holds it."""
        self._make()
        descriptor = os.open(self.path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise StartRefused(
                why=f"another process works on {self.path}; stop it, or set another RELAYFILE_DATA_DIR"
            ) from None
        self._lock_fd = descriptor

    def _make(self) -> None:
        missing = [each for each in (self.path, *self.path.parents) if not each.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        for each in missing:
            sync_directory(
                each.parent
            )  # or a power cut would take the new directory away, with all that was synced in it

    def release(self) -> None:
        """Let the next owner in. The kernel does the same when the process dies."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def failure(self) -> str | None:
        """What failed when the last owner gave up, or None after an ordinary end (kill -9 is one)."""
        try:
            return (self.path / MARKER_NAME).read_text() or "unknown"
        except FileNotFoundError:
            return None

    def mark_failed(self, what: str) -> None:
        """Leave the marker. Best effort: the disk that failed may refuse this too, and the process ends anyway."""
        try:
            (self.path / MARKER_NAME).write_text(what)
            self.sync()
        except OSError:
            pass  # The caller is already ending with the error that matters.

    def clear_failure(self) -> None:
        """Remove the marker, after everything was verified."""
        (self.path / MARKER_NAME).unlink(missing_ok=True)
        self.sync()

    def drop_cached_pages(self, names: Iterable[str]) -> None:
        """Make the next read of these files come from the disk; missing files are passed over."""
        for name in names:
            try:
                descriptor = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)

    def sync(self) -> None:
        """Make the directory's entries durable (a file made in it survives a power cut only after this)."""
        sync_directory(self.path)


def sync_directory(directory: Path) -> None:
    """Make what is named in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
