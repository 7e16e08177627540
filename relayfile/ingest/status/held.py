"""What the process holds, for the status: a view of its lanes and figures. Owns nothing."""

from relayfile.ingest.mode import Mode
from relayfile.ingest.status.status_report import HeldHere
from relayfile.v1 import shard_pb2


class ModeHolding:
    """See `servicer.Holding`."""

    def __init__(self, mode: Mode) -> None:
        self._mode = mode

    def held(self, workspace: str, refused: dict[str, int]) -> HeldHere:
        """Costs O(providers) for one workspace, O(lanes) for all."""
        lanes = self._mode.traffic.lanes
        chosen = list(lanes.values()) if not workspace else [lane] if (lane := lanes.get(workspace)) is not None else []
        reports: list[shard_pb2.PendingReport] = []
        for lane in chosen:
            reports += [
                shard_pb2.PendingReport(
                    workspace_id=lane.workspace_id,
                    provider=provider,
                    pending=count,
                    oldest_received_unix_us=lane.ages[provider].oldest_us,
                )
                for provider, count in lane.pending.items()
                if count
            ]
        figures = self._mode.figures()
        return HeldHere(
            ingest_id=self._mode.ingest_id,
            pending=reports,
            refused=refused,
            spool_bytes=figures.spool_bytes,
            spool_bytes_max=figures.spool_bytes_max,
            queued_objects=figures.objects_held,
            paused=self._mode.traffic.pauses.table.get(workspace, frozenset()),
        )
