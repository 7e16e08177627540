"""The operations of a workspace in the middle of a plan: those of the objects that it touches, as they become.

Owns what holds between the operations of one object: one is claimed at most, the others wait in order of revision, and
claims are `spacing_us` apart. And that every end that people hear of is an event with a revision. Refuses to load and
to write.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from relayfile.model import EventType, Origin
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import EventRow, ObjectKey
from relayfile.store.plan.rules import carried
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.plan.writeback.rows import (
    UNFINISHED,
    HeldChange,
    OperationChanges,
    OperationKind,
    OperationRow,
    OperationState,
)

_TOLD: Final = {
    OperationState.SUCCEEDED: EventType.WRITEBACK_SUCCEEDED,
    OperationState.DEAD_LETTERED: EventType.WRITEBACK_FAILED,
    OperationState.SUPERSEDED: EventType.WRITEBACK_SUPERSEDED,
}
"""Canceled and quarantined make no event."""


class OperationQueue:
    """See the module. `loaded` holds of each touched object all operations that have not ended."""

    __slots__ = (
        "_before", "_by_object", "_ends", "_held_freed", "_held_put", "_held_removed", "_new_id", "_rows", "_touched",
        "limits",
        "now_us",
    )  # fmt: skip

    def __init__(
        self, loaded: Iterable[OperationRow], limits: WritebackLimits, now_us: int, new_id: Callable[[], str]
    ) -> None:
        self.limits = limits
        self.now_us = now_us
        self._new_id = new_id
        self._before: dict[str, OperationRow] = {row.operation_id: row for row in loaded}
        self._rows = dict(self._before)
        self._by_object = grouped(self._before.values())
        self._touched: dict[ObjectKey, None] = {}
        self._ends: list[str] = []
        self._held_put: list[HeldChange] = []
        self._held_removed: list[HeldChange] = []
        self._held_freed: list[ObjectKey] = []

    def new_id(self) -> str:
        """For an operation or a quarantine."""
        return self._new_id()

    def get(self, operation_id: str) -> OperationRow | None:
        """One operation as it is now."""
        return self._rows.get(operation_id)

    def rows(self) -> Sequence[OperationRow]:
        """All that are known."""
        return list(self._rows.values())

    def of(self, key: ObjectKey) -> list[OperationRow]:
        """What is known of an object's operations, ended ones too, in the order in which they are to be done."""
        return sorted((self._rows[each] for each in self._by_object.get(key, ())), key=_order)

    def unfinished(self, key: ObjectKey) -> list[OperationRow]:
        """Those of an object that have not ended."""
        return [row for row in self.of(key) if row.state in UNFINISHED]

    def unclaimed_edit(self, key: ObjectKey) -> OperationRow | None:
        """The edit of an object into which the next one folds. There is one at most."""
        found = [row for row in self.unfinished(key) if is_edit(row) and row.state is not OperationState.CLAIMED]
        assert len(found) <= 1, f"several unclaimed edits of {key}"
        return found[0] if found else None

    def unclaimed_fetch(self, key: ObjectKey) -> OperationRow | None:
        """The fetch of an object that nobody has begun."""
        found = [row for row in self.unfinished(key) if not is_edit(row) and row.state is OperationState.PENDING]
        return found[0] if found else None

    def has_edits(self, key: ObjectKey) -> bool:
        """Whether an edit of the object is on its way to the provider."""
        return any(is_edit(row) for row in self.unfinished(key))

    def not_before_us(self, key: ObjectKey) -> int:
        """When the object may be claimed again."""
        claims = [row.claimed_us for row in self.of(key) if row.claimed_us is not None]
        return max(self.now_us, max(claims) + self.limits.spacing_us) if claims else self.now_us

    def put(self, row: OperationRow) -> None:
        """A new operation, or the next step of one. An end that is an event takes its revision in this order."""
        before = self._rows.get(row.operation_id)
        if before is not None:
            self._touched[before.key] = None
            if before.state is not row.state and row.state in _TOLD:
                self._ends.append(row.operation_id)
            if before.key != row.key:
                self._by_object[before.key].remove(row.operation_id)
        if before is None or before.key != row.key:
            self._by_object.setdefault(row.key, []).append(row.operation_id)
        self._rows[row.operation_id] = row
        self._touched[row.key] = None

    def adopt(self, row: OperationRow) -> None:
        """Another loaded operation, whose object's others need not be known: it is only put aside."""
        self._before[row.operation_id] = self._rows[row.operation_id] = row
        self._by_object.setdefault(row.key, []).append(row.operation_id)

    def put_aside(self, row: OperationRow) -> None:
        """A step that changes nothing of the order of its object's operations."""
        self._rows[row.operation_id] = row

    def hold(self, change: HeldChange, instead_of: HeldChange | None) -> None:
        """Keep a provider's change until the object's edits have ended."""
        self.let_go(instead_of)
        self._held_put.append(change)

    def let_go(self, change: HeldChange | None) -> None:
        """What was held has become a revision, or is needless."""
        if change is not None and change.content_id:
            self._held_removed.append(change)

    def free(self, key: ObjectKey) -> None:
        """What is held of the object waits for nothing any more. Whoever tends operations releases it, at once."""
        self._held_freed.append(key)

    def settle(self, plan: Plan) -> None:
        """Complete a plan: rows, and events after those that it has. Its files are settled already."""
        self.line_up()
        changed = [self._written(row) for row in self._rows.values() if row is not self._before.get(row.operation_id)]
        if not (changed or self._held_put or self._held_removed or self._held_freed):
            return
        if self._ends:
            assert plan.workspace is not None, "operations are of a workspace that exists"
            revision = plan.workspace.revision
            for operation_id in self._ends:
                revision += 1
                plan.events.append(_event(self._rows[operation_id], revision, self.now_us))
            plan.workspace = plan.workspace._replace(revision=revision)
            plan.workspace_changed = True
        plan.operations = OperationChanges(changed, self._held_put, self._held_removed, self._held_freed)

    def line_up(self) -> None:
        """Say of each touched object what of it may be claimed."""
        for key in self._touched:
            self._line_up(key)

    def _written(self, row: OperationRow) -> OperationRow:
        before = self._before.get(row.operation_id)
        return row._replace(modified_us=self.now_us, version=1 if before is None else before.version + 1)

    def _line_up(self, key: ObjectKey) -> None:
        """The first of an object's unfinished operations may be claimed, the others wait for its end."""
        for place, row in enumerate(self.unfinished(key)):
            is_blocked = place > 0
            if is_blocked is row.is_blocked:
                continue
            claimable_us = row.claimable_us if is_blocked else max(row.claimable_us, self.not_before_us(key))
            self._rows[row.operation_id] = row._replace(is_blocked=is_blocked, claimable_us=claimable_us)


def is_edit(row: OperationRow) -> bool:
    """Whether it carries something to the provider."""
    return row.kind is not OperationKind.FETCH


def grouped(rows: Iterable[OperationRow]) -> dict[ObjectKey, list[str]]:
    """Ids by object."""
    found: dict[ObjectKey, list[str]] = {}
    for row in rows:
        found.setdefault(row.key, []).append(row.operation_id)
    return found


def _order(row: OperationRow) -> tuple[bool, int, str]:
    return row.state is not OperationState.CLAIMED, row.revision, row.operation_id


def _event(row: OperationRow, revision: int, now_us: int) -> EventRow:
    return EventRow(
        revision=revision,
        type=_TOLD[row.state],
        path=row.path,
        moved_to="",
        moved_from="",
        content_sha256=row.content_sha256,
        size_bytes=row.size_bytes,
        origin=Origin.SYSTEM,
        provider=row.provider,
        correlation_id=row.correlation_id,
        traceparent=row.traceparent,
        committed_us=now_us,
        operation_id=row.operation_id,
        rules=carried(row.path, row.semantics),
    )
