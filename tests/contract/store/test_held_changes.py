"""What is held of a provider's changes when its edit does not end by an answer: it was taken back, or canceled."""

import asyncio
import json
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from relayfile.clock import ManualClock
from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.rows import ObjectKey
from relayfile.v1 import dead_letter_pb2, event_pb2, file_pb2, types_pb2, writeback_pb2
from relayfile.wire import from_us
from tests.support.writeback import CANCELED, FETCH, PENDING, SUCCEEDED, Stage, staged

ISSUE = "/linear/issues/1.json"
AWAY = "/linear/issues/2.json"
T = 1_800_000_000_000_000
JSON = "application/json"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path, ManualClock()) as made:
        yield made


async def held_count(stage: Stage) -> int:
    async with stage.node.engine.view(stage.key) as view:
        return len(await view.operations().held_of([ObjectKey("linear", "o:issue/1")]))


async def test_newer_news_is_not_replaced_by_what_an_edit_that_was_taken_back_has_held(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.move(ISSUE, AWAY)
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    await stage.move(AWAY, ISSUE)
    assert await stage.deliver(b'{"n":2}', at_us=T + 2) is Outcome.APPLIED
    stage.clock.advance(31)
    await stage.tend()
    assert await stage.read(ISSUE) == b'{"n":2}'


async def test_what_was_held_is_released_as_soon_as_its_edit_is_taken_back(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.move(ISSUE, AWAY)
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    assert await stage.read(AWAY) == b'{"n":0}'
    await stage.move(AWAY, ISSUE)
    request = event_pb2.WatchEventsRequest(workspace_id="acme")
    async with asyncio.timeout(10):  # the node does it by itself, without time going by
        async for answer in stage.client.events.WatchEvents(request, metadata=stage.client.metadata):
            if any(event.content_sha256 == sha256(b'{"n":1}').digest() for event in answer.events):
                break
    assert await stage.read(ISSUE) == b'{"n":1}'


async def test_an_edit_that_comes_at_once_after_one_that_was_taken_back_is_waited_for(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.move(ISSUE, AWAY)
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    batch = file_pb2.WriteFilesRequest(workspace_id="acme")
    batch.items.add(move=file_pb2.MoveItem(path=AWAY, to_path=ISSUE))
    batch.items.add(write=file_pb2.WriteItem(path=ISSUE, content=b'{"n":9}'))
    await stage.client.files.WriteFiles(batch, metadata=stage.client.metadata)
    await stage.tend()
    assert await stage.read(ISSUE) == b'{"n":9}'
    await stage.succeed(await stage.one())
    assert await stage.read(ISSUE) == b'{"n":1}'


async def test_what_was_freed_waits_again_for_an_edit_that_came_before_it_was_released(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    await stage.node.alter("UPDATE held_change SET held_us = 0")
    await stage.tend()
    assert await stage.read(ISSUE) == b'{"n":9}'
    stage.clock.advance(31)
    await stage.tend()
    assert await stage.read(ISSUE) == b'{"n":1}'


@pytest.mark.parametrize("says_when", [False, True])
async def test_what_was_held_is_not_put_over_the_later_version_of_an_answer(stage: Stage, says_when: bool) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    claim = await stage.one()
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    stage.clock.advance(1)
    answered = types_pb2.FileChange(
        kind=types_pb2.CHANGE_KIND_UPSERT, provider_object_id="issue/1", content=b'{"n":10}', content_type=JSON
    )
    if says_when:
        answered.occurred_at.CopyFrom(from_us(T + 2))
    await stage.succeed(claim, change=answered)
    assert await stage.read(ISSUE) == b'{"n":10}'
    assert await held_count(stage) == 0


async def test_what_was_held_is_newer_than_an_answer_of_an_earlier_time(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    claim = await stage.one()
    assert await stage.deliver(b'{"n":1}', at_us=T + 2) is Outcome.APPLIED
    answered = types_pb2.FileChange(
        kind=types_pb2.CHANGE_KIND_UPSERT,
        provider_object_id="issue/1",
        content=b'{"n":10}',
        content_type=JSON,
        occurred_at=from_us(T + 1),
    )
    await stage.succeed(claim, change=answered)
    assert await stage.read(ISSUE) == b'{"n":1}'


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


async def test_what_is_held_keeps_its_place_when_later_changes_name_none(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    assert await stage.deliver(b'{"n":1}', path=AWAY, at_us=T + 1) is Outcome.APPLIED
    assert await stage.deliver(b'{"m":1}', kind=MemberKind.PATCH, at_us=T + 2) is Outcome.APPLIED
    await stage.succeed(await stage.one())
    assert await stage.read(ISSUE) is None
    assert json.loads(await stage.read(AWAY) or b"") == {"m": 1, "n": 1}


async def test_a_patch_that_is_held_keeps_the_files_media_type(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}', content_type="text/plain")
    assert await stage.deliver(b'{"n":9}', kind=MemberKind.PATCH, at_us=T + 1) is Outcome.UNCHANGED
    assert await stage.deliver(b'{"n":8}', kind=MemberKind.PATCH, at_us=T + 2) is Outcome.APPLIED
    await stage.succeed(await stage.one())
    assert (await stage.meta(ISSUE)).content_type == "text/plain"


async def test_what_is_held_is_not_written_to_access_rules(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    assert await stage.deliver(b'{"n":1}', at_us=T + 1) is Outcome.APPLIED
    await stage.move(ISSUE, "/linear/.relayfile.acl")
    await stage.succeed(await stage.one())
    assert await stage.read("/linear/.relayfile.acl") == b'{"n":9}'
    async with stage.node.engine.view(stage.key) as view:
        [provider] = await view.outcomes()
    assert provider.failure_reasons == {"ACL_PATH_REFUSED": 1}


async def test_a_signal_after_what_is_held_is_still_fetched(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    claim = await stage.one()
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 1)
    assert await stage.deliver(b'{"n":1}', at_us=T + 2) is Outcome.APPLIED
    assert await stage.states(kinds=[FETCH]) == [CANCELED]
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 3)
    await stage.succeed(claim)
    assert await stage.read(ISSUE) == b'{"n":1}'
    assert await stage.states(kinds=[FETCH]) == [CANCELED, PENDING]
    assert (await stage.meta(ISSUE)).HasField("stale_since")
    stage.clock.advance(1)
    fetched = types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_UPSERT, content=b'{"n":2}')
    await stage.succeed(await stage.one(), change=fetched)
    assert await stage.read(ISSUE) == b'{"n":2}'
    assert not (await stage.meta(ISSUE)).HasField("stale_since")


async def test_a_file_is_not_stale_when_the_answer_is_newer_than_what_its_signal_told(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.write(ISSUE, b'{"n":9}')
    claim = await stage.one()
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 1)
    await stage.deliver(b'{"n":1}', at_us=T + 2)
    await stage.succeed(claim, at_us=T + 3)
    assert await stage.read(ISSUE) == b'{"n":9}'
    assert not (await stage.meta(ISSUE)).HasField("stale_since")


async def test_edits_of_a_draft_fold_with_those_of_its_object(stage: Stage) -> None:
    await stage.write("/linear/issues/_new/a.json", b"draft")
    claim = await stage.one()
    await stage.deliver(b"{}", path=ISSUE, at_us=T)
    await stage.write(ISSUE, b"older")
    newest = await stage.write("/linear/issues/_new/a.json", b"newest")
    await stage.succeed(claim, provider_object_id="issue/1")
    stage.clock.advance(1)
    [claim] = await stage.claim()
    assert (claim.operation.operation_id, claim.content, claim.operation.folded_count) == (newest, b"newest", 2)
    assert (await stage.succeed(claim)).operation.state == SUCCEEDED


async def test_an_answer_that_cannot_be_placed_any_more_takes_nothing_from_what_was_applied(stage: Stage) -> None:
    await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T)
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 1)
    fetch = await stage.one()
    await stage.write(ISSUE, b'{"n":9}')
    fetched = types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_UPSERT, content=b'{"n":1}', path="/linear/x")
    await stage.succeed(fetch, change=fetched)
    await stage.deliver(b"{}", path="/linear/x/y.json", object_id="issue/2")
    stage.clock.advance(1)
    await stage.succeed(await stage.one())
    async with stage.node.engine.view(stage.key) as view:
        [provider] = await view.outcomes()
    assert provider.counts == {Outcome.APPLIED: 3, Outcome.DEAD_LETTERED: 1}
    # It is a dead letter like any other.
    await stage.deliver(b"{}", path="/linear/y.json", object_id="issue/2")
    every = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id="acme", filter=dead_letter_pb2.DeadLetterFilter())
    replayed = await stage.client.dead_letters.ReplayDeadLetters(every, metadata=stage.client.metadata)
    assert replayed.queued_count == 1
    async with asyncio.timeout(10):
        while (content := await stage.read("/linear/x")) != b'{"n":1}':
            assert content is None
            await asyncio.sleep(0.01)
