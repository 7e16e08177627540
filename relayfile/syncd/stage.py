"""A first pull's staging tree: verified files written beside the mirror, renamed into place when all are there.

Runs in the writer thread: a batch is one message of the store, done in one go without an object or a log line per file.
Nothing here is durable by itself; the pull puts a barrier behind what was written.
"""

import errno
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from relayfile.errors import DataCorrupted
from relayfile.paths import contains
from relayfile.syncd import names
from relayfile.syncd.descriptors import Directories, create, read
from relayfile.syncd.digest import MODULUS, TreeSum
from relayfile.syncd.journal_rows import StagedRow
from relayfile.syncd.rows import FileRow, FileState, Problem
from relayfile.v1.file_pb2 import FileWithContent

STAGED_TREE: Final = "tree"
DISK_TROUBLE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})
"""Nothing else can be written either: the whole pull stops."""

_NO_DISK = (None, None, None, None, None, None)
_sha256 = hashlib.sha256


@dataclass(frozen=True, slots=True)
class StagedBatch:
    """What one batch came to."""

    rows: list[StagedRow]
    added: TreeSum
    problems: list[Problem]


class Stage:
    """The staging tree of one remote path. Used by the writer thread only, but for ``close``."""

    def __init__(self, staging_fd: int, root: str, ignores: Callable[[str], bool] = names.is_ignored) -> None:
        self._root = root
        self._ignores = ignores
        self._directories = Directories(staging_fd)
        self._directories.make(STAGED_TREE)

    def close(self) -> None:
        """Let go of the directories; nothing may be queued any more."""
        self._directories.close()

    def write(
        self, files: Sequence[FileWithContent], disk_paths: Sequence[str] | None, barrier: int, now_us: int
    ) -> StagedBatch:
        """Verify and write files, each once. ``disk_paths`` name them where names fold; None: each is its own.

        ``OSError`` only when nothing can be written any more; what concerns one file is a problem in the result.
        """
        rows: list[StagedRow] = []
        problems: list[Problem] = []
        digest = size = 0
        path = ""
        for index, each in enumerate(files):
            meta = each.file
            if meta.path <= path:
                raise DataCorrupted(what=f"the store sent {meta.path!r} after {path!r}")
            path = meta.path
            want = meta.content_sha256
            raw = path.encode()
            digest += int.from_bytes(_sha256(len(raw).to_bytes(8, "big") + raw + want).digest(), "big")
            size += meta.size_bytes
            if disk_paths is not None:
                disk = disk_paths[index]
            else:
                disk = path[1:] if len(raw) <= names.NAME_BYTES_MAX else names.shortened(path)
            if self._ignores(path):
                rows.append(_unwritten(path, meta.revision, want, meta.size_bytes, FileState.IGNORED, None, barrier))
                continue
            problem = self._refusal(path)
            if problem is None:
                written = self._file(path, disk, each.content, want)
                if not isinstance(written, Problem):
                    kept = None if disk == path[1:] else disk
                    rows.append((path, meta.revision, want, meta.size_bytes, 1, kept, want, *written, barrier))
                    continue
                problem = written
            problems.append(Problem(path, problem.reason, problem.message, meta.revision, now_us))
            rows.append(_unwritten(path, meta.revision, want, meta.size_bytes, FileState.PROBLEM, disk, barrier))
        return StagedBatch(rows, TreeSum(len(files), size, digest % MODULUS), problems)

    def intact(self, rows: Iterable[FileRow]) -> int:
        """How many of ``rows``, in order, are on disk as they were staged, up to the first that is not."""
        count = 0
        for row in rows:
            if row.state is FileState.MATERIALISED and row.disk_hash != self._hash(row.disk_path, row.size):
                return count
            count += 1
        return count

    def _file(self, path: str, disk: str, content: bytes, want: bytes) -> tuple[int, int, int, int, int] | Problem:
        if _sha256(content).digest() != want:
            return Problem(path, "HASH_MISMATCH", "The content that the store sent does not have its hash.")
        slash = disk.rfind("/")
        try:
            directory = self._directories.make(STAGED_TREE if slash < 0 else f"{STAGED_TREE}/{disk[:slash]}")
            stat = create(directory, disk[slash + 1 :], content)
        except OSError as error:
            if error.errno in DISK_TROUBLE:
                raise
            return Problem(path, *reason_of(error))
        return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns

    def _refusal(self, path: str) -> Problem | None:
        why = names.refusal(path)
        if why is not None:
            return Problem(path, "NAME_REFUSED", f"The name {why}.")
        if not contains(self._root, path):
            raise DataCorrupted(what=f"the store answered {path!r} when asked for {self._root!r}")
        return None

    def _hash(self, disk_path: str, size: int) -> bytes | None:
        directory, _, name = f"{STAGED_TREE}/{disk_path}".rpartition("/")
        try:
            return _sha256(read(self._directories.get(directory), name, size)).digest()
        except OSError:
            return None  # not there, or not as large as it was: written again


def reason_of(error: OSError) -> tuple[str, str]:
    """The reason of a file's problem, and what to tell people."""
    text = error.strerror or str(error)
    match error.errno:
        case errno.ENAMETOOLONG:
            return "NAME_TOO_LONG", f"The file system does not take the name ({text})."
        case errno.ENOTDIR | errno.EEXIST | errno.ELOOP:
            return "FILE_IN_THE_WAY", f"A file or link stands where a directory is needed ({text})."
        case errno.EISDIR | errno.ENOTEMPTY:
            return "FILE_IS_DIRECTORY", f"A directory stands where the file belongs ({text})."
        case errno.EACCES | errno.EPERM:
            return "PERMISSION_DENIED", f"The directory cannot be written ({text})."
        case errno.ENOSPC | errno.EDQUOT:
            return "DISK_FULL", f"The disk is full ({text})."
        case errno.EROFS:
            return "READ_ONLY_FILE_SYSTEM", f"The file system is read-only ({text})."
        case _:
            return "IO_ERROR", f"The file cannot be written ({text})."


def _unwritten(
    path: str, revision: int, want: bytes, size: int, state: FileState, disk: str | None, barrier: int
) -> StagedRow:
    kept = None if disk is None or disk == path[1:] else disk
    return (path, revision, want, size, int(state), kept, *_NO_DISK, barrier)
