"""What may be done about dead letters, on a running node: read, tried again, put aside, over restarts."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from relayfile.model import Outcome
from relayfile.store.engine import AdminActionFilter, DeadLetterFilter, WorkspaceKey
from relayfile.store.letters.replayer import Replayer, ReplayPolicy
from relayfile.store.plan.entry import Entry
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.planner import plan
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import ActionResult
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc, shard_pb2, types_pb2
from tests.support.running_node import POLICY, RunningNode, Sender, fold, running_node, sub_batch, upsert

W = "acme"
AT_ONCE = replace(POLICY, replay=ReplayPolicy(letters_per_second_max=10_000))
STUCK = replace(POLICY, replay=ReplayPolicy(letters_per_second_max=1))
PENDING = dead_letter_pb2.DEAD_LETTER_STATE_PENDING
ACKNOWLEDGED = dead_letter_pb2.DEAD_LETTER_STATE_ACKNOWLEDGED
REPLAYING = dead_letter_pb2.DEAD_LETTER_STATE_REPLAYING
APPLY = dead_letter_pb2.DEAD_LETTER_STAGE_APPLY
NORMALISE = dead_letter_pb2.DEAD_LETTER_STAGE_NORMALISE
BROKEN_BODY = b"{broken" * 400_000


class Operator:
    """Calls about the dead letters of one workspace."""

    def __init__(self, running: RunningNode) -> None:
        self.running = running
        self.channel = grpc.aio.insecure_channel(running.address)
        self.stub: dead_letter_pb2_grpc.DeadLetterServiceAsyncStub = dead_letter_pb2_grpc.DeadLetterServiceStub(
            self.channel
        )

    async def letters(self) -> list[dead_letter_pb2.DeadLetter]:
        answer = await self.stub.ListDeadLetters(dead_letter_pb2.ListDeadLettersRequest(workspace_id=W))
        return list(answer.dead_letters)[::-1]

    async def replay(self, *ids: str, **options: object) -> dead_letter_pb2.ReplayDeadLettersResponse:
        request = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id=W, dead_letter_ids=ids, **options)  # type: ignore[arg-type]
        if not ids and not request.HasField("filter"):
            request.filter.SetInParent()
        return await self.stub.ReplayDeadLetters(request)

    async def acknowledge(
        self, dead_letter_id: str, reason: str = "", request_id: str = ""
    ) -> dead_letter_pb2.DeadLetter:
        request = dead_letter_pb2.AcknowledgeDeadLetterRequest(
            workspace_id=W, dead_letter_id=dead_letter_id, reason=reason, request_id=request_id
        )
        return (await self.stub.AcknowledgeDeadLetter(request)).dead_letter

    async def read(self, dead_letter_id: str) -> tuple[dead_letter_pb2.DeadLetterHead, bytes]:
        call = self.stub.ReadDeadLetter(
            dead_letter_pb2.ReadDeadLetterRequest(workspace_id=W, dead_letter_id=dead_letter_id)
        )
        messages = [message async for message in call]
        assert [message.chunk.last for message in messages[1:]] == [False] * (len(messages) - 2) + [True]
        assert all(len(message.chunk.data) <= 1 << 20 for message in messages)
        return messages[0].head, b"".join(message.chunk.data for message in messages[1:])

    async def counts(self) -> dict[Outcome, int]:
        async with self.running.engine.view(self.running.node.ownership.local_key(W)) as view:
            outcomes = await view.outcomes()
        return {
            outcome: number
            for outcome in Outcome
            if (number := sum(each.counts.get(outcome, 0) for each in outcomes)) != 0
        }

    async def reasons(self) -> dict[str, int]:
        async with self.running.engine.view(self.running.node.ownership.local_key(W)) as view:
            (github,) = await view.outcomes()
        return github.failure_reasons

    async def until(self, holds: Callable[[list[dead_letter_pb2.DeadLetter]], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds(await self.letters()):  # noqa: ASYNC110 - the node tells nobody when a replay ends
                await asyncio.sleep(0.01)

    async def settled(self) -> list[dead_letter_pb2.DeadLetter]:
        """What is left when nothing is being replayed any more."""
        await self.until(lambda letters: all(letter.state != REPLAYING for letter in letters))
        return await self.letters()


@asynccontextmanager
async def operated(path: Path, policy: object = AT_ONCE) -> AsyncIterator[Operator]:
    async with running_node(path, policy) as running:  # type: ignore[arg-type]
        operator = Operator(running)
        try:
            yield operator
        finally:
            await operator.channel.close()


def blocker() -> shard_pb2.Fold:
    """A file where others need a directory."""
    member = upsert(1, b"{}", object_id="blocker")
    member.path = "/d"
    return fold(member)


def unblock(number: int = 2) -> shard_pb2.Fold:
    """Takes it away."""
    member = upsert(number, b"", object_id="blocker")
    member.kind = shard_pb2.MEMBER_KIND_DELETE
    member.path = ""
    return fold(member)


def blocked(number: int, content: bytes = b"{}") -> shard_pb2.Fold:
    member = upsert(number, content)
    member.path = f"/d/{number}.json"
    return fold(member)


def unreadable(number: int, body: bytes = b"{broken", reason: str = "MALFORMED_JSON") -> shard_pb2.Fold:
    """A delivery that ingest could not normalise."""
    member = shard_pb2.FoldMember(
        spool_ref=number.to_bytes(12, "big"),
        envelope_id=f"envelope-{number:017d}",
        delivery_id=f"delivery-{number}",
        kind=shard_pb2.MEMBER_KIND_FAILED,
        received_unix_us=1_800_000_000_000_000 + number,
        raw=types_pb2.RawDelivery(body=body, headers={"x-github-event": "issues"}),
        failure=types_pb2.Failure(reason=reason, message="the body is not JSON"),
        adapter_version="github/1",
        event_name="issues",
        correlation_id=f"c-{number}",
        traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    )
    return shard_pb2.Fold(provider="github", change_key="n:0", members=[member])


def normalised(redo: shard_pb2.Redo, number: int, index: int = 0, content: bytes = b"{}") -> shard_pb2.Fold:
    """A change of what a redo amounts to."""
    member = upsert(number, content, envelope=redo.envelope_id)
    member.delivery_id, member.change_index = redo.delivery_id, index
    member.received_unix_us = redo.received_unix_us
    return fold(member)


async def send(running: RunningNode, sequence: int, *folds: shard_pb2.Fold) -> list[Outcome]:
    async with Sender(running.address, session_id=f"session-{sequence}") as sender:
        batch = sub_batch(W, sequence, folds)
        await sender.send(batch)
        return outcomes_of(await sender.answered(batch))


def outcomes_of(ack: shard_pb2.SubBatchAck) -> list[Outcome]:
    return [Outcome(one) for one in ack.outcomes]


async def code_of(awaitable: object) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value.code()


class TestReading:
    async def test_a_request_and_a_change_are_read_as_they_were(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(
                operator.running,
                1,
                blocker(),
                blocked(2, b'{"a":1}' * 300_000),
                unreadable(3, b"{x"),
                unreadable(4, b""),
            )
            change, request, empty = await operator.letters()
            assert (change.stage, change.change_kind, change.path) == (APPLY, types_pb2.CHANGE_KIND_UPSERT, "/d/2.json")
            assert (change.raw_size_bytes, change.provider_object_id) == (2_100_000, "issue/2")
            head, body = await operator.read(change.dead_letter_id)
            assert body == b'{"a":1}' * 300_000
            assert head.dead_letter == change
            assert (head.change.path, head.change.content, head.change.content_type) == (
                "/d/2.json", b"", "application/json",
            )  # fmt: skip
            head, body = await operator.read(request.dead_letter_id)
            assert body == b"{x"
            assert (dict(head.headers), head.HasField("change")) == ({"x-github-event": "issues"}, False)
            assert request.traceparent.startswith("00-1")
            assert len(head.content_sha256) == 32
            assert (await operator.read(empty.dead_letter_id))[1] == b""
            described = await operator.stub.GetDeadLetter(
                dead_letter_pb2.GetDeadLetterRequest(workspace_id=W, dead_letter_id=change.dead_letter_id)
            )
            assert described.change.provider_object_id == "issue/2"
            assert await code_of(operator.read("none")) is grpc.StatusCode.NOT_FOUND


class TestReplayOfChanges:
    async def test_one_that_succeeds_disappears_and_its_outcome_changes(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), blocked(2), blocked(3))
            assert await operator.counts() == {Outcome.APPLIED: 1, Outcome.DEAD_LETTERED: 2}
            await send(operator.running, 2, unblock(4))
            answer = await operator.replay(reason="moved away", request_id="r1")
            assert (answer.queued_count, answer.already_replaying_count, answer.remaining_count) == (2, 0, 0)
            assert await operator.settled() == []
            assert await operator.counts() == {Outcome.APPLIED: 4}
            assert await operator.reasons() == {}
            assert await operator.replay(reason="moved away", request_id="r1") == answer
            async with operator.running.engine.view(operator.running.node.ownership.local_key(W)) as view:
                assert [row.path for row in await view.list_files("/", "", 9)] == ["/d/2.json", "/d/3.json"]
                (action,) = await view.admin_actions(AdminActionFilter(), "", 9)
            assert (action.actor, action.reason, action.result) == ("ingest-0", "moved away", ActionResult.SUCCEEDED)
            assert (action.method, action.detail) == ("relayfile.v1.DeadLetterService/ReplayDeadLetters", "queued 2")

    async def test_one_that_fails_again_is_the_same_with_its_new_reason(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), blocked(2))
            (before,) = await operator.letters()
            assert (before.reason, before.attempt_count) == ("PATH_UNDER_FILE", 1)
            member = upsert(9)
            member.path = "/d/2.json/below.json"
            await send(operator.running, 2, unblock(4), fold(member))
            await operator.replay(before.dead_letter_id)
            (after,) = await operator.settled()
            assert (after.dead_letter_id, after.reason) == (before.dead_letter_id, "PATH_IS_DIRECTORY")
            assert (after.state, after.attempt_count) == (PENDING, 2)
            assert after.create_time == before.create_time
            assert await operator.counts() == {Outcome.APPLIED: 3, Outcome.DEAD_LETTERED: 1}
            assert await operator.reasons() == {"PATH_IS_DIRECTORY": 1}

    async def test_it_does_not_go_over_what_came_after_it(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            newer = upsert(5, b'{"newer":true}', object_id="2")
            newer.path = "/elsewhere.json"
            await send(operator.running, 1, blocker(), blocked(2, b'{"older":true}'), fold(newer))
            await send(operator.running, 2, unblock(6))
            await operator.replay()
            assert await operator.settled() == []
            assert await operator.counts() == {Outcome.APPLIED: 3, Outcome.STALE: 1}

    async def test_a_restart_in_the_middle_goes_on(self, tmp_path: Path) -> None:
        async with operated(tmp_path, STUCK) as operator:
            await send(operator.running, 1, blocker(), *(blocked(number) for number in range(2, 30)))
            await send(operator.running, 2, unblock(40))
            assert (await operator.replay()).queued_count == 28
            await operator.until(lambda letters: 0 < len(letters) < 28)
        async with operated(tmp_path) as operator:
            assert await operator.settled() == []
            assert await operator.counts() == {Outcome.APPLIED: 30}

    async def test_a_redelivery_meanwhile_settles_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        async def idle(_: Replayer, key: WorkspaceKey) -> int:
            return 0

        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), blocked(2), blocked(3), blocked(4))
            await send(operator.running, 2, unblock(40))
            with monkeypatch.context() as patched:
                patched.setattr(Replayer, "_plan_again", idle)
                assert (await operator.replay()).queued_count == 3
                again = blocked(4)
                again.members[0].envelope_id = "envelope-again"
                assert await send(operator.running, 3, again) == [Outcome.APPLIED]
                assert len(await operator.letters()) == 2
            await operator.replay()
            assert await operator.settled() == []
            assert await operator.counts() == {Outcome.APPLIED: 5, Outcome.DUPLICATE: 1}

    async def test_by_filter_oldest_first_with_a_maximum(self, tmp_path: Path) -> None:
        async with operated(tmp_path, STUCK) as operator:
            await send(operator.running, 1, blocker(), *(blocked(number) for number in range(2, 7)), unreadable(7))
            chosen = dead_letter_pb2.DeadLetterFilter(stage=APPLY, provider="github", reason="PATH_UNDER_FILE")
            preview = await operator.replay(filter=chosen, replay_count_max=3, validate_only=True)
            assert (preview.queued_count, preview.remaining_count) == (3, 2)
            assert all(letter.state == PENDING for letter in await operator.letters())
            letters = await operator.letters()
            answer = await operator.replay(letters[5].dead_letter_id, "none")
            assert (answer.queued_count, list(answer.missing_dead_letter_ids)) == (1, ["none"])
            again = await operator.replay(letters[5].dead_letter_id)
            assert (again.queued_count, again.already_replaying_count) == (0, 1)
            assert (await operator.letters())[5].state == REPLAYING
            none = dead_letter_pb2.DeadLetterFilter(provider="linear")
            assert (await operator.replay(filter=none)).queued_count == 0
            early = dead_letter_pb2.DeadLetterFilter()
            early.received_before.FromMicroseconds(1_800_000_000_000_004)
            assert (await operator.replay(filter=early, validate_only=True)).queued_count == 2

    @pytest.mark.parametrize("ids", [[], ["x"] * 1_001, [""], ["x" * 65]])
    async def test_what_is_no_replay_is_refused(self, tmp_path: Path, ids: list[str]) -> None:
        async with operated(tmp_path) as operator:
            request = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id=W, dead_letter_ids=ids)
            assert await code_of(operator.stub.ReplayDeadLetters(request)) is grpc.StatusCode.INVALID_ARGUMENT
            request = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id="none", dead_letter_ids=["x"])
            assert await code_of(operator.stub.ReplayDeadLetters(request)) is grpc.StatusCode.NOT_FOUND


class TestAcknowledgement:
    async def test_it_is_kept_and_may_still_be_replayed(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), blocked(2))
            (before,) = await operator.letters()
            seen = await operator.acknowledge(before.dead_letter_id, "known", "r1")
            assert (seen.state, seen.acknowledged_by, seen.acknowledge_reason) == (ACKNOWLEDGED, "ingest-0", "known")
            assert seen.expire_time.ToMicroseconds() == before.create_time.ToMicroseconds() + 7 * 86_400_000_000
            assert await operator.acknowledge(before.dead_letter_id, "known", "r1") == seen
            assert await operator.acknowledge(before.dead_letter_id, "somebody else") == seen
            assert await operator.letters() == [seen]
            listed = await operator.stub.ListDeadLetters(dead_letter_pb2.ListDeadLettersRequest(workspace_id=W))
            assert (listed.pending_count, listed.total_count) == (0, 1)
            assert (await operator.replay()).queued_count == 0
            chosen = dead_letter_pb2.DeadLetterFilter(state=ACKNOWLEDGED)
            assert (await operator.replay(filter=chosen)).queued_count == 1
            (after,) = await operator.settled()
            assert (after.state, after.acknowledged_by, after.HasField("expire_time")) == (PENDING, "", False)
            assert await code_of(operator.acknowledge("none")) is grpc.StatusCode.NOT_FOUND

    async def test_not_while_it_is_replayed(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            (letter,) = await operator.letters()
            await operator.replay(letter.dead_letter_id)
            assert await code_of(operator.acknowledge(letter.dead_letter_id)) is grpc.StatusCode.FAILED_PRECONDITION


class TestRedo:
    async def test_it_waits_for_ingest_and_is_replaced_by_its_changes(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1, BROKEN_BODY))
            (letter,) = await operator.letters()
            await operator.replay()
            assert (await operator.letters())[0].state == REPLAYING
            async with Sender(operator.running.address, redos_max=2) as ingest:
                redo = await ingest.redo()
                assert (redo.dead_letter_id, redo.delivery_id) == (letter.dead_letter_id, "delivery-1")
                assert (redo.provider, redo.reason, redo.correlation_id) == ("github", "MALFORMED_JSON", "c-1")
                assert (dict(redo.raw.headers), redo.raw.body_follows_bytes) == (
                    {"x-github-event": "issues"}, len(BROKEN_BODY),
                )  # fmt: skip
                assert (await operator.read(redo.dead_letter_id))[1] == BROKEN_BODY
                large = b'{"a":"' + b"x" * 3_000_000 + b'"}'
                folds = [normalised(redo, 1), normalised(redo, 2, 1, large), normalised(redo, 3, 2)]
                assert await ingest.finish(redo, *folds)
                assert await operator.letters() == []
                assert await operator.counts() == {Outcome.APPLIED: 3}
                assert not await ingest.finish(redo, *folds)
            assert await operator.counts() == {Outcome.APPLIED: 3}
            assert await send(operator.running, 2, unreadable(1, BROKEN_BODY)) == [Outcome.IGNORED]
            assert await operator.counts() == {Outcome.APPLIED: 3}
            assert await operator.letters() == []

    @pytest.mark.parametrize("forwarded", [False, True])
    async def test_nothing_left_of_it_counts_as_ignored(self, tmp_path: Path, *, forwarded: bool) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                assert await ingest.finish(await ingest.redo(), forwarded=forwarded)
            assert await operator.letters() == []
            assert await operator.counts() == {Outcome.IGNORED: 1}

    async def test_a_failure_makes_it_pending_with_its_reason(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                failure = types_pb2.Failure(reason="UNEXPECTED_SHAPE", message="issues: no number")
                assert await ingest.finish(await ingest.redo(), failure=failure)
            (letter,) = await operator.letters()
            assert (letter.state, letter.reason, letter.message) == (PENDING, "UNEXPECTED_SHAPE", "issues: no number")
            assert (letter.attempt_count, letter.adapter_version) == (2, "github/2")
            assert await operator.counts() == {Outcome.DEAD_LETTERED: 1}
            assert await operator.reasons() == {"UNEXPECTED_SHAPE": 1}

    async def test_a_change_of_it_that_fails_is_a_dead_letter_of_its_own(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), unreadable(5))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                redo = await ingest.redo()
                bad = normalised(redo, 2)
                bad.members[0].path = "/d/2.json"
                assert await ingest.finish(redo, normalised(redo, 3, 1), bad)
            (letter,) = await operator.letters()
            assert (letter.stage, letter.reason, letter.delivery_id) == (APPLY, "PATH_UNDER_FILE", "delivery-5")
            assert await operator.counts() == {Outcome.APPLIED: 2, Outcome.DEAD_LETTERED: 1}

    async def test_a_late_result_changes_nothing(self, tmp_path: Path) -> None:
        brief = replace(POLICY, replay=ReplayPolicy(letters_per_second_max=10_000, lease_s=0.05))
        async with operated(tmp_path, brief) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as first:
                redo = await first.redo()
                again = await first.redo()
                assert (again.dead_letter_id, again.lease_id != redo.lease_id) == (redo.dead_letter_id, True)
                assert not await first.finish(redo, normalised(redo, 1))
                assert await operator.counts() == {Outcome.DEAD_LETTERED: 1}

    async def test_a_lost_ingest_and_a_restart_only_delay_it(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1), unreadable(2))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as lost:
                old = await lost.redo()
            async with Sender(operator.running.address, "other", redos_max=1) as ingest:
                redo = await ingest.redo()
                assert redo.dead_letter_id == old.dead_letter_id
                assert not await ingest.finish(old)
        async with operated(tmp_path) as operator, Sender(operator.running.address, redos_max=1) as ingest:
            assert not await ingest.finish(redo)
            for _ in range(2):
                redo = await ingest.redo()
                assert await ingest.finish(redo, normalised(redo, 1 if redo.delivery_id == "delivery-1" else 2))
            assert await operator.counts() == {Outcome.APPLIED: 2}

    async def test_what_an_ingest_cannot_do_makes_room_and_comes_again(self, tmp_path: Path) -> None:
        brief = replace(POLICY, replay=ReplayPolicy(letters_per_second_max=10_000, lease_s=2.0))
        async with operated(tmp_path, brief) as operator:
            await send(operator.running, 1, unreadable(1), unreadable(2))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                first = await ingest.redo()
                assert not await ingest.finish(first, postponed=True)
                second = await ingest.redo()
                assert second.dead_letter_id != first.dead_letter_id
                assert await ingest.finish(second)
                again = await ingest.redo()
                assert again.dead_letter_id == first.dead_letter_id
                assert not await ingest.finish(first), "of the lease that was given back"
                assert await ingest.finish(again)
            assert await operator.counts() == {Outcome.IGNORED: 2}

    async def test_a_redelivery_after_it_is_a_duplicate(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                redo = await ingest.redo()
                assert await ingest.finish(redo, normalised(redo, 1))
            again = normalised(redo, 1)
            again.members[0].envelope_id = "envelope-again"
            broken_again = unreadable(1)
            broken_again.members[0].envelope_id = "envelope-broken"
            assert await send(operator.running, 2, again, broken_again) == [Outcome.DUPLICATE] * 2
            assert await operator.counts() == {Outcome.APPLIED: 1, Outcome.DUPLICATE: 2}

    @pytest.mark.parametrize("damage", ["missing", "more", "elided", "index", "change"])
    async def test_what_is_no_result_is_refused(self, tmp_path: Path, damage: str) -> None:
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                redo = await ingest.redo()
                folds = [normalised(redo, 1), normalised(redo, 2, 0 if damage == "index" else 1)]
                if damage == "change":
                    folds.append(normalised(redo, 2, 2))
                folds[0].members[0].content_elided = damage == "elided"
                body = shard_pb2.WorkspaceFolds(workspace_id=W, folds=folds).SerializeToString()
                head = shard_pb2.RedoHead(
                    workspace_id=W,
                    dead_letter_id=redo.dead_letter_id,
                    lease_id=redo.lease_id,
                    folds_bytes=len(body) + {"missing": 1, "more": -1}.get(damage, 0),
                )
                chunk = types_pb2.ContentChunk(data=body)
                messages = [shard_pb2.FinishRedoRequest(head=head), shard_pb2.FinishRedoRequest(chunk=chunk)]
                stub = ingest.stub
                assert await code_of(stub.FinishRedo(iter(messages))) is grpc.StatusCode.INVALID_ARGUMENT
                assert await operator.counts() == {Outcome.DEAD_LETTERED: 1}

    async def test_those_of_one_tenant_are_queued(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            folds = [unreadable(number, reason="UNROUTED") for number in range(1, 5)]
            for one, tenant in zip(folds, ("a", "b", "a", "a"), strict=True):
                one.members[0].raw.headers["x-relayfile-tenant"] = tenant
            folds[3].members[0].failure.reason = "MALFORMED_JSON"
            await send(operator.running, 1, *folds)
            assert await operator.running.node.dead_letters.queue_tenant(W, "UNROUTED", "a") == 2
            states = [(letter.delivery_id, letter.state == REPLAYING) for letter in await operator.letters()]
            assert states == [
                ("delivery-1", True), ("delivery-2", False), ("delivery-3", True), ("delivery-4", False),
            ]  # fmt: skip


class TestBounds:
    async def test_a_workspace_with_too_many_takes_no_more_failures_and_loses_none(self, tmp_path: Path) -> None:
        few = replace(AT_ONCE, plan=PlanLimits(dead_letters_max=2))
        async with operated(tmp_path, few) as operator:
            await send(operator.running, 1, unreadable(1), unreadable(2))
            async with Sender(operator.running.address, session_id="s") as sender:
                good, bad = sub_batch(W, 1, [fold(upsert(7))]), sub_batch(W, 2, [unreadable(3), fold(upsert(8))])
                await sender.send(good, bad)
                assert outcomes_of(await sender.answered(good)) == [Outcome.APPLIED]
                assert (await sender.answered(bad)).refusal.reason == "DEAD_LETTERS_FULL"
                assert await operator.counts() == {Outcome.APPLIED: 1, Outcome.DEAD_LETTERED: 2}
                await operator.acknowledge((await operator.letters())[0].dead_letter_id)
                del sender.acks[bad.shard_id, 2]
                await sender.send(bad)
                assert outcomes_of(await sender.answered(bad)) == [Outcome.DEAD_LETTERED, Outcome.APPLIED]

    async def test_only_acknowledged_ones_expire(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator:
            engine = operator.running.engine
            await send(operator.running, 1, unreadable(1), unreadable(2))
            await operator.acknowledge((await operator.letters())[0].dead_letter_id)
            now_us = operator.running.node.clock.now_us()
            week_us = 7 * 86_400_000_000
            assert (await engine.remove_expired(now_us + week_us - 60_000_000, 100)).removed_count == 0
            await engine.remove_expired(now_us + week_us + 1, 100)
            (left,) = await operator.letters()
            assert left.delivery_id == "delivery-2"
            assert await operator.reasons() == {"MALFORMED_JSON": 1}
            assert await operator.counts() == {Outcome.DEAD_LETTERED: 2}
            key = operator.running.node.ownership.local_key(W)
            async with engine.view(key) as view:
                assert await view.dead_letters(DeadLetterFilter(), "", 9) != []
                assert sum(each.letter_count for each in await view.letter_totals()) == 1


class TestFaultsOfOurs:
    async def test_a_change_that_met_one_is_planned_when_it_is_mended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def faulty(entry: Entry, *arguments: Any, **options: Any) -> Plan:
            for one in entry.folds:
                if one.members[0].content == b"poison":
                    raise ZeroDivisionError
            return plan(entry, *arguments, **options)

        async with operated(tmp_path) as operator:
            with monkeypatch.context() as patched:
                patched.setattr("relayfile.store.entry_kinds.plan", faulty)
                await send(operator.running, 1, blocker(), fold(upsert(5, b"poison")), blocked(3))
                poisoned, _ = await operator.letters()
                assert (poisoned.stage, poisoned.reason) == (APPLY, "INTERNAL_FAULT")
                assert (await operator.read(poisoned.dead_letter_id))[1] == b"poison"
                await send(operator.running, 2, unblock(40))
                await operator.replay()
                (left,) = await operator.settled()
                assert (left.dead_letter_id, left.reason) == (poisoned.dead_letter_id, "INTERNAL_FAULT")
                assert left.attempt_count == 2
            await operator.replay()
            assert await operator.settled() == []
            assert await operator.counts() == {Outcome.APPLIED: 4}

    async def test_the_changes_of_a_redo_that_meet_one_are_put_aside_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def faulty(entry: Entry, *arguments: Any, **options: Any) -> Plan:
            for one in entry.folds:
                if one.members[0].content == b"poison":
                    raise ZeroDivisionError
            return plan(entry, *arguments, **options)

        monkeypatch.setattr("relayfile.store.entry_kinds.plan", faulty)
        async with operated(tmp_path) as operator:
            await send(operator.running, 1, unreadable(1))
            await operator.replay()
            async with Sender(operator.running.address, redos_max=1) as ingest:
                redo = await ingest.redo()
                assert await ingest.finish(redo, normalised(redo, 1, 0, b"poison"), normalised(redo, 2, 1))
            (letter,) = await operator.letters()
            assert (letter.stage, letter.reason, letter.envelope_id) == (APPLY, "INTERNAL_FAULT", redo.envelope_id)
            assert await operator.counts() == {Outcome.APPLIED: 1, Outcome.DEAD_LETTERED: 1}

    async def test_an_elided_content_comes_before_its_change_is_put_aside(self, tmp_path: Path) -> None:
        async with operated(tmp_path) as operator, Sender(operator.running.address) as sender:
            older, newer = upsert(2, b"", object_id="9"), upsert(3, b"newer", object_id="9")
            for member in (older, newer):
                member.path = "/d/9.json"
            older.content_elided = True
            batch = sub_batch(W, 1, [blocker(), fold(older, newer)])
            await sender.send(batch)
            ack = await sender.answered(batch)
            assert (outcomes_of(ack), len(ack.content_needed)) == ([Outcome.APPLIED], 2)
            older.content_elided, older.content = False, b"older"
            whole = sub_batch(W, 2, [fold(older, newer)])
            await sender.send(whole)
            assert outcomes_of(await sender.answered(whole)) == [Outcome.DEAD_LETTERED] * 2
            letters = await operator.letters()
            assert [(await operator.read(letter.dead_letter_id))[1] for letter in letters] == [b"older", b"newer"]
            await send(operator.running, 3, unblock(40))
            await operator.replay()
            assert await operator.settled() == []
            key = operator.running.node.ownership.local_key(W)
            async with operator.running.engine.view(key) as view:
                (row,) = await view.list_files("/d", "", 9)
                assert await view.contents([row.content_id]) == {row.content_id: b"newer"}

    async def test_a_replay_that_cannot_even_be_tried_ends_no_node(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def faulty(body: bytes) -> None:
            raise ZeroDivisionError

        async with operated(tmp_path) as operator:
            await send(operator.running, 1, blocker(), blocked(3))
            await send(operator.running, 2, unblock(40))
            with monkeypatch.context() as patched:
                patched.setattr("relayfile.store.letters.letter_kinds._kept_change", faulty)
                await operator.replay()
                assert await send(operator.running, 3, fold(upsert(7))) == [Outcome.APPLIED]
                (letter,) = await operator.letters()
                assert letter.state == REPLAYING
            await operator.replay(letter.dead_letter_id)
            assert await operator.settled() == []
