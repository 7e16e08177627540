"""`ApplyEnvelopes` over a real connection: what ingest may count on."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from relayfile.model import Outcome
from relayfile.store.commit import CommitLimits
from relayfile.store.engine import DeadLetterFilter, WorkspaceKey
from relayfile.store.plan.entry import Entry
from relayfile.store.plan.planner import plan
from relayfile.store.plan.result import Plan
from relayfile.store.streams.apply_stream import PIECE_CHANGES_MAX
from relayfile.v1 import shard_pb2
from tests.support.running_node import POLICY, RunningNode, Sender, fold, running_node, sub_batch, upsert

WORKSPACE = "acme"


def outcomes(ack: shard_pb2.SubBatchAck) -> list[Outcome]:
    return [Outcome(one) for one in ack.outcomes]


async def stored(running: RunningNode, workspace_id: str = WORKSPACE) -> dict[str, bytes]:
    """Path to content of everything in the workspace."""
    key = running.node.ownership.local_key(workspace_id)
    async with running.engine.view(key) as view:
        rows = await view.list_files("/", "", 100_000)
        contents = await view.contents([row.content_id for row in rows])
        return {row.path: contents[row.content_id] for row in rows}


async def revision(running: RunningNode, workspace_id: str = WORKSPACE) -> int:
    async with running.engine.view(running.node.ownership.local_key(workspace_id)) as view:
        row = await view.workspace()
        return 0 if row is None else row.revision


async def test_a_change_is_applied_and_answered_with_its_ref(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        assert (sender.welcome.node_index, sender.welcome.shard_count) == (0, 256)
        assert sender.welcome.credit_bytes > 0
        batch = sub_batch(WORKSPACE, 1, [fold(upsert(1, b'{"a":1}')), fold(upsert(2, b'{"b":2}'))])
        await sender.send(batch)
        ack = await sender.answered(batch)
        assert ack.spool_refs == (1).to_bytes(12, "big") + (2).to_bytes(12, "big")
        assert outcomes(ack) == [Outcome.APPLIED, Outcome.APPLIED]
        assert await stored(running) == {"/github/issues/1.json": b'{"a":1}', "/github/issues/2.json": b'{"b":2}'}
        assert await revision(running) == 2


async def test_a_resend_after_a_cut_answers_what_was_recorded_and_counts_nothing(tmp_path: Path) -> None:
    batch = sub_batch(WORKSPACE, 1, [fold(upsert(1)), fold(upsert(2))])
    async with running_node(tmp_path) as running:
        async with Sender(running.address) as sender:
            await sender.send(batch)
            first = await sender.answered(batch)
        async with Sender(running.address) as sender:
            await sender.send(batch)
            again = await sender.answered(batch)
            following = sub_batch(WORKSPACE, 2, [fold(upsert(3))])
            await sender.send(following)
            assert outcomes(await sender.answered(following)) == [Outcome.APPLIED]
        assert again == first
        assert await revision(running) == 3
        async with running.engine.view(running.node.ownership.local_key(WORKSPACE)) as view:
            (github,) = await view.outcomes()
        assert github.counts == {Outcome.APPLIED: 3}


async def test_a_node_that_died_before_the_answer_applies_a_resend_once(tmp_path: Path) -> None:
    batch = sub_batch(WORKSPACE, 7, [fold(upsert(number)) for number in range(50)])
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        await sender.send(batch)
        await sender.answered(batch)
        epoch = running.node.ownership.epoch_of(batch.shard_id)
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        assert running.node.ownership.epoch_of(batch.shard_id) == epoch + 1
        await sender.send(batch)
        assert outcomes(await sender.answered(batch)) == [Outcome.APPLIED] * 50
        assert await revision(running) == 50


async def test_a_gap_asks_for_a_resend_once_and_applies_nothing_out_of_order(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        batches = [sub_batch(WORKSPACE, number, [fold(upsert(number))]) for number in range(1, 5)]
        await sender.send(batches[0])
        await sender.answered(batches[0])
        await sender.send(batches[2])
        await sender.send(batches[3])
        while not sender.resyncs:
            await sender.read()
        await sender.send(*batches[1:])
        await sender.answered(batches[3])
        assert [(one.shard_id, one.from_sequence) for one in sender.resyncs] == [(batches[0].shard_id, 2)]
        assert sorted(sequence for _, sequence in sender.acks) == [1, 2, 3, 4]
        assert await revision(running) == 4


async def test_a_shard_taken_by_another_owner_is_fenced_and_the_rest_goes_on(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        taken = sub_batch(WORKSPACE, 1, [fold(upsert(1))])
        other = sub_batch("umbrella", 1, [fold(upsert(2))])
        assert taken.shard_id != other.shard_id
        await running.engine.acquire_shards([taken.shard_id], 1, "elsewhere:1")
        await sender.send(taken, other)
        assert (await sender.answered(taken)).refusal.reason == "NOT_OWNER"
        assert outcomes(await sender.answered(other)) == [Outcome.APPLIED]
        assert await stored(running) == {}
        assert len(await stored(running, "umbrella")) == 1


async def test_a_sender_that_knows_a_newer_epoch_is_sent_to_the_owner(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        batch = sub_batch(WORKSPACE, 1, [fold(upsert(1))], epoch=99)
        await sender.send(batch)
        refusal = (await sender.answered(batch)).refusal
        assert (refusal.reason, refusal.epoch) == ("NOT_OWNER", 1)


async def test_ten_thousand_changes_share_their_transactions(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        before = running.engine.commit_count
        batches = [
            sub_batch(f"workspace-{number % 64}", number // 64 + 1, [fold(upsert(number * 10 + n)) for n in range(10)])
            for number in range(1000)
        ]
        sequences: dict[int, int] = {}
        for batch in batches:
            sequences[batch.shard_id] = batch.sequence = sequences.get(batch.shard_id, 0) + 1

        async def send() -> None:
            for batch in batches:
                await sender.send(batch)

        sending = asyncio.ensure_future(send())
        for batch in batches:
            assert outcomes(await sender.answered(batch)) == [Outcome.APPLIED] * 10
        await sending
        assert running.engine.commit_count - before <= 400
        counted = running.registry.get_sample_value("relayfile_store_commits_total")
        assert counted == running.engine.commit_count - before


async def test_a_large_content_comes_in_chunks(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        content = bytes(range(256)) * 10_000
        member = upsert(1, b"")
        member.content_follows_bytes = len(content)
        batch = sub_batch(WORKSPACE, 1, [fold(member)])
        await sender.send(batch)
        await send_chunks(sender, content)
        assert outcomes(await sender.answered(batch)) == [Outcome.APPLIED]
        assert await stored(running) == {"/github/issues/1.json": content}


async def test_a_content_over_the_nodes_limit_is_a_dead_letter_and_the_stream_goes_on(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        content = bytes(POLICY.plan.content_bytes_max + 1)
        member = upsert(1, b"")
        member.content_follows_bytes = len(content)
        large, small = sub_batch(WORKSPACE, 1, [fold(member)]), sub_batch(WORKSPACE, 2, [fold(upsert(2, b"b"))])
        await sender.send(large)
        await send_chunks(sender, content)
        await sender.send(small)
        refused = await sender.answered(large)
        assert outcomes(refused) == [Outcome.DEAD_LETTERED]
        assert refused.failures[0].failure.reason == "TOO_LARGE"
        assert outcomes(await sender.answered(small)) == [Outcome.APPLIED]


async def send_chunks(sender: Sender, content: bytes) -> None:
    """The content that the message before announced."""
    for start in range(0, len(content), 1 << 20):
        chunk = shard_pb2.ApplyEnvelopesRequest()
        chunk.chunk.data = content[start : start + (1 << 20)]
        chunk.chunk.last = start + (1 << 20) >= len(content)
        await sender.send_request(chunk)


async def test_an_invalid_change_becomes_a_dead_letter_and_holds_up_nobody(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        bad_path, bad_kind = upsert(1), upsert(3)
        bad_path.path = "/a/../b"
        bad_kind.kind = shard_pb2.MEMBER_KIND_UNSPECIFIED
        batch = sub_batch(WORKSPACE, 1, [fold(bad_path), fold(upsert(2)), fold(bad_kind)])
        await sender.send(batch)
        ack = await sender.answered(batch)
        assert outcomes(ack) == [Outcome.DEAD_LETTERED, Outcome.APPLIED, Outcome.DEAD_LETTERED]
        reasons = [(one.member_index, one.failure.reason) for one in ack.failures]
        assert reasons == [(0, "INVALID_PATH"), (2, "INVALID_MEMBER")]
        async with running.engine.view(running.node.ownership.local_key(WORKSPACE)) as view:
            assert sum(each.letter_count for each in await view.letter_totals()) == 2


async def test_a_change_that_meets_a_fault_of_ours_is_put_aside_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(entry: Entry, *arguments: Any, **options: Any) -> Plan:
        for one in entry.folds:
            if one.members[0].content == b"poison":
                raise ZeroDivisionError
        return plan(entry, *arguments, **options)

    monkeypatch.setattr("relayfile.store.entry_kinds.plan", faulty)
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        batch = sub_batch(WORKSPACE, 1, [fold(upsert(1)), fold(upsert(2, b"poison")), fold(upsert(3))])
        await sender.send(batch)
        ack = await sender.answered(batch)
        assert outcomes(ack) == [Outcome.APPLIED, Outcome.DEAD_LETTERED, Outcome.APPLIED]
        assert [one.failure.reason for one in ack.failures] == ["INTERNAL_FAULT"]
        async with running.engine.view(running.node.ownership.local_key(WORKSPACE)) as view:
            (kept,) = await view.dead_letters(DeadLetterFilter(), "", 10)
            body = (await view.contents([kept.content_id]))[kept.content_id]
        assert shard_pb2.FoldMember.FromString(body).content == b"poison"


async def test_an_elided_content_that_is_needed_after_all_is_asked_for(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        elided = upsert(1, b"")
        elided.content_elided = True
        batch = sub_batch(WORKSPACE, 1, [fold(elided), fold(upsert(2))])
        await sender.send(batch)
        ack = await sender.answered(batch)
        assert list(ack.content_needed) == [elided.spool_ref]
        assert (ack.spool_refs, outcomes(ack)) == (upsert(2).spool_ref, [Outcome.APPLIED])
        whole = sub_batch(WORKSPACE, 2, [fold(upsert(1))])
        await sender.send(whole)
        assert outcomes(await sender.answered(whole)) == [Outcome.APPLIED]


async def test_what_follows_an_undecided_change_of_its_object_is_not_applied_before_it(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        elided, last = upsert(1, b""), upsert(999, b"last", object_id="1")
        elided.content_elided = True
        others = [fold(upsert(number)) for number in range(2, 2 + 2 * PIECE_CHANGES_MAX)]
        batch = sub_batch(WORKSPACE, 1, [fold(elided), *others, fold(last)])
        await sender.send(batch)
        ack = await sender.answered(batch)
        assert list(ack.content_needed) == [elided.spool_ref, last.spool_ref]
        assert outcomes(ack) == [Outcome.APPLIED] * len(others)


async def test_an_unknown_workspace_is_ignored_when_deliveries_do_not_create(tmp_path: Path) -> None:
    policy = replace(POLICY, creates_workspaces=False)
    async with running_node(tmp_path, policy) as running, Sender(running.address) as sender:
        batch = sub_batch(WORKSPACE, 1, [fold(upsert(1))])
        await sender.send(batch)
        assert outcomes(await sender.answered(batch)) == [Outcome.IGNORED]
        await running.node.create_workspace(WORKSPACE)
        batch = sub_batch(WORKSPACE, 2, [fold(upsert(2))])
        await sender.send(batch)
        assert outcomes(await sender.answered(batch)) == [Outcome.APPLIED]


async def test_a_stream_that_ends_its_side_gets_all_answers(tmp_path: Path) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        batches = [sub_batch(WORKSPACE, number, [fold(upsert(number))]) for number in range(1, 101)]
        await sender.send(*batches)
        await sender.done_writing()
        while await sender.read() is not None:
            pass
        assert len(sender.acks) == 100


@pytest.mark.parametrize("spoil", ["shard", "ref", "hello", "members", "announced in the middle"])
async def test_a_malformed_message_ends_the_stream(tmp_path: Path, spoil: str) -> None:
    async with running_node(tmp_path) as running, Sender(running.address) as sender:
        request = shard_pb2.ApplyEnvelopesRequest(sub_batches=[sub_batch(WORKSPACE, 1, [fold(upsert(1))])])
        if spoil == "shard":
            request.sub_batches[0].shard_id ^= 1
        elif spoil == "ref":
            request.sub_batches[0].workspaces[0].folds[0].members[0].spool_ref = b"short"
        elif spoil == "hello":
            request.hello.session_id = "again"
        elif spoil == "announced in the middle":
            request.sub_batches[0].workspaces[0].folds[0].members[0].content_follows_bytes = 10
            request.sub_batches[0].workspaces[0].folds.append(fold(upsert(2)))
        else:
            del request.sub_batches[0].workspaces[0].folds[0].members[:]
        await sender.send_request(request)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await sender.read()
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await revision(running) == 0


async def test_the_queue_of_one_workspace_is_bounded(tmp_path: Path) -> None:
    limits = CommitLimits(bounds=replace(CommitLimits().bounds, workspace_changes_max=5))
    async with running_node(tmp_path, replace(POLICY, commit=limits)) as running, Sender(running.address) as sender:
        batches = [
            sub_batch(WORKSPACE, number, [fold(upsert(number * 10 + n)) for n in range(4)]) for number in range(1, 4)
        ]
        await sender.send(*batches)
        answers = [await sender.answered(batch) for batch in batches]
        assert [answer.refusal.reason for answer in answers] == ["", "OVERLOADED", "OVERLOADED"]
        await sender.send(batches[1])
        del sender.acks[batches[1].shard_id, 2]
        assert outcomes(await sender.answered(batches[1])) == [Outcome.APPLIED] * 4
        assert WorkspaceKey(batches[0].shard_id, WORKSPACE) == running.node.ownership.local_key(WORKSPACE)
