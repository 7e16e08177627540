"""The request is fine, and what it meets is in another state than it takes for granted."""

from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError


@dataclass(kw_only=True, eq=False)
class RevisionConflict(RelayfileError):
    """The file is at revision {current}, not at {expected}."""

    reason: ClassVar[str] = "REVISION_CONFLICT"
    expected: int
    current: int
    preview: str = ""
    """The start of the file as it is, at most 1,000 bytes, for a caller that may read it; empty when it is no text."""


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
class UnsentEdits(RelayfileError):
    """The mirror {mirror!r} has {edits} edits that the store did not acknowledge and {conflicts} open
    conflicts: send and resolve them, or force."""

    reason: ClassVar[str] = "UNSENT_EDITS"
    mirror: str
    edits: int
    conflicts: int


@dataclass(kw_only=True, eq=False)
class PlanChanged(RelayfileError):
    """The plan {plan!r} is not the one that waits for a decision; that is {current!r}."""

    reason: ClassVar[str] = "PLAN_CHANGED"
    plan: str
    current: str
    """Empty when none waits."""


@dataclass(kw_only=True, eq=False)
class NotOwner(RelayfileError):
    """Shard {shard} is not served here; at epoch {epoch} it is served at {address!r}."""

    reason: ClassVar[str] = "NOT_OWNER"
    shard: int
    epoch: int
    address: str


@dataclass(kw_only=True, eq=False)
class PlacementStatic(RelayfileError):
    """Node {node} keeps its shards: in a fixed list of nodes they cannot move to others."""

    reason: ClassVar[str] = "PLACEMENT_STATIC"
    node: int


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
class OperationNotDeadLettered(RelayfileError):
    """The operation {operation!r} is {state}; only a dead-lettered one is replayed."""

    reason: ClassVar[str] = "OPERATION_NOT_DEAD_LETTERED"
    operation: str
    state: str


@dataclass(kw_only=True, eq=False)
class OperationContentGone(RelayfileError):
    """The operation {operation!r} keeps no such content: {why}."""

    reason: ClassVar[str] = "OPERATION_CONTENT_GONE"
    operation: str
    why: str


@dataclass(kw_only=True, eq=False)
class CursorExpired(RelayfileError):
    """The cursor is no longer retained: events of history {history_id!r} start after revision {oldest}."""

    reason: ClassVar[str] = "CURSOR_EXPIRED"
    history_id: str
    oldest: int
