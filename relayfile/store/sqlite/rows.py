"""Rows of the tables to values and back: the encodings that are not plain columns.

JSON columns hold what is rarely there and never searched (semantics, patch marks, headers), absent when empty.
"""

from collections.abc import Mapping
from typing import TypeAlias

import msgspec

from relayfile.model import NO_SEMANTICS, EventType, Failure, Origin, Outcome, RawDelivery, Semantics
from relayfile.store.engine import Acknowledgement, KeptDeadLetter
from relayfile.store.plan.rows import (
    NO_PATCH_MARKS,
    NO_WATERMARK,
    DeadLetterRow,
    DeliveryKey,
    DirectoryRow,
    EventRow,
    FileRow,
    ObjectKey,
    ObjectRow,
    Watermark,
    WorkspaceRow,
)

Value: TypeAlias = "str | int | bytes | None"
Rows: TypeAlias = list[tuple[Value, ...]]
"""Bindings of one statement, once for each tuple."""
FileColumns: TypeAlias = tuple[str, int, int, bytes, int, str, str, str, int, int, str | None, int | None]
DirectoryColumns: TypeAlias = tuple[str, int, int, int, bytes, int, int, str | None]
ObjectColumns: TypeAlias = tuple[
    str | None, int, str | None,
    int | None, int | None, int | None, str | None,
    int | None, int | None, int | None, str | None, str,
]  # fmt: skip
EventColumns: TypeAlias = tuple[int, int, str, str, str, bytes, int, int, str, str, str, int, str, str | None]
DeadLetterColumns: TypeAlias = tuple[
    str, str, int, str, str, str, str, str, str, int, int, str | None, str, str, str, int, int, int, int,
    str, str, int, int | None, str | None, str | None,
]  # fmt: skip

WORKSPACE_COLUMNS = "history_id, revision, created_us, deleted_us, modified_us, files_max, total_bytes_max"
FILE_COLUMNS = (
    "path, revision, content_id, content_sha256, size_bytes, content_type, provider, object_key, modified_us, origin,"
    " semantics, stale_since_us"
)
DIRECTORY_COLUMNS = "path, file_count, total_bytes, rule_count, digest, entry_count, revision, buckets_to"
OBJECT_COLUMNS = (
    "path, deleted, displaced_from, provider_newest_us, provider_full_us, provider_delete_us, provider_patch_marks,"
    " received_newest_us, received_full_us, received_delete_us, received_patch_marks, received_by"
)
EVENT_COLUMNS = (
    "revision, type, path, moved_to, moved_from, content_sha256, size_bytes, origin, provider, correlation_id,"
    " traceparent, committed_us, operation_id, rules"
)
DEAD_LETTER_COLUMNS = (
    "dead_letter_id, stage, state, provider, delivery_id, change_key, envelope_id, reason, message, content_id,"
    " body_size_bytes, headers, adapter_version, event_name, correlation_id, received_us, created_us, attempt_count,"
    " last_attempt_us, traceparent, path, change_kind, acknowledged_us, acknowledged_by, acknowledge_reason"
)

_semantics = msgspec.json.Decoder(Semantics)
_marks = msgspec.json.Decoder(dict[str, int])
_headers = msgspec.json.Decoder(dict[str, str])
_encoder = msgspec.json.Encoder(order="deterministic")
_ORIGINS = {int(origin): origin for origin in Origin}
_EVENT_TYPES = {int(kind): kind for kind in EventType}
OUTCOMES = {int(outcome): outcome for outcome in Outcome}


def encode_semantics(semantics: Semantics) -> str | None:
    """JSON, or None for none."""
    if semantics is NO_SEMANTICS or not semantics:
        return None
    return _encoder.encode(semantics).decode()


def encode_mapping(mapping: Mapping[str, int] | Mapping[str, str]) -> str | None:
    """JSON, or None for an empty one."""
    return _encoder.encode(dict(mapping)).decode() if mapping else None


def decode_semantics(semantics: str) -> Semantics:
    """Of a JSON column that has some."""
    return _semantics.decode(semantics)


def decode_headers(headers: str | None) -> dict[str, str]:
    """Of a JSON column."""
    return {} if headers is None else _headers.decode(headers)


def file_row(columns: FileColumns) -> FileRow:
    """Of `FILE_COLUMNS`."""
    path, revision, content_id, sha256, size, kind, provider, key, modified, origin, semantics, stale = columns
    decoded = NO_SEMANTICS if semantics is None else _semantics.decode(semantics)
    # Not FileRow(...), whose arguments pass through a function of Python: exports make 60,000 of these a second.
    return tuple.__new__(
        FileRow,
        (path, revision, content_id, sha256, size, kind, provider, key, modified, _ORIGINS[origin], decoded, stale),
    )


def directory_row(columns: DirectoryColumns) -> DirectoryRow:
    """Of `DIRECTORY_COLUMNS`."""
    path, file_count, total_bytes, rule_count, digest, entry_count, revision, buckets_to = columns
    total = int.from_bytes(digest, "big")
    return DirectoryRow(path, file_count, total_bytes, rule_count, total, entry_count, revision, buckets_to)


def object_row(key: ObjectKey, columns: ObjectColumns) -> ObjectRow:
    """Of `OBJECT_COLUMNS`."""
    path, deleted, displaced_from, p_newest, p_full, p_delete, p_marks, r_newest, r_full, r_delete, r_marks, by = (
        columns
    )
    return ObjectRow(
        key,
        path,
        bool(deleted),
        displaced_from,
        NO_WATERMARK if p_newest is None else Watermark(p_newest, p_full, p_delete, _marks_of(p_marks)),
        NO_WATERMARK if r_newest is None else Watermark(r_newest, r_full, r_delete, _marks_of(r_marks)),
        by,
    )


def _marks_of(marks: str | None) -> Mapping[str, int]:
    return NO_PATCH_MARKS if marks is None else _marks.decode(marks)


def event_row(columns: EventColumns) -> EventRow:
    """Of `EVENT_COLUMNS`."""
    event = EventRow(*columns)  # type: ignore[arg-type]  # the two numbers become enums in the next line
    return event._replace(type=_EVENT_TYPES[columns[1]], origin=_ORIGINS[columns[7]])


def workspace_row(columns: tuple[str, int, int, int | None, int | None, int, int]) -> WorkspaceRow:
    """Of `WORKSPACE_COLUMNS`."""
    return WorkspaceRow(*columns)


def kept_dead_letter(columns: DeadLetterColumns) -> KeptDeadLetter:
    """Of `DEAD_LETTER_COLUMNS`."""
    (
        dead_letter_id, stage, state, provider, delivery_id, change_key, envelope_id, reason, message, content_id,
        size, headers, adapter_version, event_name, correlation_id, received_us, created_us, attempts, last_attempt_us,
        traceparent, path, change_kind, acknowledged_us, acknowledged_by, acknowledge_reason,
    ) = columns  # fmt: skip
    row = DeadLetterRow(
        dead_letter_id=dead_letter_id,
        stage=stage,
        key=DeliveryKey(provider, delivery_id, change_key),
        envelope_id=envelope_id,
        failure=Failure(reason, message),
        raw=RawDelivery(b"", decode_headers(headers)),
        adapter_version=adapter_version,
        event_name=event_name,
        correlation_id=correlation_id,
        received_us=received_us,
        created_us=created_us,
        traceparent=traceparent,
    )
    seen = None
    if acknowledged_us is not None:
        seen = Acknowledgement(acknowledged_us, acknowledged_by or "", acknowledge_reason or "")
    return KeptDeadLetter(row, content_id, size, state, attempts, last_attempt_us, path, change_kind, seen)
