"""What is held of a provider's changes when its edit does not end by an answer: it was taken back, or canceled."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from relayfile.model import Outcome
from relayfile.v1 import writeback_pb2
from tests.support.writeback import Stage, staged

ISSUE = "/linear/issues/1.json"
AWAY = "/linear/issues/2.json"
T = 1_800_000_000_000_000


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, ManualClock()) as made:
        yield made


async def test_newer_news_is_not_replaced_by_what_an_edit_that_was_taken_back_has_held(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.move(ISSUE, AWAY)
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    await stage.move(AWAY, ISSUE)
    assert await stage.deliver(b'{"n":2}', at_us=T + 2) is Outcome.APPLIED
    stage.clock.advance(31)
    await stage.tend()
    assert await stage.read(ISSUE) == b'{"n":2}'


async def test_what_cannot_be_placed_when_its_edit_is_canceled_becomes_a_dead_letter(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    edit = await stage.write(ISSUE, b'{"n":9}')
    assert await stage.deliver(b'{"n":1}', path="/linear/x/1.json", at_us=T + 1) is Outcome.APPLIED
    await stage.write("/linear/x", b"a file where the directory would be")
    request = writeback_pb2.CancelOperationsRequest(workspace_id="acme", operation_ids=[edit])
    await stage.client.writeback.CancelOperations(request, metadata=stage.client.metadata)
    async with stage.node.engine.view(stage.key) as view:
        [provider] = await view.outcomes()
    assert provider.counts == {Outcome.APPLIED: 1, Outcome.DEAD_LETTERED: 1}
    assert await stage.read(ISSUE) == b'{"n":9}'
