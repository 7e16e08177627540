"""What closing windows costs the store: one lock, one commit, and one revision of each object."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relayfile.model import Outcome
from relayfile.placement import shard_of
from relayfile.settings import IngestSettings
from relayfile.store.engine import WorkspaceKey
from relayfile.v1 import types_pb2
from tests.integration.test_ingest_pipeline import CLOCK, IDS, running, settled, until
from tests.support.running_node import RunningNode, running_node

OBJECTS = 150
EDITS = 4
"""Three of each object are held: fewer changes than an entry may have (`CommitLimits.entry_changes_max`)."""


def edits(workspace: str, number: int) -> list[types_pb2.Envelope]:
    made = []
    for item in range(OBJECTS):
        envelope = types_pb2.Envelope(
            envelope_id=IDS.new_id(), workspace_id=workspace, provider="github", delivery_id=f"{item}-{number}"
        )
        envelope.received_at.FromMicroseconds(CLOCK.now_us())
        content = b'{"edit":%d}' % number
        path = f"/issues/{item}.json"
        envelope.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=path, content=content)
        made.append(envelope)
    return made


def counted(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engine is asked to do from now on, by the names of its methods."""
    calls: list[str] = []

    def counting(name: str) -> None:
        method: Callable[..., Awaitable[Any]] = getattr(node.engine, name)

        async def call(*arguments: Any) -> Any:
            calls.append(name)
            return await method(*arguments)

        monkeypatch.setattr(node.engine, name, call)

    counting("load")
    counting("commit")
    return calls


async def test_a_flush_of_many_objects_is_one_lock_and_one_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_node(tmp_path / "store") as node:
        chosen = IngestSettings(data_dir=tmp_path / "ingest", nodes=(node.address,), coalesce_window_s=3.0)
        async with running(chosen) as pipeline:
            await pipeline.accept(edits("acme", 0))
            await settled(pipeline)
            for number in range(1, EDITS):
                await pipeline.accept(edits("acme", number))
            await until(lambda: pipeline.coalescer.members_held == OBJECTS * (EDITS - 1))
            calls = counted(node, monkeypatch)
            await settled(pipeline)
        assert sorted(calls) == ["commit", "load"]
        async with node.engine.view(WorkspaceKey(shard_of("acme"), "acme")) as view:
            row = await view.workspace()
            [counts] = [each.counts for each in await view.outcomes()]
        assert row is not None
        assert row.revision == 2 * OBJECTS
        assert counts[Outcome.APPLIED] == 2 * OBJECTS
        assert counts[Outcome.COALESCED] == (EDITS - 2) * OBJECTS
