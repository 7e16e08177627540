"""A dead letter of an app that is forwarded by the real pipeline to a real node: once, whatever is lost on the way."""

from pathlib import Path

from relayfile.ids import IdSource
from relayfile.ingest.apps.app_redo import AppRedo
from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.model import Outcome
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2
from tests.integration.test_ingest_pipeline import CLOCK, running, settled
from tests.support.running_node import RunningNode, running_node
from tests.unit.ingest.apps.test_app_redo import APPS, PROVIDERS, Routes, facts, redo


async def outcomes(node: RunningNode, workspace: str) -> dict[Outcome, int]:
    async with node.engine.view(node.node.ownership.local_key(workspace)) as view:
        [github] = await view.outcomes()
    return {outcome: number for outcome, number in github.counts.items() if number}


async def test_a_redo_that_is_done_again_counts_nothing(tmp_path: Path) -> None:
    """The process died after it forwarded and before the node learned of it."""
    async with running_node(tmp_path / "store") as node:
        chosen = IngestSettings(data_dir=tmp_path / "ingest", nodes=(node.address,), coalesce_window_s=0.05)
        async with running(chosen) as pipeline:
            forwarding = AppRedo(APPS, PROVIDERS, Routes(), pipeline, IdSource(CLOCK).new_id)
            for _ in range(2):
                assert await forwarding.forward(redo(), facts()) is None
                await settled(pipeline)
            assert await outcomes(node, "acme") == {Outcome.APPLIED: 1}
            await pipeline.accept(again())
            await settled(pipeline)
            assert await outcomes(node, "acme") == {Outcome.APPLIED: 1, Outcome.DUPLICATE: 1}


def again() -> list[types_pb2.Envelope]:
    """The same delivery, sent again by its provider when the route was known."""
    given: RequestFacts = facts()
    [delivery] = PROVIDERS["github"].normalise(given)
    envelope = delivery.envelope
    envelope.workspace_id, envelope.provider, envelope.envelope_id = "acme", "github", "another"
    envelope.received_at.FromMicroseconds(CLOCK.now_us())
    return [envelope]
