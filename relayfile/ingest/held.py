"""What the pipeline holds, for the status: a view of its lanes, its spool and its windows. Owns nothing."""

from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.status_report import HeldHere
from relayfile.v1 import shard_pb2


class PipelineHolding:
    """See `servicer.Holding`."""

    def __init__(self, pipeline: Pipeline, ingest_id: str) -> None:
        self._pipeline = pipeline
        self._ingest_id = ingest_id

    def held(self, workspace: str, refused: dict[str, int]) -> HeldHere:
        """Costs O(providers) for one workspace, O(lanes) for all."""
        pipeline = self._pipeline
        lanes = pipeline.dispatcher.lanes
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
        return HeldHere(
            ingest_id=self._ingest_id,
            pending=reports,
            refused=refused,
            spool_bytes=pipeline.admission.stored_bytes,
            spool_bytes_max=pipeline.admission.bytes_max,
            queued_objects=pipeline.coalescer.objects,
        )
