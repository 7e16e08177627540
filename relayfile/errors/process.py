"""Damage, refusals to start, and what a peer said that is none of ours."""

from dataclasses import dataclass
from typing import ClassVar

from relayfile.errors.reason import RelayfileError


@dataclass(kw_only=True, eq=False)
class DataCorrupted(RelayfileError):
    """Stored data is damaged: {what}."""

    reason: ClassVar[str] = "DATA_CORRUPTED"
    what: str


@dataclass(kw_only=True, eq=False)
class StorageFailed(RelayfileError):
    """The disk failed ({what}); nothing more is acknowledged and the process ends.

    After this error the process must exit: an fsync that failed once is never tried again.
    """

    reason: ClassVar[str] = "STORAGE_FAILED"
    what: str


@dataclass(kw_only=True, eq=False)
class StartRefused(RelayfileError):
    """Refused to start: {why}."""

    reason: ClassVar[str] = "START_REFUSED"
    why: str


@dataclass(kw_only=True, eq=False)
class SettingError(RelayfileError):
    """{variable} {problem}; {way_out}"""

    reason: ClassVar[str] = "SETTING_INVALID"
    variable: str
    problem: str
    way_out: str


@dataclass(kw_only=True, eq=False)
class PeerFailed(RelayfileError):
    """The peer answered {code}: {detail}

    A status that is not ours: from a proxy, from gRPC itself, or an ``INTERNAL`` whose text the peer keeps to itself.
    """

    reason: ClassVar[str] = "PEER_FAILED"
    code: str
    detail: str
