"""Every way in which Relayfile says no, one class for each reason.

Owns the exception classes that cross module boundaries, their machine-readable reasons and their metadata. The first
paragraph of a class's docstring is its message, with the fields filled in. Refuses to know any transport: which gRPC
code and which details a class becomes is decided in ``relayfile.status`` and nowhere else.

To add a reason: write a class in the module of its group (fields may be ``str``, ``int`` or ``float``), name it here
and give it a line in the table of ``relayfile.status``. Metadata and the way back from a peer's error follow.
"""

from relayfile.errors import access, availability, existence, process, request, state
from relayfile.errors.access import (
    PermissionDenied,
    Unauthenticated,
)
from relayfile.errors.availability import (
    DeadLettersFull,
    DeadlineExpired,
    Draining,
    ExportRefused,
    Overloaded,
    Paused,
    PullStalled,
    QuotaExceeded,
    RateLimited,
    ServedLater,
    Unavailable,
)
from relayfile.errors.existence import (
    AppNotFound,
    BackupExists,
    ConflictNotFound,
    DeadLetterNotFound,
    FileNotFound,
    MirrorAlreadyExists,
    MirrorNotFound,
    OperationNotFound,
    ProviderNotFound,
    RequestIdReused,
    RouteNotFound,
    WorkspaceAlreadyExists,
    WorkspaceDeleted,
    WorkspaceNotFound,
)
from relayfile.errors.process import (
    DataCorrupted,
    PeerFailed,
    SettingError,
    StartRefused,
    StorageFailed,
)
from relayfile.errors.reason import (
    RelayfileError,
)
from relayfile.errors.request import (
    VIOLATIONS_MAX,
    FieldViolation,
    InvalidArgument,
    InvalidPath,
    PageTokenInvalid,
    TooLarge,
)
from relayfile.errors.state import (
    ClaimExpired,
    CursorExpired,
    DeadLetterReplaying,
    HistoryMismatch,
    MirrorRefused,
    NotOwner,
    OperationContentGone,
    OperationNotDeadLettered,
    PlacementStatic,
    PlanChanged,
    PreconditionRequired,
    ProxyLoop,
    RevisionConflict,
    UnsentEdits,
)

_GROUPS = (request, existence, state, access, availability, process)
ERRORS: tuple[type[RelayfileError], ...] = tuple(
    kind for group in _GROUPS for kind in RelayfileError.__subclasses__() if kind.__module__ == group.__name__
)
"""Every reason, in the order of the documentation."""

__all__ = [
    "ERRORS",
    "RelayfileError",
    "FieldViolation",
    "InvalidArgument",
    "InvalidPath",
    "PageTokenInvalid",
    "TooLarge",
    "VIOLATIONS_MAX",
    "WorkspaceNotFound",
    "WorkspaceAlreadyExists",
    "WorkspaceDeleted",
    "FileNotFound",
    "ProviderNotFound",
    "AppNotFound",
    "BackupExists",
    "ConflictNotFound",
    "DeadLetterNotFound",
    "OperationContentGone",
    "OperationNotDeadLettered",
    "OperationNotFound",
    "RouteNotFound",
    "MirrorNotFound",
    "MirrorAlreadyExists",
    "RequestIdReused",
    "RevisionConflict",
    "PreconditionRequired",
    "HistoryMismatch",
    "DeadLetterReplaying",
    "MirrorRefused",
    "UnsentEdits",
    "PlanChanged",
    "NotOwner",
    "ProxyLoop",
    "ClaimExpired",
    "CursorExpired",
    "Unauthenticated",
    "PermissionDenied",
    "PlacementStatic",
    "Overloaded",
    "QuotaExceeded",
    "PullStalled",
    "RateLimited",
    "DeadLettersFull",
    "ExportRefused",
    "Unavailable",
    "Draining",
    "Paused",
    "DeadlineExpired",
    "ServedLater",
    "DataCorrupted",
    "StorageFailed",
    "StartRefused",
    "SettingError",
    "PeerFailed",
]
