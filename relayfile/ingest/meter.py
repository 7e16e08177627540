"""The pipeline's figures for /metrics, brought up to date once a second so that the hot path counts plain integers."""

from collections import Counter
from typing import TYPE_CHECKING

from relayfile.model import Outcome
from relayfile.telemetry import IngestInstruments

if TYPE_CHECKING:
    from relayfile.ingest.pipeline import Pipeline


class Meter:
    """Remembers what was told before, because counters take differences."""

    def __init__(self, instruments: IngestInstruments) -> None:
        self._instruments = instruments
        self._outcomes: Counter[int] = Counter()
        self._accepted = 0
        self._commits = 0
        self._batches = 0

    def update(self, pipeline: "Pipeline") -> None:
        """Read everything anew."""
        to, counted = self._instruments, pipeline.dispatcher.counters
        for outcome, count in counted.outcomes.items():
            if count != self._outcomes[outcome]:
                to.outcomes_total.labels(outcome=Outcome(outcome).name.lower()).inc(count - self._outcomes[outcome])
                self._outcomes[outcome] = count
        to.changes_accepted_total.inc(counted.accepted - self._accepted)
        self._accepted = counted.accepted
        commits = pipeline.spool.counters.transactions
        to.spool_commits_total.inc(commits - self._commits)
        self._commits = commits
        batches = sum(stream.batches_sent for stream in pipeline.streams)
        to.batches_sent_total.inc(batches - self._batches)
        self._batches = batches
        to.changes_unreadable.set(counted.unreadable)
        to.spool_rows.set(len(pipeline.dispatcher.ledger))
        to.spool_bytes.set(pipeline.admission.stored_bytes)
        to.objects_held.set(pipeline.coalescer.objects)
        to.streams_open.set(sum(stream.is_connected for stream in pipeline.streams))
