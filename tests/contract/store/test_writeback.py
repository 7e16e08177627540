"""Write-back on a real node: edits become operations, workers claim and answer them, and nothing is lost on the way."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import grpc.aio
import pytest

from relayfile import errors
from relayfile.clock import ManualClock
from relayfile.model import Outcome
from relayfile.status import from_rpc_error
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.v1 import file_pb2, types_pb2, writeback_pb2
from tests.support.writeback import (
    CLAIMED,
    DEAD_LETTERED,
    DELETE,
    MOVE,
    PENDING,
    SUCCEEDED,
    SUPERSEDED,
    WRITE,
    WRITEBACK_POLICY,
    Stage,
    seconds,
    staged,
)

ISSUE = "/linear/issues/1.json"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@asynccontextmanager
async def refused(error: type[errors.RelayfileError]) -> AsyncIterator[None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield
    assert isinstance(from_rpc_error(caught.value), error), caught.value


async def known_issue(stage: Stage, content: bytes = b'{"n":0}') -> None:
    assert await stage.deliver(content, path=ISSUE) is Outcome.APPLIED


async def test_an_edit_reaches_its_provider(stage: Stage) -> None:
    await known_issue(stage)
    operation_id = await stage.write(ISSUE, b'{"n":1}')
    claim = await stage.one()
    operation = claim.operation
    assert (operation.operation_id, operation.kind, operation.state) == (operation_id, WRITE, CLAIMED)
    assert (operation.provider, operation.provider_object_id, operation.path) == ("linear", "issue/1", ISSUE)
    assert (operation.revision, operation.base_revision, operation.folded_count) == (2, 1, 1)
    assert (claim.content, claim.claim_number, claim.content_omitted) == (b'{"n":1}', 1, False)
    assert operation.provider_base.size_bytes == 7
    assert not operation.provider_base.held
    assert operation.actor == "agent-1"
    assert claim.idempotency_key == f"{operation_id}-1"
    answer = await stage.succeed(claim)
    assert (answer.operation.state, answer.revision) == (SUCCEEDED, 3)
    assert await stage.event_types() == ["file_created", "file_updated", "writeback_succeeded"]
    assert (await stage.events())[-1].operation_id == operation_id
    assert await stage.claim() == []


async def test_files_of_no_provider_make_no_operations(stage: Stage) -> None:
    assert await stage.write("/notes/a.txt", b"a") == ""
    assert await stage.write("/README.md", b"a") == ""
    assert await stage.operations() == []


async def test_a_directory_is_a_providers_once_it_delivered_something(stage: Stage) -> None:
    assert await stage.write("/custom/a.json", b"1") == ""
    await stage.deliver(b"{}", path="/custom/b.json", provider="custom")
    assert await stage.write("/custom/a.json", b"2") != ""


async def test_edits_that_nobody_claimed_fold_into_one(stage: Stage) -> None:
    await known_issue(stage)
    ids = [await stage.write(ISSUE, b'{"n":%d}' % number) for number in (1, 2, 3)]
    assert await stage.states() == [SUPERSEDED, SUPERSEDED, PENDING]
    assert [each.superseded_by for each in await stage.operations()] == [ids[1], ids[2], ""]
    claim = await stage.one()
    assert (claim.operation.operation_id, claim.content) == (ids[2], b'{"n":3}')
    assert (claim.operation.folded_count, claim.operation.base_revision) == (3, 1)
    revisions = [event.revision for event in await stage.events()]
    assert revisions == list(range(1, 7))
    assert (await stage.event_types()).count("writeback_superseded") == 2


async def test_one_operation_of_an_object_is_claimed_and_the_next_waits_a_second(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    first = await stage.one()
    await stage.write(ISSUE, b'{"n":2}')
    await stage.write(ISSUE, b'{"n":3}')
    assert await stage.claim() == []
    await stage.succeed(first)
    assert await stage.claim() == []
    stage.clock.advance(0.999)
    assert await stage.claim() == []
    stage.clock.advance(0.001)
    second = await stage.one()
    assert second.content == b'{"n":3}'
    # What was claimed keeps its content, whatever the file is by now.
    await stage.write(ISSUE, b'{"n":4}')
    assert (await read_content(stage, second.operation.operation_id))[1] == b'{"n":3}'


async def read_content(stage: Stage, operation_id: str, **fields: object) -> tuple[int, bytes]:
    request = writeback_pb2.ReadOperationContentRequest(workspace_id="acme", operation_id=operation_id, **fields)  # type: ignore[arg-type]
    call = stage.client.writeback.ReadOperationContent(request, metadata=stage.client.metadata)
    messages = [message async for message in call]
    assert [each.chunk.last for each in messages[1:]] == [False] * (len(messages) - 2) + [True]
    return messages[0].head.size_bytes, b"".join(each.chunk.data for each in messages[1:])


async def test_contents_are_kept_while_an_operation_needs_them(stage: Stage) -> None:
    await known_issue(stage)
    big = b'"' + b"x" * (3 << 20) + b'"'
    await stage.write(ISSUE, b'{"n":1}')
    first = await stage.one(lease=seconds(600))
    await upload(stage, big)
    await stage.write(ISSUE, b'{"n":3}')
    await upload(stage, big + b" ")
    stage.clock.advance(120)  # the grace of replaced contents is over
    await stage.node.engine.remove_expired(stage.clock.now_us(), 1000)
    assert (await read_content(stage, first.operation.operation_id))[1] == b'{"n":1}'
    await stage.succeed(first)
    claim = await stage.one()
    assert claim.content_omitted
    assert await read_content(stage, claim.operation.operation_id) == (len(big) + 1, big + b" ")
    size, rest = await read_content(stage, claim.operation.operation_id, offset_bytes=len(big) - 5)
    assert (size, rest) == (len(big) + 1, (big + b" ")[-6:])
    await stage.succeed(claim)
    async with refused(errors.OperationContentGone):
        await read_content(stage, claim.operation.operation_id)
    assert holds(stage) == []
    stage.clock.advance(120)
    await stage.node.engine.remove_expired(stage.clock.now_us(), 1000)
    assert contents(stage) == 1


async def upload(stage: Stage, content: bytes) -> None:
    head = file_pb2.WriteFileRequest(workspace_id="acme", path=ISSUE, force=True)
    messages = [file_pb2.UploadFileRequest(head=head, size_bytes=len(content))]
    for start in range(0, len(content), 1 << 20):
        chunk = types_pb2.ContentChunk(data=content[start : start + (1 << 20)])
        messages.append(file_pb2.UploadFileRequest(chunk=chunk))
    await stage.client.files.UploadFile(iter(messages), metadata=stage.client.metadata)


def holds(stage: Stage) -> list[object]:
    connection = apsw.Connection(str(stage.node.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return list(connection.execute("SELECT * FROM content_hold"))
    finally:
        connection.close()


def contents(stage: Stage) -> int:
    connection = apsw.Connection(str(stage.node.database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return int(connection.execute("SELECT count(*) FROM content").get)
    finally:
        connection.close()


async def test_a_delete_can_be_taken_back_for_ten_seconds(stage: Stage) -> None:
    await known_issue(stage)
    await stage.delete(ISSUE)
    stage.clock.advance(9.9)
    assert await stage.claim() == []
    await stage.deliver(b'{"n":5}', path="/linear/issues/2.json", object_id="issue/2")
    await stage.delete("/linear/issues/2.json")
    stage.clock.advance(0.1)
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.provider_object_id) == (DELETE, "issue/1")
    assert claim.content == b""
    assert not claim.operation.content_sha256


async def test_moves_and_writes_fold(stage: Stage) -> None:
    await known_issue(stage)
    await stage.move(ISSUE, "/linear/issues/2.json")
    await stage.move("/linear/issues/2.json", "/linear/issues/3.json")
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.path) == (MOVE, "/linear/issues/3.json")
    assert (claim.operation.moved_from, claim.content) == (ISSUE, b'{"n":0}')
    await stage.move("/linear/issues/3.json", "/linear/issues/4.json")
    await stage.write("/linear/issues/4.json", b'{"n":2}')
    await stage.succeed(claim)
    stage.clock.advance(1)
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.moved_from) == (WRITE, "/linear/issues/3.json")
    assert claim.content == b'{"n":2}'


async def test_a_lease_that_ends_gives_the_operation_back(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    first = await stage.one(lease=seconds(5))
    stage.clock.advance(4)
    request = writeback_pb2.RenewClaimRequest(
        workspace_id="acme", operation_id=first.operation.operation_id, claim_number=1, lease=seconds(5)
    )
    renewed = await stage.client.writeback.RenewClaim(request, metadata=stage.client.metadata)
    assert renewed.expire_time.ToMicroseconds() == stage.clock.now_us() + 5_000_000
    stage.clock.advance(4.9)
    assert await stage.claim() == []
    stage.clock.advance(0.1)
    async with refused(errors.ClaimExpired):
        await stage.client.writeback.RenewClaim(request, metadata=stage.client.metadata)
    second = await stage.one()
    assert (second.claim_number, second.operation.attempt_count) == (2, 2)
    async with refused(errors.ClaimExpired):
        await stage.succeed(first)
    assert (await stage.succeed(second)).operation.state == SUCCEEDED


async def test_a_late_answer_is_remembered(stage: Stage) -> None:
    await known_issue(stage)
    await stage.write(ISSUE, b'{"n":1}')
    lost = await stage.one()
    stage.clock.advance(31)
    await stage.write(ISSUE, b'{"n":2}')
    await stage.tend()
    assert await stage.states() == [SUPERSEDED, PENDING]  # what was given back folds into the later edit
    claim = await stage.one()
    assert (claim.content, claim.operation.folded_count, claim.operation.base_revision) == (b'{"n":2}', 2, 1)
    # The first worker's write may reach the provider now: what is there has to be brought once more.
    async with refused(errors.ClaimExpired):
        await stage.succeed(lost)
    await stage.succeed(claim)
    stage.clock.advance(1)
    again = await stage.one()
    assert again.content == b'{"n":2}'
    await stage.succeed(again)
    async with refused(errors.ClaimExpired):
        await stage.succeed(lost)
    stage.clock.advance(1)
    assert len(await stage.claim()) == 1


async def test_an_edit_folds_with_one_that_is_given_back(stage: Stage) -> None:
    await known_issue(stage)
    await stage.move(ISSUE, "/linear/issues/2.json")
    claim = await stage.one()
    await stage.write("/linear/issues/2.json", b'{"n":2}')
    answer = await stage.fail(claim, retry_after=60)
    assert answer.operation.state == SUPERSEDED
    stage.clock.advance(59)
    assert await stage.claim() == []
    stage.clock.advance(1)
    claim = await stage.one()
    assert (claim.operation.kind, claim.operation.moved_from, claim.content) == (WRITE, ISSUE, b'{"n":2}')


async def test_failures_are_retried_with_patience_and_end(tmp_path: Path) -> None:
    limits = WritebackLimits(attempts_max=3)
    policy = replace(WRITEBACK_POLICY, plan=WRITEBACK_POLICY.plan._replace(writeback=limits))
    async with staged(tmp_path, policy=policy) as stage:
        await known_issue(stage)
        operation_id = await stage.write(ISSUE, b'{"n":1}')
        answer = await stage.fail(await stage.one())
        assert (answer.operation.state, answer.operation.attempt_count) == (PENDING, 1)
        wait_us = answer.operation.claimable_time.ToMicroseconds() - stage.clock.now_us()
        assert 500_000 <= wait_us <= 1_000_000
        stage.clock.advance(1)
        answer = await stage.fail(await stage.one(), retry_after=90)
        wait_us = answer.operation.claimable_time.ToMicroseconds() - stage.clock.now_us()
        assert wait_us == 90_000_000
        stage.clock.advance(90)
        released = await stage.one()
        answer = await stage.ack(released, release=writeback_pb2.ReleaseClaim(delay=seconds(3)))
        assert (answer.operation.state, answer.operation.attempt_count) == (PENDING, 2)
        stage.clock.advance(3)
        answer = await stage.fail(await stage.one())
        assert (answer.operation.state, answer.operation.last_failure.reason) == (DEAD_LETTERED, "PROVIDER_REFUSED")
        assert (await stage.event_types())[-1] == "writeback_failed"
        replay = writeback_pb2.ReplayOperationRequest(workspace_id="acme", operation_id=operation_id, reason="again")
        replayed = await stage.client.writeback.ReplayOperation(replay, metadata=stage.client.metadata)
        assert (replayed.operation.state, replayed.operation.attempt_count) == (PENDING, 0)
        async with refused(errors.OperationNotDeadLettered):
            await stage.client.writeback.ReplayOperation(replay, metadata=stage.client.metadata)
        stage.clock.advance(1)
        assert (await stage.one()).content == b'{"n":1}'
        operation_id = await stage.write(ISSUE, b'{"n":2}')
        stage.clock.advance(31)
        [claim] = await stage.claim()
        assert claim.operation.operation_id in (operation_id, answer.operation.operation_id)
        assert (await stage.fail(claim, retryable=False)).operation.state == DEAD_LETTERED


async def test_a_provider_gives_only_so_many_at_once(tmp_path: Path) -> None:
    limits = WritebackLimits(provider_concurrency_max=2)
    policy = replace(WRITEBACK_POLICY, plan=WRITEBACK_POLICY.plan._replace(writeback=limits))
    async with staged(tmp_path, policy=policy) as stage:
        for number in range(4):
            await stage.write(f"/linear/issues/_new/{number}.json", b"{}")
        await stage.write("/github/issues/_new/1.json", b"{}")
        claims = await stage.claim()
        assert sorted(each.operation.provider for each in claims) == ["github", "linear", "linear"]
        assert await stage.claim(providers=["linear"]) == []
        mine = next(each for each in claims if each.operation.provider == "linear")
        await stage.succeed(mine)
        assert len(await stage.claim()) == 1


async def test_claims_survive_a_restart(tmp_path: Path) -> None:
    clock = ManualClock()
    async with staged(tmp_path, clock) as stage:
        await known_issue(stage)
        await stage.write(ISSUE, b'{"n":1}')
        claim = await stage.one(request_id="r1")
    async with staged(tmp_path, clock) as stage:
        assert await stage.claim(count=1, worker_id="other") == []
        again = await stage.one(request_id="r1")
        assert again == claim
        async with refused(errors.RequestIdReused):
            await stage.claim(count=2, request_id="r1")
        first = await stage.succeed(claim, request_id="a1")
    async with staged(tmp_path, clock) as stage:
        assert await stage.succeed(claim, request_id="a1") == first
        assert await stage.event_types() == ["file_created", "file_updated", "writeback_succeeded"]
