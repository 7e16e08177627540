"""Limits, and what is not available now: the same request may be accepted later."""

from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError


@dataclass(kw_only=True, eq=False)
class Overloaded(RelayfileError):
    """The {what} is full; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "OVERLOADED"
    what: str
    retry_after_s: float


@dataclass(kw_only=True, eq=False)
class RateLimited(RelayfileError):
    """The caller asks for more of workspace {workspace!r} than its rates admit; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "RATE_LIMITED"
    workspace: str
    retry_after_s: float


@dataclass(kw_only=True, eq=False)
class QuotaExceeded(RelayfileError):
    """The workspace's quota of {limit} {what} is used up."""

    reason: ClassVar[str] = "QUOTA_EXCEEDED"
    what: str
    limit: int


@dataclass(kw_only=True, eq=False)
class DeadLettersFull(RelayfileError):
    """The workspace {workspace!r} keeps {kept} dead letters of {kept_bytes} bytes, and takes no more failures: replay
    or acknowledge some, or raise RELAYFILE_DEAD_LETTERS_MAX and RELAYFILE_DEAD_LETTER_BYTES_MAX.
    """

    reason: ClassVar[str] = "DEAD_LETTERS_FULL"
    workspace: str
    kept: int
    kept_bytes: int


@dataclass(kw_only=True, eq=False)
class ExportRefused(RelayfileError):
    """The export is refused ({why}); list the tree and read its files instead."""

    reason: ClassVar[str] = "EXPORT_REFUSED"
    why: str


@dataclass(kw_only=True, eq=False)
class Unavailable(RelayfileError):
    """The {what} is not available now; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "UNAVAILABLE"
    what: str
    retry_after_s: float = 1.0


@dataclass(kw_only=True, eq=False)
class PullStalled(RelayfileError):
    """The pull of mirror {mirror!r} makes no progress: {attempts} attempts in a row brought nothing (the last: {last}).
    What it has stays; pull again when the store answers.
    """

    reason: ClassVar[str] = "PULL_STALLED"
    mirror: str
    attempts: int
    last: str


@dataclass(kw_only=True, eq=False)
class Draining(RelayfileError):
    """This process is stopping; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "DRAINING"
    retry_after_s: float = 1.0


@dataclass(kw_only=True, eq=False)
class Paused(RelayfileError):
    """Deliveries for {what} are paused; try again after {retry_after_s:g} s."""

    reason: ClassVar[str] = "PAUSED"
    what: str
    retry_after_s: float = 30.0


@dataclass(kw_only=True, eq=False)
class DeadlineExpired(RelayfileError):
    """The deadline of the call passed while it waited for {what}."""

    reason: ClassVar[str] = "DEADLINE_EXPIRED"
    what: str


@dataclass(kw_only=True, eq=False)
class ServedLater(RelayfileError):
    """{rpc} is part of the API and is not served by this version."""

    reason: ClassVar[str] = "NOT_IMPLEMENTED_YET"
    rpc: str
