"""What a client gets: plain values with Python's own types. Times are aware datetimes in UTC, hashes 32 raw bytes."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from relayfile.errors import RelayfileError
from relayfile.model import EventType, Origin, Semantics


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a workspace's log: everything up to `revision` was seen. It is of one history and no other's."""

    revision: int
    history_id: str


@dataclass(frozen=True, slots=True)
class Totals:
    """What a directory holds, at any depth."""

    file_count: int
    total_bytes: int
    digest: bytes
    """Equal digests: equal trees, in paths and content."""


@dataclass(frozen=True, slots=True)
class File:
    """A file without its bytes."""

    path: str
    revision: int
    """The revision of the workspace that last changed it: what `if_revision` is compared with."""
    content_sha256: bytes
    size_bytes: int
    content_type: str
    provider: str
    """Whose object it is; empty for a file that an agent made."""
    object_id: str
    """`<type>/<id>` at the provider; empty without one."""
    modify_time: datetime
    stale_since: datetime | None
    """Set while the provider is known to have newer content."""
    origin: Origin
    semantics: Semantics


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory in a listing."""

    path: str
    totals: Totals
    revision: int
    entry_count: int


@dataclass(frozen=True, slots=True)
class Content:
    """A file with its bytes."""

    file: File
    data: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """A directory's digest, read in one snapshot."""

    directory: Directory
    partial: bool
    """True: only over what the caller may read."""
    at: Cursor


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a write or a move."""

    file: File
    changed: bool
    """False: it was like that before, and took no revision."""
    operation_id: str
    """The operation that carries the edit to its provider; empty when none does."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """What became of a delete."""

    revision: int
    operation_id: str


@dataclass(frozen=True, slots=True)
class Write:
    """An item of `write_many`: create or replace. At most 1 MiB."""

    path: str
    content: bytes
    if_revision: int | None = None
    """As in `Files.write`; None: whatever is there."""
    content_type: str = ""
    semantics: Semantics | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """An item of `write_many`: delete."""

    path: str
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """An item of `write_many`: move."""

    path: str
    to_path: str
    if_revision: int | None = None


@dataclass(frozen=True, slots=True)
class ItemResult:
    """How one item of `write_many` ended."""

    error: RelayfileError | None
    """None: it was done. `RevisionConflict`, `FileNotFound`, `InvalidPath`, ..."""
    file: File | None
    """As it is now; None after a delete or an error."""
    changed: bool
    operation_id: str


@dataclass(frozen=True, slots=True)
class Event:
    """What happened in a workspace: one for each revision."""

    revision: int
    type: EventType
    path: str
    moved_to: str
    """On the deletion half of a move, for callers who may read that path."""
    moved_from: str
    content_sha256: bytes
    size_bytes: int
    origin: Origin
    provider: str
    correlation_id: str
    traceparent: str
    event_time: datetime
    operation_id: str


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events; an empty field selects all, several values of one field any of them."""

    path_globs: tuple[str, ...] = ()
    """`*` within a segment, `**` over segments."""
    providers: tuple[str, ...] = ()
    types: tuple[EventType, ...] = ()
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Quota:
    """What a workspace may hold; 0: the node's default."""

    files_max: int = 0
    total_bytes_max: int = 0


@dataclass(frozen=True, slots=True)
class WorkspaceInfo:
    """A workspace as it is."""

    workspace_id: str
    at: Cursor
    totals: Totals
    quota: Quota
    create_time: datetime
    modify_time: datetime | None
    """When the revision was made; None while it is 0."""
    delete_time: datetime | None
    """Set for the tombstone of a deleted one."""


class OperationKind(IntEnum):
    """What an operation does."""

    WRITE = 1
    DELETE = 2
    MOVE = 3
    FETCH = 4


class OperationState(IntEnum):
    """Where an operation is in its life."""

    PENDING = 1
    CLAIMED = 2
    SUCCEEDED = 3
    DEAD_LETTERED = 4
    SUPERSEDED = 5
    CANCELED = 6
    QUARANTINED = 7


@dataclass(frozen=True, slots=True)
class Operation:
    """A piece of work between a file and its provider."""

    operation_id: str
    workspace_id: str
    provider: str
    object_id: str
    """Empty for a draft."""
    kind: OperationKind
    state: OperationState
    path: str
    moved_from: str
    draft: bool
    revision: int
    content_sha256: bytes
    size_bytes: int
    content_type: str
    semantics: Semantics
    claim_number: int
    claimed_by: str
    attempt_count: int
    failure: str
    """Reason and message of the latest try that failed; empty when none did."""
    actor: str
    correlation_id: str
    create_time: datetime
    claimable_time: datetime | None
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An operation that is the caller's until `expire_time`."""

    operation: Operation
    number: int
    idempotency_key: str
    """For the provider: the same for every try of one claim."""
    expire_time: datetime
    content: bytes
    """Of the operation's revision; empty when `content_omitted`."""
    content_omitted: bool
    """The content is too large for the message: `Operations.content` reads it."""
