"""Operations as rows of their table: column by column, and back.

Owns the columns and their encoding. Refuses to know a statement.
"""

from typing import Any, Final

import msgspec

from relayfile.model import NO_SEMANTICS
from relayfile.store.plan.writeback.rows import (
    OperationFault,
    OperationKind,
    OperationRow,
    OperationState,
    ProviderKnown,
)
from relayfile.store.sqlite.rows import decode_semantics, encode_semantics

NEVER_US: Final = (1 << 63) - 1
"""`ended_us` of what has not ended."""
READABLE: Final = frozenset({1, 2, 4, 7})
"""States in which an operation keeps its content."""
COLUMNS: Final = (
    "operation_id", "provider", "object_key", "kind", "state", "path", "revision", "actor", "created_us",
    "claimable_us", "moved_from", "is_draft", "base_revision", "folded_count", "content_id", "content_sha256",
    "size_bytes", "content_type", "semantics", "known", "claim_number", "claimed_by", "claimed_us", "claim_expire_us",
    "claim_request", "attempt_count", "is_blocked", "fault", "superseded_by", "quarantine_id", "result",
    "result_sha256", "is_owed", "correlation_id", "traceparent", "modified_us", "ended_us", "version",
)  # fmt: skip
assert OperationRow._fields == COLUMNS, "a row of the table is the value, column by column"
ALL_COLUMNS: Final = ", ".join(COLUMNS)

_known = msgspec.json.Decoder(ProviderKnown)
_fault = msgspec.json.Decoder(OperationFault)
_encode = msgspec.json.Encoder().encode
_STATES = {int(state): state for state in OperationState}
_KINDS = {int(kind): kind for kind in OperationKind}


def operation_columns(row: OperationRow) -> tuple[Any, ...]:
    """The columns, without content: an update takes it, or leaves it."""
    return row._replace(
        content_id=0,
        semantics=encode_semantics(row.semantics),  # type: ignore[arg-type]  # a column, no longer a value
        known=None if row.known is None else _encode(row.known).decode(),  # type: ignore[arg-type]  # likewise
        fault=None if row.fault is None else _encode(row.fault).decode(),  # type: ignore[arg-type]  # likewise
        ended_us=NEVER_US if row.ended_us is None else row.ended_us,
    )


def operation_row(columns: tuple[Any, ...]) -> OperationRow:
    """Of the columns in the order of the value's fields."""
    row = OperationRow(*columns)
    semantics, known, fault = columns[18], columns[19], columns[27]
    return row._replace(
        kind=_KINDS[columns[3]],
        state=_STATES[columns[4]],
        is_draft=bool(row.is_draft),
        semantics=NO_SEMANTICS if semantics is None else decode_semantics(semantics),
        known=None if known is None else _known.decode(known),
        is_blocked=bool(row.is_blocked),
        fault=None if fault is None else _fault.decode(fault),
        is_owed=bool(row.is_owed),
        ended_us=None if row.ended_us == NEVER_US else row.ended_us,
    )
