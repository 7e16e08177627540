"""The slice of current rows that an entry touches: asked for in rounds, loaded by the engine, read by the planner.

`needs` functions are pure: they say which keys the next round must load. An engine answers a round in one snapshot;
all rounds of one entry see the same snapshot.
"""

from dataclasses import dataclass, field

from relayfile.model import Outcome
from relayfile.store.plan.rows import (
    DeliveryKey,
    DirectoryRow,
    DuplicateKey,
    FileRow,
    ObjectKey,
    ObjectRow,
    WorkspaceRow,
)
from relayfile.store.plan.writeback.rows import HeldChange, OperationRow


@dataclass(slots=True)
class Needs:
    """Keys to load. Missing rows are absent from the slice."""

    deliveries: set[DeliveryKey] = field(default_factory=set)
    duplicates: set[DuplicateKey] = field(default_factory=set)
    objects: set[ObjectKey] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    directories: set[str] = field(default_factory=set)
    contents: set[int] = field(default_factory=set)
    """Content ids whose bytes are needed (patches)."""

    def __bool__(self) -> bool:
        return bool(
            self.deliveries or self.duplicates or self.objects or self.files or self.directories or self.contents
        )


@dataclass(slots=True)
class ObjectOperations:
    """What is on its way to and from providers, of the objects that an entry touches."""

    rows: dict[ObjectKey, list[OperationRow]] = field(default_factory=dict)
    """All that have not ended, and the latest that reached the provider."""
    held: dict[ObjectKey, HeldChange] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.rows or self.held)


@dataclass(slots=True)
class Slice:
    """What the rounds loaded."""

    workspace: WorkspaceRow | None = None
    deliveries: dict[DeliveryKey, tuple[str, Outcome]] = field(default_factory=dict)
    """Envelope id and outcome of known changes."""
    duplicates: set[DuplicateKey] = field(default_factory=set)
    objects: dict[ObjectKey, ObjectRow] = field(default_factory=dict)
    files: dict[str, FileRow] = field(default_factory=dict)
    directories: dict[str, DirectoryRow] = field(default_factory=dict)
    contents: dict[int, bytes] = field(default_factory=dict)
    operations: ObjectOperations = field(default_factory=ObjectOperations)
    asked: Needs = field(default_factory=Needs)
    """Bookkeeping of `more_needs`, which never asks twice: engines leave it and `complete` alone."""
    complete: bool = False
