"""What a plan says: the rows to write in one transaction, and the answer for each member. Pure values."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from relayfile.model import Failure, Outcome
from relayfile.store.plan.buckets import BucketChanges
from relayfile.store.plan.file_index import IndexChanges
from relayfile.store.plan.rows import (
    AdminActionRow,
    DeadLetterRow,
    DeliveryKey,
    DeliveryRow,
    DirectoryRow,
    DuplicateRow,
    EventRow,
    FileRow,
    ObjectRow,
    PauseRow,
    RequestRow,
    WorkspaceRow,
)

if TYPE_CHECKING:
    from relayfile.store.plan.letters import LetterChanges
    from relayfile.store.plan.writeback.rows import OperationChanges


class FilePut(NamedTuple):
    """A file to insert or replace. `content` None: only metadata changed and `row.content_id` stays valid."""

    row: FileRow
    content: bytes | None


class MemberResult(NamedTuple):
    """The answer for one member. `outcome` None: an elided content is needed, the whole fold must come again."""

    outcome: Outcome | None
    failure: Failure | None = None
    counted: bool = True
    """False for a resend: it answers what was recorded and counts nothing."""


@dataclass(slots=True)
class Plan:
    """One entry's effect. Nothing of it is visible before its commit."""

    workspace_id: str
    workspace: WorkspaceRow | None
    """None: it never existed, and everything new was ignored."""
    workspace_changed: bool = False
    files_put: dict[str, FilePut] = field(default_factory=dict)
    files_deleted: set[str] = field(default_factory=set)
    contents_released: list[int] = field(default_factory=list)
    """Content ids that no file refers to any more."""
    directories_put: dict[str, DirectoryRow] = field(default_factory=dict)
    directories_deleted: set[str] = field(default_factory=set)
    index: IndexChanges = field(default_factory=IndexChanges)
    """By what files are found."""
    buckets: BucketChanges = field(default_factory=BucketChanges)
    """Of wide directories."""
    objects_put: list[ObjectRow] = field(default_factory=list)
    deliveries_put: list[DeliveryRow] = field(default_factory=list)
    duplicates_put: list[DuplicateRow] = field(default_factory=list)
    events: list[EventRow] = field(default_factory=list)
    dead_letters: list[DeadLetterRow] = field(default_factory=list)
    dead_letters_resolved: set[tuple[DeliveryKey, str]] = field(default_factory=set)
    """(change, envelope) of dead letters whose redelivery was planned. Removed before `dead_letters` are added."""
    letters: "LetterChanges | None" = None
    """What becomes of dead letters that are named one by one: replays, acknowledgements."""
    operations: "OperationChanges | None" = None
    """What becomes of write-back operations and of what is held for their sake."""
    outcome_counts: dict[tuple[str, Outcome], int] = field(default_factory=dict)
    """(provider, outcome) -> what to add; negative where a dead letter was planned again and its outcome moves."""
    last_received_us: dict[str, int] = field(default_factory=dict)
    """Provider -> newest receive time among the entry's members."""
    requests_put: list[RequestRow] = field(default_factory=list)
    """Answers to remember; `relayfile.store.once` adds them."""
    admin_actions_put: list[AdminActionRow] = field(default_factory=list)
    """What was ordered, recorded with its effect."""
    pauses_put: list[PauseRow] = field(default_factory=list)
    pauses_ended: list[str] = field(default_factory=list)
    """Their providers."""
    results: list[tuple[MemberResult, ...]] = field(default_factory=list)
    """Per fold of the entry, in order; per member, in order."""
