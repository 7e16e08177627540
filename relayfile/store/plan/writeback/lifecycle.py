"""One operation's life: its states, and every step between them. Pure functions from a row to a row.

Owns which steps are legal. A step that is not is a fault of ours, and asserted; what a caller may get wrong is refused
before (`relayfile.store.operations`).
"""

from collections.abc import Mapping
from typing import Final

from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.plan.writeback.rows import OperationFault, OperationRow, OperationState

_S = OperationState
LEGAL: Final[Mapping[OperationState, frozenset[OperationState]]] = {
    _S.PENDING: frozenset({_S.CLAIMED, _S.SUPERSEDED, _S.CANCELED, _S.QUARANTINED}),
    _S.CLAIMED: frozenset({_S.SUCCEEDED, _S.PENDING, _S.DEAD_LETTERED}),
    _S.QUARANTINED: frozenset({_S.PENDING, _S.CANCELED, _S.SUPERSEDED}),
    _S.DEAD_LETTERED: frozenset({_S.PENDING}),
    _S.SUCCEEDED: frozenset(),
    _S.SUPERSEDED: frozenset(),
    _S.CANCELED: frozenset(),
}
"""From each state the next ones. A quarantined delete is superseded by another edit of its object."""

LEASE_ENDED: Final = "CLAIM_EXPIRED"


def stepped(row: OperationRow, state: OperationState) -> OperationRow:
    """The row in its next state."""
    assert state in LEGAL[row.state], f"{row.operation_id}: {row.state.name} does not become {state.name}"
    return row._replace(state=state)


def claimed(row: OperationRow, worker: str, request: str, now_us: int, lease_us: int) -> OperationRow:
    """A worker has it for `lease_us`."""
    assert not row.is_blocked, "an earlier operation of the object has not ended"
    return stepped(row, _S.CLAIMED)._replace(
        claim_number=row.claim_number + 1,
        claimed_by=worker,
        claimed_us=now_us,
        claim_expire_us=now_us + lease_us,
        claim_request=request,
        attempt_count=row.attempt_count + 1,
    )


def renewed(row: OperationRow, now_us: int, lease_us: int) -> OperationRow:
    """The claim lasts `lease_us` from now, and never shorter than before."""
    assert row.claim_expire_us is not None, "only claims are renewed"
    return row._replace(claim_expire_us=max(row.claim_expire_us, now_us + lease_us))


def holds_claim(row: OperationRow, claim_number: int, now_us: int) -> bool:
    """Whether this claim lasts."""
    return row.claim_number == claim_number and row.state is _S.CLAIMED and (row.claim_expire_us or 0) > now_us


def is_overdue(row: OperationRow, now_us: int) -> bool:
    """Whether its claim has ended without a word."""
    return row.state is _S.CLAIMED and (row.claim_expire_us or 0) <= now_us


def succeeded(row: OperationRow, result: bytes, result_sha256: bytes, now_us: int) -> OperationRow:
    """The provider took it."""
    done = stepped(row, _S.SUCCEEDED)._replace(result=result, result_sha256=result_sha256)
    return _ended(done, now_us)


def expired(row: OperationRow, limits: WritebackLimits, now_us: int) -> OperationRow:
    """The lease ended: it is claimable again, unless that was its last try."""
    if row.attempt_count < limits.attempts_max:
        return _given_back(row, now_us)
    why = f"The claim of {row.claimed_by!r} ended without an answer, and it was the last try."
    return dead_lettered(row, OperationFault(LEASE_ENDED, why, retryable=True), now_us)


def released(row: OperationRow, now_us: int, delay_us: int) -> OperationRow:
    """The worker gave it back untried."""
    return _given_back(row, now_us + delay_us)._replace(attempt_count=row.attempt_count - 1)


def failed(
    row: OperationRow, fault: OperationFault, limits: WritebackLimits, now_us: int, jitter: float
) -> OperationRow:
    """A try failed: again later, or never. `jitter` is a random number from 0 to 1.

    The try may have reached the provider: the next one comes no sooner after it than another edit would.
    """
    if not fault.retryable or row.attempt_count >= limits.attempts_max:
        return dead_lettered(row, fault, now_us)
    delay_us = max(backoff_us(row.attempt_count, limits, jitter), fault.retry_after_us or 0)
    spaced_us = now_us if row.claimed_us is None else row.claimed_us + limits.spacing_us
    return _given_back(row, max(now_us + delay_us, spaced_us))._replace(fault=fault)


def backoff_us(attempt_count: int, limits: WritebackLimits, jitter: float) -> int:
    """How long to wait after so many tries: doubled each time up to a limit, of which between half and all."""
    whole = min(limits.backoff_max_us, limits.backoff_min_us << min(attempt_count - 1, 32))
    return whole // 2 + round(whole / 2 * jitter)


def dead_lettered(row: OperationRow, fault: OperationFault, now_us: int) -> OperationRow:
    """It waits for a replay."""
    return _ended(stepped(row, _S.DEAD_LETTERED)._replace(fault=fault), now_us)


def superseded(row: OperationRow, by: str, now_us: int) -> OperationRow:
    """A later edit took its place."""
    return _ended(stepped(row, _S.SUPERSEDED)._replace(superseded_by=by), now_us)


def canceled(row: OperationRow, now_us: int) -> OperationRow:
    """It is needless."""
    return _ended(stepped(row, _S.CANCELED), now_us)


def quarantined(row: OperationRow, quarantine_id: str) -> OperationRow:
    """It waits for an approval."""
    return stepped(row, _S.QUARANTINED)._replace(quarantine_id=quarantine_id)


def approved(row: OperationRow, now_us: int) -> OperationRow:
    """It may go on, as soon as the object may be claimed again: it has waited long enough."""
    return stepped(row, _S.PENDING)._replace(claimable_us=now_us)


def replayed(row: OperationRow, now_us: int) -> OperationRow:
    """It is tried again from the first attempt on."""
    row = stepped(row, _S.PENDING)
    return row._replace(claimable_us=now_us, attempt_count=0, ended_us=None)


def _given_back(row: OperationRow, claimable_us: int) -> OperationRow:
    return stepped(row, _S.PENDING)._replace(claim_expire_us=None, claim_request="", claimable_us=claimable_us)


def _ended(row: OperationRow, now_us: int) -> OperationRow:
    return row._replace(claim_expire_us=None, claim_request="", is_blocked=False, ended_us=now_us)
