"""The rows that the planner reads and writes: one value per table row, keyed inside one workspace.

Pure values. `shard_id` and `workspace_id` lead every key in the engines and are left out here, because a plan is always
about one workspace. Times are Unix microseconds; hashes and digests are 32 bytes. Named tuples, not dataclasses:
several are made for every change, and a tuple costs a quarter. Change one with `_replace`.
"""

from collections.abc import Mapping
from enum import IntEnum
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from relayfile.model import NO_SEMANTICS, EventType, Failure, Origin, Outcome, RawDelivery, Semantics
from relayfile.store.plan.entry import Member

made: Final = tuple.__new__
"""`made(FileRow, (...))` is `FileRow(...)` at half the cost: its arguments do not pass through a function of Python.
For what is made several times for each change."""


class ObjectKey(NamedTuple):
    """An object of a provider: `key` is a change key `o:<type>/<id>` or `p:<path>`."""

    provider: str
    key: str


class DeliveryKey(NamedTuple):
    """One object's part of one delivery."""

    provider: str
    delivery_id: str
    change_key: str


class DuplicateKey(NamedTuple):
    """One change of one envelope."""

    envelope_id: str
    change_number: int
    """As `duplicate_key` makes it, below 0. From 0 in rows of an earlier release: the place in the envelope."""


def duplicate_key(envelope_id: str, change: DeliveryKey) -> DuplicateKey:
    """`change` as it came in `envelope_id`, wherever it stood there: a redelivery may have another order.

    An envelope is one delivery of one provider, which so need not be told apart. 63 bits of a hash: two changes of one
    envelope never meet.
    """
    _, delivery_id, change_key = change
    digest = sha256(f"{len(delivery_id)}:{delivery_id}{change_key}".encode()).digest()
    return DuplicateKey(envelope_id, -1 - (int.from_bytes(digest[:8], "big") >> 1))


class WorkspaceRow(NamedTuple):
    """A workspace's own state."""

    history_id: str
    revision: int
    """The newest revision taken; 0 at creation."""
    created_us: int
    deleted_us: int | None = None
    """Set on a tombstone: changes that arrive end as `ignored`."""
    modified_us: int | None = None
    """When `revision` was made; the engine keeps it from the newest event of a plan."""
    files_max: int = 0
    """Quota; 0: the node's default."""
    total_bytes_max: int = 0
    """Quota; 0: the node's default."""


class FileRow(NamedTuple):
    """A file, without its bytes."""

    path: str
    revision: int
    content_id: int
    """Key of the content's row; 0 in a plan: the engine assigns one for the content that the plan carries."""
    content_sha256: bytes
    size_bytes: int
    content_type: str
    provider: str
    """Empty for a file without an object, as `object_key`."""
    object_key: str
    modified_us: int
    origin: Origin
    semantics: Semantics
    stale_since_us: int | None = None


NO_FILE = FileRow("", 0, 0, b"", 0, "", "", "", 0, Origin.PROVIDER, NO_SEMANTICS)
"""Stands for "not asked yet" where None means "there is none"."""


class DirectoryRow(NamedTuple):
    """A directory that has files below it. The root's row exists always once anything was written."""

    path: str
    file_count: int
    total_bytes: int
    rule_count: int
    """Enforceable access rules below it."""
    digest: int
    """Sum modulo 2^256 (D9); 32 bytes big-endian in the engines and on the wire."""
    entry_count: int
    """Files and directories directly in it."""
    revision: int
    """The last revision that changed anything below it."""
    buckets_to: str | None = None
    """How far its buckets are counted (`relayfile.store.plan.buckets`); None: it has none."""


class Watermark(NamedTuple):
    """What is known of an object's age on one clock; times of different clocks are never compared."""

    newest_us: int | None
    """Newest time seen of any change."""
    full_us: int | None
    """Newest time of an upsert or a delete: what patches are compared with."""
    delete_us: int | None
    """Newest time of a delete: on equal provider times it beats an upsert in any order of arrival."""
    patch_marks: Mapping[str, int]
    """Per top-level member: time of its last patch; at most 256."""


NO_PATCH_MARKS: Mapping[str, int] = MappingProxyType({})
NO_WATERMARK = Watermark(None, None, None, NO_PATCH_MARKS)


class ObjectRow(NamedTuple):
    """A provider's object: where its file is and what is known of its age."""

    key: ObjectKey
    path: str | None
    """None: deleted, or displaced from its path by another object."""
    deleted: bool
    displaced_from: str | None
    """The path that another object took over, which comes back only with a newer provider time than the holder's."""
    provider: Watermark
    """Changes with a provider time."""
    received: Watermark
    """Changes without one, by the receive time."""
    received_by: str
    """The ingest process whose receive time `received.newest_us` is; empty when not known."""


class DeliveryRow(NamedTuple):
    """How a change ended, kept at least 7 days."""

    key: DeliveryKey
    envelope_id: str
    outcome: Outcome
    decided_us: int


class DuplicateRow(NamedTuple):
    """A change that ended as `duplicate`, so that its resend counts nothing."""

    key: DuplicateKey
    decided_us: int


class EventRow(NamedTuple):
    """One event; `revision` is its id."""

    revision: int
    type: EventType
    path: str
    moved_to: str
    moved_from: str
    content_sha256: bytes
    size_bytes: int
    origin: Origin
    provider: str
    correlation_id: str
    traceparent: str
    committed_us: int
    operation_id: str = ""
    rules: str | None = None
    """The file's own rules when it happened (`relayfile.store.plan.rules.carried`), of half a move those at the other
    path too; None: there were none."""


class DeadLetterRow(NamedTuple):
    """A change or delivery that could not be processed."""

    dead_letter_id: str
    stage: str
    """`normalise` or `apply`."""
    key: DeliveryKey
    envelope_id: str
    failure: Failure
    raw: RawDelivery
    """Of the normalise stage. For the apply stage the engine keeps the serialised `member` as its body."""
    adapter_version: str
    event_name: str
    correlation_id: str
    received_us: int
    created_us: int
    member: Member | None = None
    """Of the apply stage: the change that failed, so that a replay plans it again. None when it is only known as the
    bytes in `raw.body`."""
    traceparent: str = ""
    is_queued: bool = False
    """To be tried again at once."""


class PauseRow(NamedTuple):
    """A pause of one provider, or of the whole workspace where `provider` is empty."""

    provider: str
    since_us: int


class RequestKey(NamedTuple):
    """A request that carries an id."""

    method: str
    """The RPC, for example `relayfile.v1.ShardService/SetPause`."""
    request_id: str


class RequestRow(NamedTuple):
    """How a request was answered, kept at least 7 days: a repeat gets the same answer."""

    key: RequestKey
    fingerprint: bytes
    """SHA-256 of the request: another one under the same id is refused."""
    answer: bytes
    """As its kind serialises it."""
    decided_us: int


class ActionResult(IntEnum):
    """How an ordered action ended; the numbers are those of `relayfile.v1.AdminActionResult`."""

    STARTED = 1
    SUCCEEDED = 2
    FAILED = 3


class AdminActionRow(NamedTuple):
    """Something that was ordered: who, when, what, about what, why."""

    action_id: str
    """Sortable by time."""
    action_us: int
    actor: str
    """The subject of the token."""
    method: str
    """The RPC, for example `relayfile.v1.IngestService/Pause`."""
    subject: str
    """About what in the workspace: a provider, ids, a filter."""
    reason: str
    result: ActionResult
    detail: str
    """What came of it, for people."""
    request_id: str
    correlation_id: str
