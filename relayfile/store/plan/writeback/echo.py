"""Whether a change is the echo of our own write-back. Pure.

Owns the rule: it names an operation of its object, by its id or its correlation id, that is claimed or ended a short
while ago, and brings what that operation brought. Content alone never makes an echo: what is equal is `unchanged`.
"""

from collections.abc import Iterable
from hashlib import sha256

from relayfile.model import MemberKind
from relayfile.store.plan.entry import Member
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow, OperationState


def is_echo(member: Member, operations: Iterable[OperationRow], now_us: int, suppression_us: int) -> bool:
    """Whether `member` echoes one of its object's `operations`."""
    return any(
        _is_named(member, row) and _is_recent(row, now_us, suppression_us) and _is_its_result(member, row)
        for row in operations
    )


def _is_named(member: Member, row: OperationRow) -> bool:
    if member.operation_id and member.operation_id == row.operation_id:
        return True
    return bool(member.correlation_id) and member.correlation_id == row.correlation_id


def _is_recent(row: OperationRow, now_us: int, suppression_us: int) -> bool:
    """What was never claimed has never reached the provider."""
    if row.state is OperationState.CLAIMED:
        return True
    return row.claim_number > 0 and row.ended_us is not None and row.ended_us > now_us - suppression_us


def _is_its_result(member: Member, row: OperationRow) -> bool:
    if row.kind is OperationKind.FETCH:
        return False
    if member.kind is MemberKind.SIGNAL:
        return True  # it brings nothing that could differ
    if member.kind is MemberKind.DELETE:
        return row.kind is OperationKind.DELETE
    if member.kind is not MemberKind.UPSERT or member.content is None or row.kind is OperationKind.DELETE:
        return False
    if member.path and member.path != row.path:
        return False  # a move is news
    return sha256(member.content).digest() in (row.content_sha256, row.result_sha256)
