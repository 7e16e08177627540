"""What a node remembers of ingest processes."""

from relayfile.store.streams.sessions import REPORT_KEPT_US, Report, Reports
from relayfile.v1 import shard_pb2


def test_a_process_that_is_gone_is_forgotten() -> None:
    reports = Reports()
    pending = (shard_pb2.PendingReport(workspace_id="a", provider="github", pending=3),)
    reports.keep(Report("ingest-1", 1_000, pending))
    assert [each.pending for each in reports.about("a", 2_000)] == [pending]
    assert [each.pending for each in reports.about("b", 2_000)] == [()]
    assert reports.about("a", 1_000 + REPORT_KEPT_US) == []
