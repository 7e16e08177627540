"""What is asked for is not there, or is there already."""

from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError


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
class BackupExists(RelayfileError):
    """The node has a copy named {directory!r} already."""

    reason: ClassVar[str] = "BACKUP_EXISTS"
    directory: str


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
class AppNotFound(RelayfileError):
    """There is no app {app!r}."""

    reason: ClassVar[str] = "APP_NOT_FOUND"
    app: str


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
class ConflictNotFound(RelayfileError):
    """The mirror has no conflict {conflict!r}, or no longer."""

    reason: ClassVar[str] = "CONFLICT_NOT_FOUND"
    conflict: str


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
