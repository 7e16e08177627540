"""Every way in which Relayfile says no, one class for each reason.

Owns the exception classes that cross module boundaries, their machine-readable reasons and their metadata. The first
paragraph of a class's docstring is its message, with the fields filled in. Refuses to know any transport: which gRPC
code and which details a class becomes is decided in ``relayfile.status`` and nowhere else.

To add a reason: write a class here (fields may be ``str``, ``int`` or ``float``) and give it a line in the table of
``relayfile.status``. Metadata and the way back from a peer's error follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass
from typing import ClassVar, Self

VIOLATIONS_MAX = 20
"""Field violations that one answer names; the total is always told."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that was refused: where it is (``changes[3].path``) and what is wrong with it."""

    field: str
    description: str


class RelayfileError(Exception):
    """The operation failed."""

    reason: ClassVar[str] = "INTERNAL"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(self._message() if message is None else message)

    def __post_init__(self) -> None:
        RelayfileError.__init__(self)

    def metadata(self) -> dict[str, str]:
        """What a program needs to react: field name to value as text. Never secrets, never content."""
        return {name: str(getattr(self, name)) for name in self._field_types()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> Self:
        """The error that a peer described with ``metadata``; fields that are absent or unreadable are empty or zero."""
        values: dict[str, str | int | float] = {}
        for name, kind in cls._field_types().items():
            try:
                values[name] = kind(metadata.get(name, kind()))
            except ValueError:
                values[name] = kind()
        return cls(**values)  # type: ignore[arg-type]  # a dataclass's keyword fields, read from its own declaration

    @classmethod
    def _field_types(cls) -> dict[str, type[str] | type[int] | type[float]]:
        declared: Mapping[str, Field[object]] = getattr(cls, "__dataclass_fields__", {})
        kinds: dict[object, type[str | int | float]] = {str: str, int: int, float: float}
        return {name: kinds[field.type] for name, field in declared.items() if field.type != ClassVar[str]}

    @classmethod
    def metadata_keys(cls) -> tuple[str, ...]:
        """The keys of ``metadata()``, in order."""
        return tuple(cls._field_types())

    @classmethod
    def template(cls) -> str:
        """The message with the fields' names in braces: the first paragraph of the docstring."""
        return " ".join((cls.__doc__ or cls.reason).split("\n\n")[0].split())

    def _message(self) -> str:
        template = self.template()
        values = {name: getattr(self, name) for name in self._field_types()}
        return template.format_map(values) if values else template


# --- bad input ------------------------------------------------------------------------------------------------------


class InvalidArgument(RelayfileError):
    """The request is not valid.

    Carries every violation that was found, up to ``VIOLATIONS_MAX``, and how many there were in all.
    """

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Sequence[FieldViolation], total: int | None = None) -> None:
        if not violations:
            raise ValueError("an InvalidArgument names at least one field")
        self.violations: tuple[FieldViolation, ...] = tuple(violations[:VIOLATIONS_MAX])
        self.total: int = max(len(violations), total or 0)
        first = self.violations[0]
        more = f" (and {self.total - 1} more)" if self.total > 1 else ""
        super().__init__(f"{first.field}: {first.description}{more}")

    @classmethod
    def of(cls, field: str, description: str) -> "InvalidArgument":
        """The usual case of one field."""
        return cls([FieldViolation(field, description)])

    def metadata(self) -> dict[str, str]:
        return {"violations": str(self.total)}

    @classmethod
    def metadata_keys(cls) -> tuple[str, ...]:
        return ("violations",)


@dataclass(kw_only=True, eq=False)
class InvalidPath(RelayfileError):
    """The path {path!r} cannot be written: it {why}."""

    reason: ClassVar[str] = "INVALID_PATH"
    path: str
    why: str


@dataclass(kw_only=True, eq=False)
class PageTokenInvalid(RelayfileError):
    """The page token does not belong to this request: {why}."""

    reason: ClassVar[str] = "PAGE_TOKEN_INVALID"
    why: str


@dataclass(kw_only=True, eq=False)
class TooLarge(RelayfileError):
    """The {what} has {size} bytes; at most {limit} are accepted."""

    reason: ClassVar[str] = "TOO_LARGE"
    what: str
    size: int
    limit: int


# --- not there, already there ---------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class WorkspaceNotFound(RelayfileError):
    """There is no workspace {workspace!r}."""

    reason: ClassVar[str] = "WORKSPACE_NOT_FOUND"
    workspace: str


@dataclass(kw_only=True, eq=False)
class WorkspaceAlreadyExists(RelayfileError):
    """The workspace {workspace!r} exists already."""

    reason: ClassVar[str] = "WORKSPACE_EXISTS"
    workspace: str


@dataclass(kw_only=True, eq=False)
class WorkspaceDeleted(RelayfileError):
    """The workspace {workspace!r} was deleted; its name is free again when its tombstone has expired."""

    reason: ClassVar[str] = "WORKSPACE_DELETED"
    workspace: str


@dataclass(kw_only=True, eq=False)
class FileNotFound(RelayfileError):
    """There is no file {path!r}."""

    reason: ClassVar[str] = "FILE_NOT_FOUND"
    path: str


@dataclass(kw_only=True, eq=False)
class ProviderNotFound(RelayfileError):
    """There is no provider {provider!r}."""

    reason: ClassVar[str] = "PROVIDER_NOT_FOUND"
    provider: str


@dataclass(kw_only=True, eq=False)
class DeadLetterNotFound(RelayfileError):
    """There is no dead letter {dead_letter!r}."""

    reason: ClassVar[str] = "DEAD_LETTER_NOT_FOUND"
    dead_letter: str


@dataclass(kw_only=True, eq=False)
class OperationNotFound(RelayfileError):
    """There is no operation {operation!r}."""

    reason: ClassVar[str] = "OPERATION_NOT_FOUND"
    operation: str


@dataclass(kw_only=True, eq=False)
class RouteNotFound(RelayfileError):
    """There is no route for tenant {tenant!r} of app {app!r}."""

    reason: ClassVar[str] = "ROUTE_NOT_FOUND"
    app: str
    tenant: str


@dataclass(kw_only=True, eq=False)
class MirrorNotFound(RelayfileError):
    """There is no mirror {mirror!r}."""

    reason: ClassVar[str] = "MIRROR_NOT_FOUND"
    mirror: str


@dataclass(kw_only=True, eq=False)
class MirrorAlreadyExists(RelayfileError):
    """The directory {root!r} is a mirror already."""

    reason: ClassVar[str] = "MIRROR_ALREADY_EXISTS"
    root: str


@dataclass(kw_only=True, eq=False)
class RequestIdReused(RelayfileError):
    """The request id {request_id!r} was used for another request."""

    reason: ClassVar[str] = "REQUEST_ID_REUSED"
    request_id: str


# --- preconditions --------------------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class RevisionConflict(RelayfileError):
    """The file is at revision {current}, not at {expected}."""

    reason: ClassVar[str] = "REVISION_CONFLICT"
    expected: int
    current: int


@dataclass(kw_only=True, eq=False)
class PreconditionRequired(RelayfileError):
    """Say which revision of {path!r} is to be replaced (if_revision), or force."""

    reason: ClassVar[str] = "PRECONDITION_REQUIRED"
    path: str


@dataclass(kw_only=True, eq=False)
class HistoryMismatch(RelayfileError):
    """The workspace has the history {current!r}, not {expected!r}."""

    reason: ClassVar[str] = "HISTORY_MISMATCH"
    expected: str
    current: str


@dataclass(kw_only=True, eq=False)
class DeadLetterReplaying(RelayfileError):
    """The dead letter {dead_letter!r} is being replayed."""

    reason: ClassVar[str] = "DEAD_LETTER_REPLAYING"
    dead_letter: str


@dataclass(kw_only=True, eq=False)
class MirrorRefused(RelayfileError):
    """The mirror {mirror!r} stopped to protect what is on disk: {why}."""

    reason: ClassVar[str] = "MIRROR_REFUSED"
    mirror: str
    why: str


@dataclass(kw_only=True, eq=False)
class NotOwner(RelayfileError):
    """Shard {shard} is not served here; at epoch {epoch} it is served at {address!r}."""

    reason: ClassVar[str] = "NOT_OWNER"
    shard: int
    epoch: int
    address: str


@dataclass(kw_only=True, eq=False)
class ProxyLoop(RelayfileError):
    """A call that was proxied once for shard {shard} arrived at another wrong node."""

    reason: ClassVar[str] = "PROXY_LOOP"
    shard: int


@dataclass(kw_only=True, eq=False)
class ClaimExpired(RelayfileError):
    """The claim {claim} on operation {operation!r} has ended."""

    reason: ClassVar[str] = "CLAIM_EXPIRED"
    operation: str
    claim: int


@dataclass(kw_only=True, eq=False)
class CursorExpired(RelayfileError):
    """The cursor is no longer retained: events of history {history_id!r} start after revision {oldest}."""

    reason: ClassVar[str] = "CURSOR_EXPIRED"
    history_id: str
    oldest: int


@dataclass(kw_only=True, eq=False)
class Unauthenticated(RelayfileError):
    """The caller is not known: {why}."""

    reason: ClassVar[str] = "UNAUTHENTICATED"
    why: str


@dataclass(kw_only=True, eq=False)
class PermissionDenied(RelayfileError):
    """The caller may not do this: {why}."""

    reason: ClassVar[str] = "PERMISSION_DENIED"
    why: str


# --- limits and availability ----------------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class Overloaded(RelayfileError):
    """The {what} is full; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "OVERLOADED"
    what: str
    retry_after_s: float


@dataclass(kw_only=True, eq=False)
class QuotaExceeded(RelayfileError):
    """The workspace's quota of {limit} {what} is used up."""

    reason: ClassVar[str] = "QUOTA_EXCEEDED"
    what: str
    limit: int


@dataclass(kw_only=True, eq=False)
class ExportRefused(RelayfileError):
    """The export is refused ({why}); list the tree and read its files instead."""

    reason: ClassVar[str] = "EXPORT_REFUSED"
    why: str


@dataclass(kw_only=True, eq=False)
class Unavailable(RelayfileError):
    """The {what} is not available now; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "UNAVAILABLE"
    what: str
    retry_after_s: float = 1.0


@dataclass(kw_only=True, eq=False)
class Draining(RelayfileError):
    """This process is stopping; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "DRAINING"
    retry_after_s: float = 1.0


@dataclass(kw_only=True, eq=False)
class Paused(RelayfileError):
    """Deliveries for {what} are paused; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "PAUSED"
    what: str
    retry_after_s: float = 30.0


@dataclass(kw_only=True, eq=False)
class DeadlineExpired(RelayfileError):
    """The deadline of the call passed while it waited for {what}."""

    reason: ClassVar[str] = "DEADLINE_EXPIRED"
    what: str


@dataclass(kw_only=True, eq=False)
class ServedLater(RelayfileError):
    """{rpc} is part of the API and is not served by this version."""

    reason: ClassVar[str] = "NOT_IMPLEMENTED_YET"
    rpc: str


# --- damage, and refusals to start ----------------------------------------------------------------------------------


@dataclass(kw_only=True, eq=False)
class DataCorrupted(RelayfileError):
    """Stored data is damaged: {what}."""

    reason: ClassVar[str] = "DATA_CORRUPTED"
    what: str


@dataclass(kw_only=True, eq=False)
class StorageFailed(RelayfileError):
    """The disk failed ({what}); nothing more is acknowledged and the process ends.

    After this error the process must exit: an fsync that failed once is never tried again.
    """

    reason: ClassVar[str] = "STORAGE_FAILED"
    what: str


@dataclass(kw_only=True, eq=False)
class StartRefused(RelayfileError):
    """Refused to start: {why}."""

    reason: ClassVar[str] = "START_REFUSED"
    why: str


@dataclass(kw_only=True, eq=False)
class SettingError(RelayfileError):
    """{variable} {problem}; {way_out}"""

    reason: ClassVar[str] = "SETTING_INVALID"
    variable: str
    problem: str
    way_out: str


@dataclass(kw_only=True, eq=False)
class PeerFailed(RelayfileError):
    """The peer answered {code}: {detail}

    A status that is not ours: from a proxy, from gRPC itself, or an ``INTERNAL`` whose text the peer keeps to itself.
    """

    reason: ClassVar[str] = "PEER_FAILED"
    code: str
    detail: str


ERRORS: tuple[type[RelayfileError], ...] = tuple(RelayfileError.__subclasses__())
"""Every reason of this module, in the order of the documentation."""
