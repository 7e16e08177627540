"""Operations as values: one row of the table, what is known of its object's provider, and what a plan writes of them.

Pure. The numbers of the enums are those of `relayfile.v1`. Times are Unix microseconds, hashes 32 bytes.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import Final, NamedTuple

from relayfile.model import NO_SEMANTICS, Semantics
from relayfile.store.plan.entry import Member
from relayfile.store.plan.rows import ObjectKey

CONTENT_OF_FILE: Final = -1
"""Content id of an operation that takes the content of the file at its path, as the same plan leaves it."""


FREED_US: Final = 0
"""As `HeldChange.held_us`: longer than any wait."""


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


UNFINISHED: Final = frozenset({OperationState.PENDING, OperationState.CLAIMED, OperationState.QUARANTINED})
UNCLAIMED: Final = frozenset({OperationState.PENDING, OperationState.QUARANTINED})


class ProviderKnown(NamedTuple):
    """What the provider had of an object before the first edit that is folded in an operation."""

    content_sha256: bytes
    size_bytes: int
    content_type: str
    deleted: bool = False


class OperationFault(NamedTuple):
    """How a try failed."""

    reason: str
    message: str
    retryable: bool
    retry_after_us: int | None = None
    provider_status: int = 0


class OperationRow(NamedTuple):
    """One piece of work between a file and its provider."""

    operation_id: str
    provider: str
    object_key: str
    """As of the object; of a file without one `p:<path>`."""
    kind: OperationKind
    state: OperationState
    path: str
    revision: int
    """That made it; of a fetch the file's, 0 without one."""
    actor: str
    created_us: int
    claimable_us: int
    moved_from: str = ""
    is_draft: bool = False
    """The file has no object yet."""
    base_revision: int = 0
    folded_count: int = 1
    content_id: int = 0
    """0: there is none. Kept readable until the operation has ended for good."""
    content_sha256: bytes = b""
    size_bytes: int = 0
    content_type: str = ""
    semantics: Semantics = NO_SEMANTICS
    known: ProviderKnown | None = None
    claim_number: int = 0
    claimed_by: str = ""
    claimed_us: int | None = None
    """When the latest claim was given."""
    claim_expire_us: int | None = None
    """None: nobody has it."""
    claim_request: str = ""
    """The request that claimed it, so that a repeat gets the same claim."""
    attempt_count: int = 0
    is_blocked: bool = False
    """An earlier operation of the object has not ended."""
    fault: OperationFault | None = None
    superseded_by: str = ""
    quarantine_id: str = ""
    result: bytes = b""
    """A serialised `OperationSuccess` without content."""
    result_sha256: bytes = b""
    """Of the content that the worker said the provider made of it; empty when it said nothing."""
    is_owed: bool = False
    """An earlier write may have reached the provider after this one began: when this one succeeds, the current content
    is queued once more."""
    correlation_id: str = ""
    traceparent: str = ""
    modified_us: int = 0
    ended_us: int | None = None
    version: int = 0

    @property
    def key(self) -> ObjectKey:
        """Its object."""
        return ObjectKey(self.provider, self.object_key)

    @property
    def idempotency_key(self) -> str:
        """For the provider: the same for every try of one claim."""
        return f"{self.operation_id}-{self.claim_number}"


class HeldChange(NamedTuple):
    """The provider's latest version of an object with unfinished edits: known and counted, not yet a revision."""

    key: ObjectKey
    member: Member
    """An upsert with its whole content, or a delete."""
    held_us: int
    """Since when changes of the object are held; `FREED_US`: they wait for no edit any more."""
    content_id: int = 0
    """Of the stored change; 0 in a plan."""
    ingest_id: str = ""

    @property
    def content_sha256(self) -> bytes:
        """Of the version's content."""
        return sha256(self.member.content or b"").digest()


@dataclass(slots=True)
class OperationChanges:
    """What a plan writes of operations."""

    rows: list[OperationRow] = field(default_factory=list)
    """Each as it is then; new ones and changed ones."""
    held_put: list[HeldChange] = field(default_factory=list)
    held_removed: list[HeldChange] = field(default_factory=list)
    """Before `held_put`."""
    held_freed: list[ObjectKey] = field(default_factory=list)
    """Objects whose last edit ended without an answer: what is held of them is due."""
