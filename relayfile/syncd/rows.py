"""What the journal knows of a file, as values. Pure.

Three hashes tell how a file stands: ``remote_hash`` (what the store had at the cursor; None: it was deleted there),
``disk_hash`` (what syncd wrote; None: nothing) and what the disk holds now, which only a look can tell.
"""

from dataclasses import dataclass
from enum import IntEnum


class FileState(IntEnum):
    """How a remote file stands on disk. The numbers are stored."""

    MATERIALISED = 1
    PENDING = 2
    CONFLICT = 3
    IGNORED = 4
    PROBLEM = 5


class TrashReason(IntEnum):
    """Why something is in the trash. The numbers are stored, and those of ``relayfile.v1.TrashReason``."""

    OVERWRITTEN = 1
    DELETED = 2
    ACCESS_LOST = 3
    PATH_DROPPED = 4
    CONFLICT_RESOLVED = 5
    READ_ONLY_EDIT = 6


@dataclass(frozen=True, slots=True)
class DiskStat:
    """What tells a file from another, and a written file from an edited one."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    def same_file(self, other: "DiskStat") -> bool:
        """As ``==``, but blind to the change time, which a rename moves."""
        return (self.device, self.inode, self.size, self.mtime_ns) == (
            other.device,
            other.inode,
            other.size,
            other.mtime_ns,
        )


@dataclass(frozen=True, slots=True)
class FileRow:
    """One remote file in the journal."""

    path: str
    """Absolute, in the workspace."""
    revision: int
    remote_hash: bytes | None
    size: int
    """Of the remote content."""
    state: FileState
    disk_path: str
    """Relative to the mirror's directory; differs from ``path`` where a name had to (I8). Empty for ignored files."""
    disk_hash: bytes | None = None
    disk_stat: DiskStat | None = None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """What the store says of a path: an upsert, or (``content_hash`` None) that it is gone."""

    path: str
    revision: int
    content_hash: bytes | None
    size: int = 0
    moved_from: str = ""
    moved: bool = False
    """The other half of a move: its content lives on elsewhere."""
    event_time_us: int = 0
    traceparent: str = ""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where in which history the journal's remote hashes stand."""

    revision: int
    history_id: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a path is not on disk as the store has it.

    ``path`` is a remote path, or a place on disk (relative) of what only the disk has, or empty: trouble of the whole.
    """

    path: str
    reason: str
    """Upper-snake, for example ``LOCAL_EDIT_KEPT``."""
    message: str
    revision: int = 0
    create_time_us: int = 0
    attempt_count: int = 1
    attempt_time_us: int = 0


@dataclass(frozen=True, slots=True)
class Settled:
    """What is now on disk for a path: the content of ``disk_hash``, or (None) nothing."""

    path: str
    disk_hash: bytes | None
    disk_stat: DiskStat | None = None
