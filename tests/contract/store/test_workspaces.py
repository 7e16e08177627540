"""Workspaces, counters and dead letters as the API shows them, after a real pipeline made them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from relayfile.auth import set_current_principal
from relayfile.errors import (
    DeadLetterNotFound,
    DeadlineExpired,
    InvalidArgument,
    PageTokenInvalid,
    RequestIdReused,
    WorkspaceAlreadyExists,
    WorkspaceNotFound,
)
from relayfile.store.engine import DeadLetterFilter
from relayfile.store.order import Order
from relayfile.store.proxy import Peers
from relayfile.store.servicers.dead_letter_service import DeadLetterService
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.workspace_listing import WorkspaceListing
from relayfile.store.servicers.workspace_service import WorkspaceService
from relayfile.v1 import dead_letter_pb2, ingest_pb2, shard_pb2, types_pb2, workspace_pb2
from tests.support.running_node import RunningNode, Sender, fold, running_node, sub_batch, upsert
from tests.support.tokens import EVERYBODY

W = "acme"


class _Call:
    """As much of a call as these services look at."""

    def time_remaining(self) -> float | None:
        return 0.05


CALL: Any = _Call()


@asynccontextmanager
async def services(path: Path) -> AsyncIterator[tuple[RunningNode, WorkspaceService, DeadLetterService]]:
    set_current_principal(EVERYBODY)
    async with running_node(path) as running:
        reading = Reading(running.engine, running.node.feed, running.node.ownership, 1.0)
        letters = DeadLetterService(reading, running.node.dead_letters, 7 * 86_400_000_000)
        listing = WorkspaceListing(reading, Peers(grpc.aio.insecure_channel), 1.0, 0)
        yield running, WorkspaceService(reading, running.node, running.node.deletions, listing), letters


def failed(number: int, reason: str) -> shard_pb2.FoldMember:
    return shard_pb2.FoldMember(
        spool_ref=number.to_bytes(12, "big"),
        envelope_id=f"envelope-{number:017d}",
        delivery_id=f"delivery-{number}",
        kind=shard_pb2.MEMBER_KIND_FAILED,
        received_unix_us=1_800_000_000_000_000 + number * 1_000_000,
        raw=types_pb2.RawDelivery(body=b"{not json", headers={"x-github-event": "issues"}),
        failure=types_pb2.Failure(reason=reason, message=f"delivery {number} is broken"),
        adapter_version="github/1",
        event_name="issues.opened",
        correlation_id=f"c-{number}",
    )


async def broken_deliveries(running: RunningNode) -> None:
    folds = [
        shard_pb2.Fold(
            provider="github" if number % 2 else "linear",
            change_key="n:0",
            members=[failed(number, "MALFORMED_JSON" if number < 4 else "TOO_LARGE")],
        )
        for number in range(1, 8)
    ]
    async with Sender(running.address) as sender:
        batch = sub_batch(W, 1, [*folds, fold(upsert(50)), fold(upsert(51))])
        await sender.send(batch)
        await sender.answered(batch)


def _with_id(request: workspace_pb2.CreateWorkspaceRequest, request_id: str) -> workspace_pb2.CreateWorkspaceRequest:
    named = workspace_pb2.CreateWorkspaceRequest(request_id=request_id)
    named.MergeFrom(request)
    return named


class TestWorkspaceService:
    async def test_a_repeated_request_gets_the_first_answer(self, tmp_path: Path) -> None:
        request = _with_id(workspace_pb2.CreateWorkspaceRequest(workspace_id=W), "once")
        async with services(tmp_path) as (running, workspaces, _):
            first = await workspaces.CreateWorkspace(request, CALL)
            async with Sender(running.address) as sender:
                await sender.send(batch := sub_batch(W, 1, [fold(upsert(1))]))
                await sender.answered(batch)
            assert await workspaces.CreateWorkspace(request, CALL) == first
            other = workspace_pb2.CreateWorkspaceRequest()
            other.MergeFrom(request)
            other.quota.files_max = 1
            with pytest.raises(RequestIdReused):
                await workspaces.CreateWorkspace(other, CALL)
        async with services(tmp_path) as (_, workspaces, _):
            assert await workspaces.CreateWorkspace(request, CALL) == first

    async def test_a_new_workspace_is_empty_and_durable(self, tmp_path: Path) -> None:
        request = workspace_pb2.CreateWorkspaceRequest(
            workspace_id=W, quota=workspace_pb2.WorkspaceQuota(files_max=7, total_bytes_max=9)
        )
        async with services(tmp_path) as (_, workspaces, _):
            made = (await workspaces.CreateWorkspace(request, CALL)).workspace
            assert (made.workspace_id, made.revision, made.totals.file_count) == (W, 0, 0)
            assert (made.quota.files_max, made.quota.total_bytes_max) == (7, 9)
            assert len(made.totals.digest) == 32
            assert made.history_id
            assert not made.HasField("modify_time")
            with pytest.raises(WorkspaceAlreadyExists):
                await workspaces.CreateWorkspace(request, CALL)
            with pytest.raises(WorkspaceAlreadyExists):
                await workspaces.CreateWorkspace(_with_id(request, "late"), CALL)
        async with services(tmp_path) as (_, workspaces, _):
            found = await workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(workspace_id=W), CALL)
            assert found.workspace == made

    @pytest.mark.parametrize("name", ["", "_app/x", "_x", ".x", "a/b", "a b", "x" * 129, "ä"])
    async def test_names_that_no_workspace_can_have(self, tmp_path: Path, name: str) -> None:
        async with services(tmp_path) as (_, workspaces, _):
            request = workspace_pb2.CreateWorkspaceRequest(
                workspace_id=name, quota=workspace_pb2.WorkspaceQuota(files_max=-1)
            )
            with pytest.raises(InvalidArgument) as refused:
                await workspaces.CreateWorkspace(request, CALL)
            assert [each.field for each in refused.value.violations] == ["workspace_id", "quota.files_max"]

    async def test_counters_health_and_the_last_failure(self, tmp_path: Path) -> None:
        async with services(tmp_path) as (running, workspaces, _):
            await broken_deliveries(running)
            key = running.node.ownership.local_key(W)
            async with running.engine.view(key) as view:
                (first,) = await view.dead_letters(DeadLetterFilter(provider="github", reason="TOO_LARGE"), "", 1)
            order = Order("ops", "AcknowledgeDeadLetter", "known", "", "c")
            await running.node.dead_letters.acknowledge(key, first.row.dead_letter_id, order)
            answer = await workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(workspace_id=W), CALL)
        github, linear = answer.workspace.providers
        assert (github.status.provider, linear.status.provider) == ("github", "linear")
        assert (github.status.accepted, github.status.applied, github.status.dead_lettered) == (6, 2, 4)
        assert (linear.status.accepted, linear.status.dead_lettered) == (3, 3)
        assert dict(github.status.failure_reasons) == {"MALFORMED_JSON": 2, "TOO_LARGE": 2}
        assert github.status.health == ingest_pb2.PROVIDER_HEALTH_ERROR
        assert github.pending_dead_letter_count == 3, "one was acknowledged"
        assert github.last_failure.reason == "TOO_LARGE"
        assert github.HasField("last_applied_time")
        assert not linear.HasField("last_applied_time")
        assert answer.workspace.revision == 2
        assert answer.workspace.totals.file_count == 2

    async def test_what_is_not_there_and_what_does_not_come(self, tmp_path: Path) -> None:
        async with services(tmp_path) as (running, workspaces, _):
            with pytest.raises(WorkspaceNotFound):
                await workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(workspace_id="none"), CALL)
            await running.node.create_workspace(W)
            with pytest.raises(DeadlineExpired):
                await workspaces.GetWorkspace(workspace_pb2.GetWorkspaceRequest(workspace_id=W, min_revision=1), CALL)


class TestDeadLetterService:
    async def test_newest_first_in_pages(self, tmp_path: Path) -> None:
        async with services(tmp_path) as (running, _, dead_letters):
            await broken_deliveries(running)
            request = dead_letter_pb2.ListDeadLettersRequest(workspace_id=W, page_size=3)
            ids: list[str] = []
            sizes: list[int] = []
            while True:
                page = await dead_letters.ListDeadLetters(request, CALL)
                sizes.append(len(page.dead_letters))
                ids += [each.dead_letter_id for each in page.dead_letters]
                assert (page.pending_count, page.total_count) == (7, 7)
                request.page_token = page.next_page_token
                if not page.next_page_token:
                    break
            assert sizes == [3, 3, 1]
            assert ids == sorted(ids, reverse=True)
            assert len(set(ids)) == 7
            request.page_token = "x"
            with pytest.raises(PageTokenInvalid):
                await dead_letters.ListDeadLetters(request, CALL)

    async def test_filters(self, tmp_path: Path) -> None:
        async with services(tmp_path) as (running, _, dead_letters):
            await broken_deliveries(running)

            async def deliveries(**fields: Any) -> set[str]:
                chosen = dead_letter_pb2.DeadLetterFilter(**fields)
                request = dead_letter_pb2.ListDeadLettersRequest(workspace_id=W, filter=chosen)
                answer = await dead_letters.ListDeadLetters(request, CALL)
                return {each.delivery_id.removeprefix("delivery-") for each in answer.dead_letters}

            assert await deliveries(provider="github") == set("1357")
            assert await deliveries(reason="MALFORMED_JSON") == set("123")
            assert await deliveries(provider="linear", reason="TOO_LARGE") == set("46")
            assert await deliveries(stage=dead_letter_pb2.DEAD_LETTER_STAGE_NORMALISE) == set("1234567")
            assert await deliveries(stage=dead_letter_pb2.DEAD_LETTER_STAGE_APPLY) == set()
            assert await deliveries(state=dead_letter_pb2.DEAD_LETTER_STATE_ACKNOWLEDGED) == set()
            base = 1_800_000_000
            assert await deliveries(received_from={"seconds": base + 3}, received_before={"seconds": base + 5}) == set(
                "34"
            )
            with pytest.raises(InvalidArgument):
                await deliveries(stage=9, state=17)

    async def test_one_with_its_headers(self, tmp_path: Path) -> None:
        async with services(tmp_path) as (running, _, dead_letters):
            await broken_deliveries(running)
            listed = await dead_letters.ListDeadLetters(dead_letter_pb2.ListDeadLettersRequest(workspace_id=W), CALL)
            first = listed.dead_letters[-1]
            request = dead_letter_pb2.GetDeadLetterRequest(workspace_id=W, dead_letter_id=first.dead_letter_id)
            answer = await dead_letters.GetDeadLetter(request, CALL)
            assert answer.dead_letter == first
            assert (first.reason, first.message) == ("MALFORMED_JSON", "delivery 1 is broken")
            assert (first.event_name, first.adapter_version, first.correlation_id) == (
                "issues.opened",
                "github/1",
                "c-1",
            )
            assert (first.raw_size_bytes, first.attempt_count) == (9, 1)
            assert dict(answer.headers) == {"x-github-event": "issues"}
            request.dead_letter_id = "none"
            with pytest.raises(DeadLetterNotFound):
                await dead_letters.GetDeadLetter(request, CALL)
