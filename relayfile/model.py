"""Values that ingest, store and syncd share. Pure: no I/O, no clock, no protobuf.

The numbers of the enums are those of `relayfile.v1`, so that the wire modules convert by calling the class.
Times are Unix microseconds (int). Hashes are 32 raw bytes. Paths are normalised (see `relayfile.paths`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NewType

ShardId = NewType("ShardId", int)


class MemberKind(IntEnum):
    """What one change asks for. The first four are also `relayfile.v1.ChangeKind`."""

    UPSERT = 1
    DELETE = 2
    PATCH = 3
    SIGNAL = 4
    IGNORED = 5
    FAILED = 6


class Outcome(IntEnum):
    """How an accepted change ended; exactly one per change."""

    APPLIED = 1
    COALESCED = 2
    DUPLICATE = 3
    SUPPRESSED = 4
    STALE = 5
    UNCHANGED = 6
    IGNORED = 7
    DEAD_LETTERED = 8


class Origin(IntEnum):
    """Who caused a revision."""

    PROVIDER = 1
    AGENT = 2
    SYSTEM = 3


class EventType(IntEnum):
    """What an event says."""

    FILE_CREATED = 1
    FILE_UPDATED = 2
    FILE_DELETED = 3
    ACCESS_CHANGED = 4
    WRITEBACK_SUCCEEDED = 5
    WRITEBACK_FAILED = 6
    WRITEBACK_SUPERSEDED = 7


@dataclass(frozen=True, slots=True)
class Semantics:
    """What is known of a file besides its bytes.

    Canonical: values trimmed, empties dropped, lists de-duplicated and sorted, so that equal meanings compare equal.
    """

    properties: Mapping[str, str] = field(default_factory=dict)
    relations: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.properties or self.relations or self.permissions or self.comments)


NO_SEMANTICS = Semantics()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a delivery or a change could not be processed."""

    reason: str
    """Upper-snake, for example `MALFORMED_JSON`."""
    message: str
    """One sentence for people, at most 1,000 bytes."""


@dataclass(frozen=True, slots=True)
class RawDelivery:
    """A request as the provider sent it, kept where normalising failed."""

    body: bytes
    headers: Mapping[str, str]
    """Allow-listed, names in lower case."""


def change_key(provider_object_id: str, path: str, index: int) -> str:
    """The key that orders and coalesces changes: `o:<type>/<id>`, else `p:<path>`, else `n:<index>`."""
    if provider_object_id:
        return "o:" + provider_object_id
    if path:
        return "p:" + path
    return f"n:{index}"
