"""Something that does not agree, and the order that looks for it. Pure values."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

NODE: Final = -1
"""Stands for the shard of what is about the node as a whole."""
MESSAGE_BYTES_MAX: Final = 1_000
FINDINGS_DEFAULT: Final = 1_000


class Check(IntEnum):
    """What is looked at. The numbers are those of `relayfile.v1.AuditCheck`."""

    OUTCOMES = 1
    REVISIONS = 2
    DIGESTS = 3
    INDEXES = 4
    REFERENCES = 5
    CONTENT = 6


ALL_CHECKS: Final = frozenset(Check)
CHEAP_CHECKS: Final = ALL_CHECKS - {Check.CONTENT}


class Finding(NamedTuple):
    """One disagreement. Two looks found the same when check, place, subject and reason are equal."""

    check: Check
    shard_id: int
    """`NODE` for the node as a whole."""
    workspace_id: str
    """Empty for the node as a whole."""
    subject: str
    """A path, an object, a revision or a content."""
    reason: str
    """Upper-snake."""
    message: str
    """For people: what should be and what is."""

    @property
    def identity(self) -> tuple[int, int, str, str, str]:
        """What makes it the same finding in a second look."""
        return self[:5]


class Place(NamedTuple):
    """A file, in the order in which contents are looked at."""

    shard_id: int
    workspace_id: str
    path: str


@dataclass(frozen=True, slots=True)
class AuditOrder:
    """What to look at."""

    workspace_id: str = ""
    """Empty: every workspace of the node, and what the node keeps over all of them."""
    checks: Collection[Check] = CHEAP_CHECKS
    is_strict: bool = False
    """Also what heals by itself."""
    findings_max: int = FINDINGS_DEFAULT
    content_bytes_per_second_max: int = 0
    """0: as fast as its turns come."""
    after: Place | None = None
    """Of an order for the contents of the whole node: look at what comes after it."""


@dataclass(slots=True)
class Tally:
    """How much was looked at."""

    workspace_count: int = 0
    workspace_total: int = 0
    """All that there are to look at."""
    file_count: int = 0
    event_count: int = 0
    change_count: int = 0
    content_count: int = 0
    content_bytes: int = 0
    place: Place | None = None
    """The file whose content was looked at last."""


@dataclass(slots=True)
class AuditEnd:
    """How an audit ended."""

    tally: Tally
    finding_count: int = 0
    is_truncated: bool = False
    findings: list[Finding] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Everything agrees."""
        return not self.finding_count
