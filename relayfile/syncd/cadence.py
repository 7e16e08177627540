"""When a mirror is compared with the store, and when everything is listed. Pure: callers bring counts and times.

A cycle is `RELAYFILE_MOUNT_INTERVAL`, whether or not events flow. An audit costs one small message while all is equal.
The full pull is the escape hatch: due only where a digest cannot be had, or where an audit could not make it equal.
"""

import math
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

OFF: Final = -1
"""As the cycles between two full pulls: never by itself."""


class Step(Enum):
    """What a cycle does."""

    NOTHING = auto()
    AUDIT = auto()
    FULL_PULL = auto()


@dataclass(frozen=True, slots=True)
class Policy:
    """How often, in cycles."""

    audit_every: int
    full_pull_every: int
    """``OFF``: never."""
    full_pull_files_max: int
    """A larger mirror is never listed whole by itself."""


@dataclass(slots=True)
class Cadence:
    """Where one mirror stands. Times are monotonic seconds."""

    cycles_since_audit: int = 0
    cycles_since_full_pull: int = 0
    digest_available: bool = True
    repaired: bool = True
    """The last audit ended with equal digests."""
    swept_at: float = -math.inf
    next_cycle_us: int = 0
    """Unix microseconds, while the mirror follows: what could not be done is tried again."""
    repair_not_before: float = -math.inf
    """A digest that differs at one mark differs at the next as well: repairs have their distance."""

    def cycle(self) -> None:
        """Another one has passed."""
        self.cycles_since_audit += 1
        self.cycles_since_full_pull += 1

    def audited(self, *, equal: bool) -> None:
        """An audit ended, repairs included."""
        self.cycles_since_audit = 0
        self.digest_available = True
        self.repaired = equal

    def without_digest(self) -> None:
        """The store gave none."""
        self.cycles_since_audit = 0
        self.digest_available = False

    def pulled_fully(self) -> None:
        """Everything was listed; what an audit cannot repair now is not repaired by another one either."""
        self.cycles_since_full_pull = 0


def due(policy: Policy, cadence: Cadence, tracked_count: int) -> Step:
    """What the present cycle does, for a mirror of ``tracked_count`` files."""
    needed = not cadence.digest_available or not cadence.repaired
    if needed and full_pull_in(policy, cadence) == 0 and tracked_count <= policy.full_pull_files_max:
        return Step.FULL_PULL
    return Step.AUDIT if cadence.cycles_since_audit >= policy.audit_every else Step.NOTHING


def full_pull_in(policy: Policy, cadence: Cadence) -> int:
    """Cycles until a full pull is due, if one is needed then; ``OFF`` when full pulls are off."""
    if policy.full_pull_every == OFF:
        return OFF
    return max(0, policy.full_pull_every - cadence.cycles_since_full_pull)
