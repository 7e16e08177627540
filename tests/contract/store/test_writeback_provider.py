"""Write-back and the provider's own changes: signals and fetches, what is held, echoes, drafts, many deletes."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from relayfile import errors
from relayfile.model import MemberKind, Outcome
from relayfile.status import from_rpc_error
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.v1 import types_pb2, writeback_pb2
from relayfile.wire import from_us
from tests.support.writeback import (
    CANCELED,
    CLAIMED,
    DEAD_LETTERED,
    DELETE,
    FETCH,
    PENDING,
    QUARANTINED,
    SUCCEEDED,
    SUPERSEDED,
    WRITE,
    WRITEBACK_POLICY,
    Stage,
    staged,
)

ISSUE = "/linear/issues/1.json"
DRAFT = "/linear/issues/_new/a.json"
T = 1_800_000_000_000_000


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


def upsert(content: bytes = b"", *, at_us: int | None = None, path: str = "", size: int = 0) -> types_pb2.FileChange:
    change = types_pb2.FileChange(
        kind=types_pb2.CHANGE_KIND_UPSERT,
        content=content,
        path=path,
        content_type="application/json",
        content_follows_bytes=size,
    )
    if at_us is not None:
        change.occurred_at.CopyFrom(from_us(at_us))
    return change


async def known_issue(stage: Stage, content: bytes = b'{"n":0}', at_us: int | None = T) -> None:
    assert await stage.deliver(content, path=ISSUE, at_us=at_us) is Outcome.APPLIED


# --- fetches


async def test_a_signal_is_fetched(stage: Stage) -> None:
    await known_issue(stage)
    assert await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 10) is Outcome.APPLIED
    assert await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 20) is Outcome.APPLIED
    assert (await stage.meta(ISSUE)).HasField("stale_since")
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.folded_count, claim.operation.revision) == (FETCH, 2, 1)
    assert (claim.operation.path, claim.operation.provider_object_id) == (ISSUE, "issue/1")
    # The content is older than the signals, as the provider's times go, and still what was asked for.
    answer = await stage.succeed(claim, change=upsert(b'{"n":1}', at_us=T + 5))
    assert answer.operation.state == SUCCEEDED
    assert answer.operation.result.change.kind == types_pb2.CHANGE_KIND_UPSERT
    assert await stage.read(ISSUE) == b'{"n":1}'
    meta = await stage.meta(ISSUE)
    assert not meta.HasField("stale_since")
    assert meta.origin == types_pb2.ORIGIN_PROVIDER
    assert await stage.event_types() == ["file_created", "file_updated", "writeback_succeeded"]
    # What the signals told of stays known: an upsert from before them is stale.
    assert await stage.deliver(b'{"n":9}', at_us=T + 15) is Outcome.STALE


async def test_an_object_that_nobody_knows_is_fetched_to_its_path(stage: Stage) -> None:
    await stage.deliver(kind=MemberKind.SIGNAL, object_id="page/7", path="")
    claim = await stage.one()
    assert (claim.operation.path, claim.operation.revision) == ("/linear/page_7.json", 0)
    await stage.succeed(claim, change=upsert(b'{"page":7}'))
    assert await stage.read("/linear/page_7.json") == b'{"page":7}'


async def test_a_fetch_may_find_that_the_object_is_gone(stage: Stage) -> None:
    await known_issue(stage)
    await stage.deliver(kind=MemberKind.SIGNAL)
    await stage.succeed(await stage.one(), change=types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_DELETE))
    assert await stage.read(ISSUE) is None


async def test_an_upsert_makes_a_fetch_needless_that_nobody_has_begun(stage: Stage) -> None:
    await known_issue(stage)
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 1)
    await stage.deliver(b'{"n":1}', at_us=T + 2)
    assert await stage.states() == [CANCELED]
    assert not (await stage.meta(ISSUE)).HasField("stale_since")
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 3)
    claim = await stage.one()
    await stage.deliver(b'{"n":2}', at_us=T + 4)
    assert await stage.states() == [CANCELED, CLAIMED]
    await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 5)
    await stage.succeed(claim, change=upsert(b'{"n":2}', at_us=T + 4))
    assert (await stage.meta(ISSUE)).HasField("stale_since")
    stage.clock.advance(1)
    assert (await stage.one()).operation.kind == FETCH


async def test_a_fetch_needs_its_content_and_refuses_what_cannot_be_placed(stage: Stage) -> None:
    await stage.deliver(b"{}", path="/linear/a/b.json", object_id="issue/2")
    await known_issue(stage)
    await stage.deliver(kind=MemberKind.SIGNAL)
    claim = await stage.one()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stage.succeed(claim)
    assert isinstance(from_rpc_error(caught.value), errors.InvalidArgument)
    answer = await stage.succeed(claim, change=upsert(b"{}", path="/linear/a"))
    assert answer.operation.state == DEAD_LETTERED
    assert answer.operation.last_failure.reason == "PATH_IS_DIRECTORY"


async def test_content_larger_than_a_message_comes_in_chunks(stage: Stage) -> None:
    await known_issue(stage)
    await stage.deliver(kind=MemberKind.SIGNAL)
    claim = await stage.one()
    content = b'"' + b"x" * (2 << 20) + b'"'
    success = writeback_pb2.OperationSuccess(change=upsert(size=len(content)))
    pieces = [content[start : start + (1 << 20)] for start in range(0, len(content), 1 << 20)]
    for wrong in (pieces[:-1], [*pieces, b"more"]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stage.ack(claim, wrong, success=success)
        assert isinstance(from_rpc_error(caught.value), errors.InvalidArgument)
    answer = await stage.ack(claim, pieces, success=success)
    assert answer.operation.state == SUCCEEDED
    assert await stage.read(ISSUE) == content


# --- what is held


async def test_a_change_of_an_object_with_an_edit_on_its_way_is_held(stage: Stage) -> None:
    await known_issue(stage)
    operation_id = await stage.write(ISSUE, b'{"n":1}')
    assert await stage.deliver(b'{"n":2,"a":1}', at_us=T + 10) is Outcome.APPLIED
    assert await stage.deliver(b'{"b":1}', kind=MemberKind.PATCH, at_us=T + 11) is Outcome.APPLIED
    assert await stage.deliver(b'{"n":0}', at_us=T + 5) is Outcome.STALE
    assert await stage.read(ISSUE) == b'{"n":1}'
    base = (await stage.get(operation_id)).provider_base
    assert (base.held, base.deleted, base.occurred_at.ToMicroseconds()) == (True, False, T + 11)
    assert json.loads(await base_content(stage, operation_id)) == {"a": 1, "b": 1, "n": 2}
    claim = await stage.one()
    assert claim.operation.provider_base == base
    await stage.succeed(claim)
    assert json.loads(await stage.read(ISSUE) or b"") == {"a": 1, "b": 1, "n": 2}
    assert await stage.event_types() == ["file_created", "file_updated", "file_updated", "writeback_succeeded"]


async def base_content(stage: Stage, operation_id: str) -> bytes:
    request = writeback_pb2.ReadOperationContentRequest(
        workspace_id="acme", operation_id=operation_id, part=writeback_pb2.OPERATION_CONTENT_PART_PROVIDER_BASE
    )
    call = stage.client.writeback.ReadOperationContent(request, metadata=stage.client.metadata)
    return b"".join([message.chunk.data async for message in call])


async def test_what_is_held_and_older_than_the_answer_is_dropped(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    await stage.deliver(b'{"n":2}', at_us=T + 10)
    await stage.succeed(await stage.one(), at_us=T + 20)
    assert await stage.read(ISSUE) == b'{"n":1}'
    # The answer has advanced the watermark.
    assert await stage.deliver(b'{"n":3}', at_us=T + 15) is Outcome.STALE
    assert await stage.deliver(b'{"n":4}', at_us=T + 25) is Outcome.APPLIED
    assert await stage.read(ISSUE) == b'{"n":4}'


async def test_what_is_held_becomes_a_revision_after_thirty_seconds(tmp_path: Path) -> None:
    async with staged(tmp_path) as stage:
        await known_issue(stage)
        await stage.write(ISSUE, b'{"n":1}')
        await stage.deliver(kind=MemberKind.DELETE, at_us=T + 10)
        stage.clock.advance(29)
        await stage.tend()
        assert await stage.read(ISSUE) == b'{"n":1}'
        clock = stage.clock
    async with staged(tmp_path, clock) as stage:  # held durably
        clock.advance(1)
        await stage.tend()
        assert await stage.read(ISSUE) is None
        assert await stage.states() == [PENDING]


async def test_what_is_held_waits_for_the_last_of_the_edits(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    claim = await stage.one()
    await stage.deliver(b'{"n":5}', at_us=T + 10)
    await stage.write(ISSUE, b'{"n":2}')
    await stage.succeed(claim, change=upsert(b'{"n":1,"by":"provider"}', at_us=T + 9))
    assert await stage.read(ISSUE) == b'{"n":2}'
    stage.clock.advance(1)
    await stage.succeed(await stage.one())
    assert await stage.read(ISSUE) == b'{"n":5}'


async def test_what_the_provider_made_of_an_edit_is_its_change(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    answer = await stage.succeed(await stage.one(), at_us=T + 10, change=upsert(b'{"n":1,"id":7}', at_us=T + 10))
    assert await stage.read(ISSUE) == b'{"n":1,"id":7}'
    assert (await stage.meta(ISSUE)).origin == types_pb2.ORIGIN_PROVIDER
    assert answer.revision == 4
    assert await stage.states() == [SUCCEEDED]


async def test_what_cannot_be_placed_any_more_becomes_a_dead_letter(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    await stage.deliver(b'{"n":2}', path="/linear/x", at_us=T + 10)
    await stage.deliver(b"{}", path="/linear/x/y.json", object_id="issue/2")
    await stage.succeed(await stage.one())
    assert await stage.read(ISSUE) == b'{"n":1}'
    async with stage.node.engine.view(stage.key) as view:
        [provider] = await view.outcomes()
    assert provider.counts == {Outcome.APPLIED: 2, Outcome.DEAD_LETTERED: 1}
    assert provider.failure_reasons == {"PATH_IS_DIRECTORY": 1}


# --- echoes


async def test_an_echo_is_suppressed_exactly_by_the_rule(stage: Stage) -> None:
    await known_issue(stage)
    first = await stage.write(ISSUE, b'{"n":1}')
    claim = await stage.one()
    # Claimed: suppressed by its id, and by its correlation id; not with other content, and not by content alone.
    assert await stage.deliver(b'{"n":1}', operation_id=first) is Outcome.SUPPRESSED
    assert await stage.deliver(b'{"n":1}', correlation_id=claim.operation.correlation_id) is Outcome.SUPPRESSED
    await stage.succeed(claim)
    await stage.write(ISSUE, b'{"n":2}')
    stage.clock.advance(119)
    assert await stage.deliver(b'{"n":1}', operation_id=first) is Outcome.SUPPRESSED
    assert await stage.deliver(b'{"n":7}', operation_id=first) is Outcome.APPLIED  # held
    stage.clock.advance(1)
    assert await stage.deliver(b'{"n":1}', operation_id=first) is Outcome.APPLIED
    assert await stage.read(ISSUE) == b'{"n":2}'
    # Of another object it is nobody's echo.
    assert await stage.deliver(b'{"n":2}', object_id="issue/2", operation_id=first) is Outcome.APPLIED


async def test_what_was_never_claimed_has_no_echo(stage: Stage) -> None:
    await known_issue(stage)
    operation_id = await stage.write(ISSUE, b'{"n":1}')
    assert await stage.deliver(b'{"n":3}', operation_id=operation_id) is Outcome.APPLIED
    assert await stage.deliver(b'{"n":1}', object_id="issue/9", path="/linear/9.json") is Outcome.APPLIED


async def test_equal_content_is_unchanged_without_a_name(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    await stage.succeed(await stage.one())
    assert await stage.deliver(b'{"n":1}') is Outcome.UNCHANGED


async def test_the_echo_of_a_delete_and_of_a_signal(stage: Stage) -> None:
    await known_issue(stage)
    operation_id = await stage.delete(ISSUE)
    stage.clock.advance(10)
    claim = await stage.one()
    assert claim.operation.kind == DELETE
    assert await stage.deliver(kind=MemberKind.DELETE, operation_id=operation_id) is Outcome.SUPPRESSED
    assert await stage.deliver(kind=MemberKind.SIGNAL, operation_id=operation_id) is Outcome.SUPPRESSED
    assert await stage.states() == [CLAIMED]


# --- drafts


async def test_a_draft_becomes_the_objects_file(stage: Stage) -> None:
    await stage.write(DRAFT, b'{"title":"a"}')
    claim = await stage.one()
    assert (claim.operation.draft, claim.operation.provider_object_id) == (True, "")
    later = await stage.write(DRAFT, b'{"title":"b"}')
    answer = await stage.succeed(claim, provider_object_id="issue/9", canonical_path="/linear/issues/ABC-9.json")
    assert (answer.operation.provider_object_id, answer.operation.draft) == ("issue/9", False)
    assert await stage.read(DRAFT) is None
    assert await stage.read("/linear/issues/ABC-9.json") == b'{"title":"b"}'
    deleted, created = [event for event in await stage.events() if event.moved_to or event.moved_from]
    assert (deleted.path, deleted.moved_to) == (DRAFT, "/linear/issues/ABC-9.json")
    assert (created.path, created.moved_from) == ("/linear/issues/ABC-9.json", DRAFT)
    meta = await stage.meta("/linear/issues/ABC-9.json")
    assert (meta.provider, meta.provider_object_id) == ("linear", "issue/9")
    stage.clock.advance(1)
    claim = await stage.one()
    assert (claim.operation.operation_id, claim.operation.provider_object_id) == (later, "issue/9")
    assert (claim.operation.path, claim.content) == ("/linear/issues/ABC-9.json", b'{"title":"b"}')
    await stage.succeed(claim)
    # From here on the object is one: a webhook of it finds the file.
    assert await stage.deliver(b'{"title":"b"}', object_id="issue/9") is Outcome.UNCHANGED


async def test_a_draft_without_a_canonical_path_goes_where_objects_go(stage: Stage) -> None:
    await stage.write(DRAFT, b"{}")
    await stage.succeed(await stage.one(), provider_object_id="issue/9")
    assert await stage.read("/linear/issue_9.json") == b"{}"
    await stage.write("/linear/issues/known.json", b"{}")
    await stage.succeed(await stage.one(), provider_object_id="issue/10")
    assert (await stage.meta("/linear/issues/known.json")).provider_object_id == "issue/10"


async def test_a_draft_goes_when_the_webhook_was_faster(stage: Stage) -> None:
    await stage.write(DRAFT, b'{"title":"a"}')
    claim = await stage.one()
    await stage.deliver(b'{"title":"a","id":9}', object_id="issue/9", path="/linear/issues/ABC-9.json")
    await stage.write(DRAFT, b'{"title":"b"}')
    await stage.succeed(claim, provider_object_id="issue/9", canonical_path="/linear/issues/ABC-9.json")
    assert await stage.read(DRAFT) is None
    assert await stage.read("/linear/issues/ABC-9.json") == b'{"title":"a","id":9}'
    stage.clock.advance(1)
    claim = await stage.one()
    assert (claim.operation.provider_object_id, claim.content) == ("issue/9", b'{"title":"b"}')


async def test_a_draft_whose_place_is_taken_stays_where_it_is(stage: Stage) -> None:
    await stage.write("/linear/issues/ABC-9.json", b"mine")
    await stage.write(DRAFT, b"{}")
    claims = {claim.operation.path: claim for claim in await stage.claim()}
    await stage.succeed(claims[DRAFT], provider_object_id="issue/9", canonical_path="/linear/issues/ABC-9.json")
    assert await stage.read("/linear/issues/ABC-9.json") == b"mine"
    assert (await stage.meta(DRAFT)).provider_object_id == "issue/9"


async def test_a_draft_that_is_deleted_again_was_never_there(stage: Stage) -> None:
    await stage.write(DRAFT, b"{}")
    await stage.delete(DRAFT)
    assert await stage.states() == [CANCELED]
    await stage.write(DRAFT, b"{}")
    claim = await stage.one()
    await stage.delete(DRAFT)
    await stage.succeed(claim, provider_object_id="issue/9")
    stage.clock.advance(10)
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.provider_object_id) == (DELETE, "issue/9")


async def test_a_draft_that_moves_takes_its_operation_along(stage: Stage) -> None:
    await stage.write(DRAFT, b"{}")
    await stage.move(DRAFT, "/linear/issues/_new/b.json")
    assert await stage.states() == [SUPERSEDED, PENDING]
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.path, claim.operation.moved_from) == (
        WRITE, "/linear/issues/_new/b.json", "",
    )  # fmt: skip
    await stage.succeed(claim, provider_object_id="issue/9")
    assert await stage.read("/linear/issue_9.json") == b"{}"


# --- quarantine


async def test_unusually_many_deletes_wait_for_an_approval(stage: Stage) -> None:
    for number in range(60):
        await stage.deliver(b"{}", object_id=f"issue/{number}", path=f"/linear/{number}.json")
    for number in range(50):
        await stage.delete(f"/linear/{number}.json")
    assert await stage.states(states=[QUARANTINED]) == []
    stage.clock.advance(10)
    [claim] = await stage.claim(count=1)
    await stage.delete("/linear/50.json")
    held = await stage.operations(states=[QUARANTINED])
    assert len(held) == 50
    assert len({each.quarantine_id for each in held}) == 1
    assert await stage.claim() == []
    assert (await stage.succeed(claim)).operation.state == SUCCEEDED
    await stage.delete("/linear/51.json")
    request = writeback_pb2.ApproveOperationsRequest(workspace_id="acme", reason="we moved")
    request.filter.quarantine_id = held[0].quarantine_id
    approved = await stage.client.writeback.ApproveOperations(request, metadata=stage.client.metadata)
    assert approved.approved_count == 51
    assert len(await stage.claim(count=100)) == 8
    # Approved ones count no more.
    await stage.delete("/linear/52.json")
    assert await stage.states(states=[QUARANTINED]) == []
    assert "writeback_failed" not in await stage.event_types()


async def test_what_is_approved_is_claimed_a_second_after_the_object_was(tmp_path: Path) -> None:
    policy = replace(WRITEBACK_POLICY, plan=PlanLimits(writeback=WritebackLimits(quarantine_deletes=0)))
    async with staged(tmp_path, policy=policy) as stage:
        await known_issue(stage)
        await stage.write(ISSUE, b'{"n":1}')
        claim = await stage.one()
        await stage.delete(ISSUE)
        await stage.succeed(claim)
        request = writeback_pb2.ApproveOperationsRequest(workspace_id="acme", reason="we moved")
        request.filter.SetInParent()
        await stage.client.writeback.ApproveOperations(request, metadata=stage.client.metadata)
        assert await stage.claim() == []
        stage.clock.advance(1)
        assert (await stage.one()).operation.kind == DELETE


async def test_quarantined_deletes_can_be_canceled(stage: Stage) -> None:
    for number in range(51):
        await stage.deliver(b"{}", object_id=f"issue/{number}", path=f"/linear/{number}.json")
        await stage.delete(f"/linear/{number}.json")
    await stage.write("/github/_new/a.json", b"{}")
    [claim] = await stage.claim(providers=["github"])
    request = writeback_pb2.CancelOperationsRequest(workspace_id="acme", request_id="c1")
    request.filter.SetInParent()
    for _ in range(2):
        canceled = await stage.client.writeback.CancelOperations(request, metadata=stage.client.metadata)
        assert (canceled.canceled_count, canceled.claimed_count) == (51, 1)
    assert (await stage.get(claim.operation.operation_id)).state == CLAIMED
    assert set(await stage.states(providers=["linear"])) == {CANCELED}
