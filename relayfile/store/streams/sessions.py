"""What a node remembers of the ingest processes that talk to it: sequences, and their last reports. In memory only.

Sequences protect order and nothing else; what is durable is the delivery rows (D3). So a node that restarted takes the
first number that it sees, and a resend of an old one is planned again and answers what was recorded.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from relayfile.v1 import shard_pb2

SESSIONS_MAX: Final = 1_024
"""Remembered; beyond, the one that was silent longest is forgotten, which costs it nothing but its gap check."""
REPORTERS_MAX: Final = 1_024
REPORT_KEPT_US: Final = 600 * 1_000_000
"""A process that was silent for so long is gone: what it held is in its spool, and no figure of anybody any more."""


class Sequences:
    """The next sequence of every (session, shard)."""

    def __init__(self) -> None:
        self._sessions: OrderedDict[str, dict[int, int]] = OrderedDict()

    def of(self, session_id: str) -> dict[int, int]:
        """The session's expected sequences by shard, to be read and advanced in place by its stream."""
        expected = self._sessions.setdefault(session_id, {})
        self._sessions.move_to_end(session_id)
        while len(self._sessions) > SESSIONS_MAX:
            self._sessions.popitem(last=False)
        return expected


def gap_before(expected: dict[int, int], shard_id: int, sequence: int) -> int | None:
    """None when the sub-batch may be taken, and then what is expected moves on; else the sequence to go back to."""
    following = expected.get(shard_id, sequence)
    if sequence > following:
        return following
    if sequence == following:
        expected[shard_id] = sequence + 1
    return None


@dataclass(frozen=True, slots=True)
class Report:
    """What an ingest process said last."""

    ingest_id: str
    reported_us: int
    pending: tuple[shard_pb2.PendingReport, ...]


class Reports:
    """The last report of each ingest process."""

    def __init__(self) -> None:
        self._reports: OrderedDict[str, Report] = OrderedDict()

    def keep(self, report: Report) -> None:
        """Replaces the process's report before."""
        self._reports[report.ingest_id] = report
        self._reports.move_to_end(report.ingest_id)
        while len(self._reports) > REPORTERS_MAX:
            self._reports.popitem(last=False)

    def about(self, workspace_id: str, now_us: int) -> list[Report]:
        """The last ten minutes' reports, each with what it says of the workspace (all of it when that is empty)."""
        return [
            Report(
                report.ingest_id,
                report.reported_us,
                tuple(one for one in report.pending if not workspace_id or one.workspace_id == workspace_id),
            )
            for report in self._reports.values()
            if now_us - report.reported_us < REPORT_KEPT_US
        ]
