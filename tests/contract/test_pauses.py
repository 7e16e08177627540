"""Pauses in the owning shard: durable, told to every connected ingest process, recorded, and answered once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import grpc.aio
import pytest

from relayfile.errors import InvalidArgument, PageTokenInvalid, RelayfileError, RequestIdReused, WorkspaceNotFound
from relayfile.status import from_rpc_error
from relayfile.store.engine import AdminActionFilter
from relayfile.store.servicers.admin_service import AdminService
from relayfile.store.servicers.reading import Reading
from relayfile.store.streams import pausing
from relayfile.v1 import admin_pb2, shard_pb2, shard_pb2_grpc
from tests.support.running_node import RunningNode, Sender, fold, running_node, sub_batch, upsert

W = "acme"
TIMEOUT_S = 20.0
CALL: Any = None
"""Nothing of the call is looked at."""


class Operator:
    """Sets and ends pauses, as an ingest process does for a caller."""

    def __init__(self, running: RunningNode) -> None:
        self._running = running
        self.channel = grpc.aio.insecure_channel(running.address)
        self._stub: shard_pb2_grpc.ShardServiceAsyncStub = shard_pb2_grpc.ShardServiceStub(self.channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def set(self, paused: bool, provider: str = "", workspace: str = W, **more: str) -> None:
        request = shard_pb2.SetPauseRequest(workspace_id=workspace, provider=provider, paused=paused, **more)
        try:
            await self._stub.SetPause(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def refusal(self, paused: bool, **fields: str) -> type[RelayfileError]:
        try:
            await self.set(paused, **fields)
        except RelayfileError as error:
            return type(error)
        raise AssertionError("it was not refused")

    async def paused(self) -> dict[str, bool]:
        answer = await self._stub.GetOutcomes(shard_pb2.GetOutcomesRequest(workspace_id=W), timeout=TIMEOUT_S)
        return {status.provider: status.paused for status in answer.providers}


async def recorded(running: RunningNode) -> Sequence[tuple[str, str, str, str]]:
    key = running.node.ownership.local_key(W)
    async with running.engine.view(key) as view:
        rows = await view.admin_actions(AdminActionFilter(), "", 100)
    return [(row.actor, row.method.rpartition("/")[2], row.subject, row.reason) for row in reversed(rows)]


async def test_a_pause_is_durable_and_told_when_a_stream_begins(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        async with running_node(tmp_path) as running, Operator(running) as operator:
            for workspace in (W, "umbrella"):
                await running.node.create_workspace(workspace)
            await operator.set(True, "github")
            await operator.set(True, workspace="umbrella")
        async with running_node(tmp_path) as running, Sender(running.address) as sender:
            assert sender.pauses == {W: {"github"}, "umbrella": {""}}


async def test_every_stream_is_told_of_every_change_before_the_caller_is_answered(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        await running.node.create_workspace(W)
        async with Sender(running.address) as one, Sender(running.address, "other", "ingest-1") as two:
            assert one.pauses == two.pauses == {}
            for paused, provider, expected in (
                (True, "github", {W: {"github"}}),
                (True, "linear", {W: {"github", "linear"}}),
                (False, "github", {W: {"linear"}}),
                (True, "", {W: {"linear", ""}}),
                (False, "", {}),
            ):
                await operator.set(paused, provider)
                for sender in (one, two):
                    assert await sender.told_pauses() == expected


async def test_a_stream_that_does_not_read_delays_nobody_for_long(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running:
        news = pausing.PauseNews(running.engine)
        listener = news.listen(lambda: None)
        news.changed()
        assert not await news.told(0.01)
        listener.close()
        assert await news.told(0.01)


async def test_a_long_list_comes_in_messages_of_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "STATES_PER_MESSAGE_MAX", 3)
    names = [f"w{number}" for number in range(7)]
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        for name in names:
            await running.node.create_workspace(name)
            await operator.set(True, "github", name)
        async with Sender(running.address) as sender:
            assert sender.pause_messages == [3, 3, 1]
            assert sender.pauses == {name: {"github"} for name in names}


async def test_the_shard_refuses_nothing_of_a_paused_provider_and_says_that_it_is_paused(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        await running.node.create_workspace(W)
        await operator.set(True, "linear")
        assert await operator.paused() == {"linear": True}
        await operator.set(True, "github")
        async with Sender(running.address) as sender:
            await sender.send(batch := sub_batch(W, 1, [fold(upsert(1))]))
            assert len((await sender.answered(batch)).outcomes) == 1
        assert await operator.paused() == {"github": True, "linear": True}
        await operator.set(False, "linear")
        assert await operator.paused() == {"github": True}
        await operator.set(True)
        await operator.set(False, "github")
        assert await operator.paused() == {"github": True}
        await operator.set(False)
        assert await operator.paused() == {"github": False}


async def test_what_was_ordered_is_recorded_with_who_and_why(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        await running.node.create_workspace(W)
        await operator.set(True, "github", actor="ann", reason="their API is down")
        await operator.set(False, actor="bob")
        await operator.set(False)
        assert await recorded(running) == [
            ("ann", "Pause", "github", "their API is down"),
            ("bob", "Resume", "all providers", ""),
            ("ingest-0", "Resume", "all providers", ""),
        ]


async def test_a_repeat_has_no_effect(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        await running.node.create_workspace(W)
        await operator.set(True, "github", request_id="r1")
        await operator.set(False, "github", request_id="r1")  # another call, whose ids are its own
        await operator.set(True, "github", request_id="r1")
        assert not any((await operator.paused()).values())
        assert len(await recorded(running)) == 2
        assert await operator.refusal(True, provider="linear", request_id="r1") is RequestIdReused


async def test_refusals(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        assert await operator.refusal(True) is WorkspaceNotFound
        for fields in (
            {"workspace": ""},
            {"workspace": "not a name!"},
            {"provider": "Not A Provider"},
            {"reason": "x" * 1_001},
            {"request_id": "x" * 129},
        ):
            assert await operator.refusal(True, **fields) is InvalidArgument


async def test_actions_are_listed_in_pages(tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), running_node(tmp_path) as running, Operator(running) as operator:
        await running.node.create_workspace(W)
        for number in range(5):
            await operator.set(bool(number % 2), "github", actor="ann", reason=f"reason {number}")
        reading = Reading(running.engine, running.node.feed, running.node.ownership, 1.0)
        service = AdminService(reading, running.node.clock, running.admin_parts())
        request = admin_pb2.ListAdminActionsRequest(workspace_id=W, page_size=2)
        actions: list[admin_pb2.AdminAction] = []
        while not actions or request.page_token:
            page = await service.ListAdminActions(request, CALL)
            actions += page.actions
            request.page_token = page.next_page_token
        assert [action.reason for action in actions] == [f"reason {number}" for number in range(4, -1, -1)]
        first = actions[-1]
        assert (first.actor, first.workspace_id, first.subject) == ("ann", W, "github")
        assert first.result == admin_pb2.ADMIN_ACTION_RESULT_SUCCEEDED
        assert first.method == "relayfile.v1.IngestService/Resume"
        request.actor = "bob"
        assert not (await service.ListAdminActions(request, CALL)).actions
        request.page_token = "made up"
        with pytest.raises(PageTokenInvalid):
            await service.ListAdminActions(request, CALL)
