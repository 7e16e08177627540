"""What a mirror is, and what it shows of itself, as values. Pure."""

from dataclasses import dataclass
from enum import IntEnum

from relayfile.errors import RelayfileError
from relayfile.syncd.audit import AuditResult, Swept
from relayfile.syncd.bring import DeletePlan


class MirrorState(IntEnum):
    """The numbers are those of ``relayfile.v1.MirrorState``."""

    STOPPED = 1
    PULLING = 2
    FOLLOWING = 3
    DISCONNECTED = 4
    HALTED = 5
    ERROR = 6


@dataclass(frozen=True, slots=True)
class MirrorRecord:
    """What a mirror is: as it was asked for."""

    mirror_id: str
    workspace_id: str
    directory: str
    remote_paths: tuple[str, ...]
    follow: bool
    read_only: bool
    token_file: str
    create_time_us: int


@dataclass(frozen=True, slots=True)
class Halt:
    """A safety rail stopped the mirror."""

    reason: str
    message: str
    time_us: int
    plan: DeletePlan | None = None


@dataclass(frozen=True, slots=True)
class Differing:
    """Files that an audit found to differ, and that no list names."""

    count: int
    """Before the repair."""
    repaired_count: int
    paths: tuple[str, ...]
    """The first of them, by path."""


@dataclass(frozen=True, slots=True)
class Audited:
    """The last comparison."""

    result: AuditResult
    start_us: int
    duration_s: float
    wire_bytes: int = 0
    """Of messages to and from the store; a mark in the event stream costs none."""
    swept: Swept | None = None
    differing: Differing | None = None
    """None: of a mark, which looks for nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a mirror shows of itself."""

    state: MirrorState = MirrorState.STOPPED
    halt: Halt | None = None
    error: RelayfileError | None = None
    audited: Audited | None = None
    fresh_time_us: int = 0
    remote_revision: int = 0
    sweep_time_us: int = 0
