"""What servicers and kinds of mutation read of a workspace's operations: a part of the storage seam.

Owns the Protocol and the filter. See `relayfile.store.engine` for the rules of a view.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from relayfile.store.plan.rows import ObjectKey
from relayfile.store.plan.slice import ObjectOperations
from relayfile.store.plan.writeback.rows import HeldChange, OperationRow


@dataclass(frozen=True, slots=True)
class OperationFilter:
    """Which operations; empty fields select all. Enums by their numbers in `relayfile.v1`."""

    providers: frozenset[str] = frozenset()
    kinds: frozenset[int] = frozenset()
    states: frozenset[int] = frozenset()
    path: str = ""
    """A file, or a directory with all below it."""
    object_id: str = ""
    quarantine_id: str = ""
    created_from_us: int | None = None
    created_before_us: int | None = None

    def selects(self, row: OperationRow) -> bool:
        """Whether it is one of them."""
        return (
            (not self.providers or row.provider in self.providers)
            and (not self.kinds or row.kind in self.kinds)
            and (not self.states or row.state in self.states)
            and (not self.path or row.path == self.path or row.path.startswith(self.path + "/"))
            and (not self.object_id or row.object_key == "o:" + self.object_id)
            and (not self.quarantine_id or row.quarantine_id == self.quarantine_id)
            and (self.created_from_us is None or row.created_us >= self.created_from_us)
            and (self.created_before_us is None or row.created_us < self.created_before_us)
        )


class OperationView(Protocol):
    """Operations of one workspace, in the same snapshot. Lists are in the order in which they are to be done."""

    async def by_ids(self, operation_ids: Iterable[str]) -> dict[str, OperationRow]:
        """Those that exist."""
        ...

    async def of_objects(self, objects: Iterable[ObjectKey]) -> ObjectOperations:
        """Of each object all that have not ended, the latest that reached its provider, and what is held."""
        ...

    async def held_of(self, objects: Iterable[ObjectKey]) -> dict[ObjectKey, HeldChange]:
        """What is held of the objects."""
        ...

    async def listed(self, chosen: OperationFilter, before_id: str, limit: int) -> tuple[list[OperationRow], str]:
        """(the chosen, newest first and older than `before_id`; the id to go on before, empty at the end). Fewer than
        `limit` are no end: a page reads some thousand rows at most."""
        ...

    async def changed_after(self, change_number: int, limit: int) -> tuple[list[OperationRow], int]:
        """(operations that changed after it, each once and as it is now; the number up to which was looked)."""
        ...

    async def newest_change(self) -> int:
        """The number of the last change; 0 without operations."""
        ...

    async def claimable_providers(self) -> list[str]:
        """Those of which something waits that no other operation is before."""
        ...

    async def claimable(self, provider: str, now_us: int, limit: int) -> list[OperationRow]:
        """What may be claimed, what became so first, first."""
        ...

    async def next_claimable_us(self, provider: str, now_us: int) -> int | None:
        """When the next one becomes claimable, after now."""
        ...

    async def claimed(self, provider: str) -> list[OperationRow]:
        """What is claimed, overdue claims too; what ends first, first."""
        ...

    async def claim_ends(self) -> dict[str, int]:
        """Provider -> when its next claim ends."""
        ...

    async def claimed_by_request(self, request_id: str) -> list[OperationRow]:
        """What is claimed by a request with this id, overdue claims too."""
        ...

    async def recent_deletes(self, after_us: int, limit: int) -> int:
        """Deletes made since then that were not approved, counted up to `limit`."""
        ...

    async def open_quarantine(self) -> str:
        """The group that waits for an approval; empty when none does."""
        ...

    async def pending_deletes(self) -> list[OperationRow]:
        """Unclaimed deletes that are not in quarantine."""
        ...

    async def held_before(self, held_us: int, limit: int) -> list[ObjectKey]:
        """Objects whose changes are held since then or longer."""
        ...

    async def oldest_held_us(self) -> int | None:
        """Since when the longest is held."""
        ...

    async def is_seen(self, provider: str) -> bool:
        """Whether the workspace has had a delivery of the provider."""
        ...
