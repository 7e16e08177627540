"""One operation as a plain value, and the numbers that operations go by."""

from dataclasses import dataclass

from tests.model.workspace import FAILED, SUCCEEDED, SUPERSEDED

SECOND_US = 1_000_000
PENDING, CLAIMED, DONE, DEAD, REPLACED, CANCELED, QUARANTINED = (
    "pending", "claimed", "succeeded", "dead_lettered", "superseded", "canceled", "quarantined",
)  # fmt: skip
ON_THE_WAY = (PENDING, CLAIMED)
UNCLAIMED = (PENDING, QUARANTINED)
UNFINISHED = (PENDING, CLAIMED, QUARANTINED)
WRITE, DELETE, MOVE, FETCH = "write", "delete", "move", "fetch"
EVENTS = {DONE: SUCCEEDED, DEAD: FAILED, REPLACED: SUPERSEDED}
ATTEMPTS_MAX = 10
CONCURRENCY_MAX = 8
ECHO_US = 120 * SECOND_US
DELETES_MAX = 3
"""More in ten minutes wait for an approval. (The store's default is 50.)"""
DELETES_US = 600 * SECOND_US
DIRECTORY = "linear"


@dataclass(slots=True, eq=False)
class Operation:
    """One operation as it should be."""

    key: str
    """`o:<object id>`, or `p:<path>` of a draft."""
    kind: str
    path: str
    revision: int
    base_revision: int
    claimable_us: int
    moved_from: str = ""
    content: bytes | None = None
    folded: int = 1
    state: str = PENDING
    operation_id: str = ""
    """As the store has named it; empty until it was asked."""
    correlation_id: str = ""
    """As that."""
    claim_number: int = 0
    claimed_us: int | None = None
    expire_us: int = 0
    attempts: int = 0
    is_blocked: bool = False
    is_faulted: bool = False
    is_owed: bool = False
    """A claim that had ended was answered late, while this one was under way."""
    made_us: int = 0
    ended_us: int | None = None
    was_quarantined: bool = False
    result: bytes | None = None
    """What the worker said that the provider made of it."""

    @property
    def is_draft(self) -> bool:
        """Its file has no object."""
        return self.key.startswith("p:")

    def is_echoed_at(self, now_us: int) -> bool:
        """Whether the provider may still tell of it: what nobody ever claimed has never reached it."""
        is_recent = self.ended_us is not None and now_us < self.ended_us + ECHO_US
        return self.state == CLAIMED or (self.claim_number > 0 and is_recent)
