"""The figures of an intake for /metrics, brought up to date once a second: the hot path counts plain integers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from relayfile.model import Outcome
from relayfile.telemetry import IngestInstruments


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What an intake counts; since the process started, or at present."""

    accepted: int
    """Changes."""
    outcomes: Mapping[int, int]
    """Outcome number to changes."""
    batches_sent: int
    streams_open: int
    spool_bytes: int
    """Waiting for the shards: in the spool, or without one in memory."""
    spool_bytes_max: int
    spool_rows: int = 0
    spool_commits: int = 0
    unreadable: int = 0
    """Changes of damaged rows."""
    objects_held: int = 0
    in_flight_bytes: int = 0
    """Sent, without an answer."""


class Meter:
    """Remembers what was told before, because counters take differences."""

    def __init__(self, instruments: IngestInstruments) -> None:
        self._instruments = instruments
        self._outcomes: Counter[int] = Counter()
        self._accepted = 0
        self._commits = 0
        self._batches = 0

    def update(self, figures: Figures) -> None:
        """Tell everything anew."""
        to = self._instruments
        for outcome, count in figures.outcomes.items():
            if count != self._outcomes[outcome]:
                to.outcomes_total.labels(outcome=Outcome(outcome).name.lower()).inc(count - self._outcomes[outcome])
                self._outcomes[outcome] = count
        to.changes_accepted_total.inc(figures.accepted - self._accepted)
        self._accepted = figures.accepted
        to.spool_commits_total.inc(figures.spool_commits - self._commits)
        self._commits = figures.spool_commits
        to.batches_sent_total.inc(figures.batches_sent - self._batches)
        self._batches = figures.batches_sent
        to.changes_unreadable.set(figures.unreadable)
        to.spool_rows.set(figures.spool_rows)
        to.spool_bytes.set(figures.spool_bytes)
        to.spool_limit_bytes.set(figures.spool_bytes_max)
        to.objects_held.set(figures.objects_held)
        to.in_flight_bytes.set(figures.in_flight_bytes)
        to.streams_open.set(figures.streams_open)
