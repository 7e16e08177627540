"""What becomes of kept dead letters: the values that a plan writes, and the settling of replays. Pure.

Owns that the sums stay what was accepted. A dead letter that is kept counts as one `dead_lettered`, whatever is known
of its delivery; one that goes takes that away and leaves the outcomes of its replay. One that fails again stays the
same dead letter, with its new reason.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

from relayfile.model import Failure, Outcome
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import DeliveryKey


class LetterState(IntEnum):
    """Numbers of `relayfile.v1.DeadLetterState`."""

    PENDING = 1
    ACKNOWLEDGED = 2
    REPLAYING = 3


class LetterRef(NamedTuple):
    """A dead letter as far as it is selected and changed by."""

    dead_letter_id: str
    stage: str
    state: LetterState
    key: DeliveryKey
    envelope_id: str
    reason: str
    received_us: int
    content_id: int
    """0 when nothing was kept."""
    body_size_bytes: int


class LetterRetried(NamedTuple):
    """It failed again: pending, tried once more, and not acknowledged."""

    ref: LetterRef
    failure: Failure
    tried_us: int
    adapter_version: str
    """Empty: as before."""


class LetterAcknowledged(NamedTuple):
    """Somebody has seen it."""

    ref: LetterRef
    acknowledged_us: int
    acknowledged_by: str
    acknowledge_reason: str


@dataclass(slots=True)
class LetterChanges:
    """What a plan does to dead letters that are kept already."""

    queued: list[LetterRef] = field(default_factory=list)
    """To be replayed."""
    retried: list[LetterRetried] = field(default_factory=list)
    acknowledged: list[LetterAcknowledged] = field(default_factory=list)
    removed: list[LetterRef] = field(default_factory=list)
    """Their replay succeeded."""


def replay_fold(ref: LetterRef, member: Member) -> Fold:
    """The kept change of a dead letter, to be planned again."""
    return Fold(ref.key.provider, ref.key.change_key, (member,), replay=True)


def settle_replays(plan: Plan, refs: Sequence[LetterRef], now_us: int) -> None:
    """Complete the plan of an entry whose i-th fold is the change of `refs[i]`."""
    plan.letters = plan.letters or LetterChanges()
    failed = {(row.key, row.envelope_id): row for row in plan.dead_letters}
    for ref, (result,) in zip(refs, plan.results, strict=True):
        assert result.outcome is not None, "the change has its content"
        if not result.counted:
            _count(plan, ref.key.provider, result.outcome, 1)
        _count(plan, ref.key.provider, Outcome.DEAD_LETTERED, -1)
        again = failed.pop((ref.key, ref.envelope_id), None) if result.outcome is Outcome.DEAD_LETTERED else None
        if again is not None:
            plan.dead_letters.remove(again)
            plan.letters.retried.append(LetterRetried(ref, again.failure, now_us, ""))
        else:
            plan.letters.removed.append(ref)


def settle_redo(plan: Plan, ref: LetterRef) -> None:
    """Complete the plan of an entry whose folds are what the request of `ref` amounts to now."""
    if not any(plan.outcome_counts.values()):
        _count(plan, ref.key.provider, Outcome.IGNORED, 1)  # a delivery without changes counts as one
    _count(plan, ref.key.provider, Outcome.DEAD_LETTERED, -1)
    plan.letters = plan.letters or LetterChanges()
    plan.letters.removed.append(ref)


def fail_again(plan: Plan, ref: LetterRef, failure: Failure, now_us: int, adapter_version: str = "") -> None:
    """The try ended without a plan of its change: nothing but the reason moves."""
    plan.letters = plan.letters or LetterChanges()
    plan.letters.retried.append(LetterRetried(ref, failure, now_us, adapter_version))


def _count(plan: Plan, provider: str, outcome: Outcome, number: int) -> None:
    key = (provider, outcome)
    plan.outcome_counts[key] = plan.outcome_counts.get(key, 0) + number
