"""How many changes of a row of the spool have no outcome yet, provider by provider. Pure."""

from collections import Counter

from relayfile.errors import DataCorrupted
from relayfile.ingest.spool.payload import parse_changes, read_row
from relayfile.ingest.spool.spool_file import StoredRow


def open_counts(row: StoredRow, workspace_id: str) -> dict[str, int]:
    """Provider to changes without an outcome. Of a damaged row: what its head says, cut to as many as are open."""
    counts: Counter[str] = Counter()
    ordinal = 0
    try:
        placed = read_row(row.row_id, workspace_id, row.member_count, row.payload)
    except DataCorrupted:
        # The dispatcher says so when the row's turn comes.
        open_changes = row.member_count - row.bits.bit_count()
        for provider, count in parse_changes(row.providers).items():
            counts[provider] = min(count, open_changes - counts.total())
        return dict(counts)
    for envelope, _, _ in placed:
        for _ in range(len(envelope.changes) or 1):
            counts[envelope.provider] += not row.bits >> ordinal & 1
            ordinal += 1
    return dict(counts)
