"""What a dead letter amounts to when it is normalised again, and how the result travels back."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import grpc
import grpc.aio
import pytest

from relayfile.ingest.apps.app_redo import AppRedo
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.provider_file import parse_provider
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.redo import RedoAnswer, normalised_again
from relayfile.ingest.redo_worker import QUEUED_MAX, RedoForwarder, RedoQueue, RedoWorker
from relayfile.model import Failure
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc, shard_pb2, shard_pb2_grpc, types_pb2

PROVIDER = """
name = "many"
version = "2"
[[signature]]
header = "X-Old"
type = "token"
[delivery]
{items}
{id}
event = "type"
kept_headers = ["x-id", "content-type"]
[[rules]]
events = ["thing"]
object = "thing"
id = "{{id}}"
path = "/many/things/{{id}}.json"
content = "@"
"""
ITEMS, ID = 'items = "events"', 'id = "{number}"'


def providers(items: str = "", delivery_id: str = "") -> Mapping[str, Provider]:
    return {"many": Provider(parse_provider(PROVIDER.format(items=items, id=delivery_id), "many.toml"), 1_000)}


def redo(**changes: object) -> shard_pb2.Redo:
    made = shard_pb2.Redo(
        dead_letter_id="letter",
        workspace_id="acme",
        provider="many",
        delivery_id="delivery",
        envelope_id="01ENVELOPE",
        received_unix_us=1_800_000_000_000_001,
        correlation_id="c",
        lease_id="lease",
        reason="UNEXPECTED_SHAPE",
    )
    made.raw.headers["content-type"] = "application/json"
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def thing(number: int, **more: object) -> dict[str, object]:
    return {"type": "thing", "id": number, "number": f"n{number}", **more}


def body(*things: object) -> bytes:
    return json.dumps({"events": things} if len(things) != 1 else things[0]).encode()


def members(answer: RedoAnswer) -> list[tuple[str, shard_pb2.FoldMember]]:
    folds = shard_pb2.WorkspaceFolds.FromString(answer.folds)
    assert folds.workspace_id == "acme"
    assert all(len(fold.members) == 1 and fold.provider == "many" for fold in folds.folds)
    return [(fold.change_key, fold.members[0]) for fold in folds.folds]


class TestNormalisedAgain:
    def test_a_change_keeps_delivery_envelope_and_times(self) -> None:
        answer = normalised_again(providers(), redo(), body(thing(7)))
        ((key, member),) = members(answer)
        assert (key, member.kind, member.path) == ("o:thing/7", shard_pb2.MEMBER_KIND_UPSERT, "/many/things/7.json")
        assert (member.delivery_id, member.envelope_id) == ("delivery", "01ENVELOPE")
        assert (member.received_unix_us, member.correlation_id) == (1_800_000_000_000_001, "c")
        assert (answer.adapter_version, member.adapter_version) == ("many/2", "many/2")
        assert json.loads(member.content)["id"] == 7
        assert answer.head(redo()).folds_bytes == len(answer.folds)

    def test_a_delivery_without_an_id_gets_the_one_that_the_adapter_finds_now(self) -> None:
        anonymous = redo(delivery_id="01ENVELOPE")
        ((_, member),) = members(normalised_again(providers(delivery_id=ID), anonymous, body(thing(7))))
        assert member.delivery_id == "n7"
        ((_, member),) = members(normalised_again(providers(), anonymous, body(thing(7))))
        assert member.delivery_id == "01ENVELOPE"

    def test_it_fails_again_or_is_ignored(self) -> None:
        answer = normalised_again(providers(), redo(), b"{broken")
        assert answer.failure is not None
        assert (answer.failure.reason, answer.folds) == ("MALFORMED_JSON", b"")
        head = answer.head(redo())
        assert (head.failure.reason, head.lease_id, head.dead_letter_id) == ("MALFORMED_JSON", "lease", "letter")
        assert normalised_again(providers(), redo(), b'{"type":"other"}') == RedoAnswer("many/2")
        answer = normalised_again({}, redo(), b"{}")
        assert answer.failure is not None
        assert answer.failure.reason == "PROVIDER_NOT_FOUND"

    def test_a_list_becomes_its_deliveries_each_with_an_id(self) -> None:
        events = (thing(1), {"type": "thing"}, {"type": "other", "number": "n3"}, thing(4))
        answer = normalised_again(providers(ITEMS, ID), redo(), body(*events))
        found = members(answer)
        assert [(key, member.delivery_id, member.change_index) for key, member in found] == [
            ("o:thing/1", "n1", 0),
            ("n:0", "01ENVELOPE/1", 1),
            ("n:0", "n3", 2),
            ("o:thing/4", "n4", 3),
        ]
        assert [member.kind for _, member in found] == [
            shard_pb2.MEMBER_KIND_UPSERT,
            shard_pb2.MEMBER_KIND_FAILED,
            shard_pb2.MEMBER_KIND_IGNORED,
            shard_pb2.MEMBER_KIND_UPSERT,
        ]
        failed = found[1][1]
        assert (failed.failure.reason, json.loads(failed.raw.body)) == ("UNEXPECTED_SHAPE", {"events": [events[1]]})
        assert dict(failed.raw.headers) == {"content-type": "application/json"}

    def test_of_a_list_that_was_kept_for_one_element_only_that_one_counts(self) -> None:
        answer = normalised_again(providers(ITEMS, ID), redo(delivery_id="n2"), body(thing(1), thing(2)))
        assert [(key, member.delivery_id) for key, member in members(answer)] == [("o:thing/2", "n2")]

    def test_two_changes_of_one_object_are_two_deliveries(self) -> None:
        answer = normalised_again(providers(ITEMS), redo(), body(thing(1, a=1), thing(1, a=2)))
        assert [member.delivery_id for _, member in members(answer)] == ["01ENVELOPE/0", "01ENVELOPE/1"]
        answer = normalised_again(providers(ITEMS, ID), redo(), body(thing(1, a=1), thing(1, a=2)))
        assert [member.delivery_id for _, member in members(answer)] == ["n1", "n1/1"]

    def test_changes_of_one_object_in_one_delivery_stay_apart(self) -> None:
        changes = [
            {"kind": "upsert", "path": "/a", "object_id": "thing/1", "content_text": text}
            for text in ("older", "newer")
        ]
        generic = ProviderRegistry.load(1_000)
        answer = normalised_again(
            generic, redo(provider="generic"), json.dumps({"provider": "many", "changes": changes}).encode()
        )
        assert answer.failure is None, answer.failure
        folds = shard_pb2.WorkspaceFolds.FromString(answer.folds).folds
        told = [(fold.change_key, fold.members[0].delivery_id, fold.members[0].content) for fold in folds]
        assert told == [("o:thing/1", "delivery", b"older"), ("o:thing/1", "delivery#2", b"newer")]

    def test_too_many_at_once_stay_one(self) -> None:
        events = [thing(number) for number in range(10_000)] + [{"type": "other"}]
        answer = normalised_again(providers(ITEMS, ID), redo(), body(*events))
        assert answer.failure is not None
        assert answer.failure.reason == "TOO_LARGE"


class Node(shard_pb2_grpc.ShardServiceServicer, dead_letter_pb2_grpc.DeadLetterServiceServicer):
    """As much of a node as a redo needs."""

    def __init__(self, kept: bytes) -> None:
        self.kept = kept
        self.refuse = 0
        self.finished: asyncio.Queue[tuple[shard_pb2.RedoHead, bytes]] = asyncio.Queue()

    async def ReadDeadLetter(
        self, request: dead_letter_pb2.ReadDeadLetterRequest, context: object
    ) -> AsyncIterator[dead_letter_pb2.ReadDeadLetterResponse]:
        assert (request.workspace_id.startswith(("acme", "_app/")), request.dead_letter_id) == (True, "letter")
        yield dead_letter_pb2.ReadDeadLetterResponse(head=dead_letter_pb2.DeadLetterHead())
        for start in range(0, len(self.kept), 1 << 20):
            chunk = types_pb2.ContentChunk(data=self.kept[start : start + (1 << 20)])
            yield dead_letter_pb2.ReadDeadLetterResponse(chunk=chunk)

    async def FinishRedo(
        self,
        request_iterator: AsyncIterator[shard_pb2.FinishRedoRequest],
        context: "grpc.aio.ServicerContext[shard_pb2.FinishRedoRequest, shard_pb2.FinishRedoResponse]",
    ) -> shard_pb2.FinishRedoResponse:
        requests = [request async for request in request_iterator]
        if self.refuse:
            self.refuse -= 1
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        assert all(len(request.chunk.data) <= 1 << 20 for request in requests)
        pieces = b"".join([request.chunk.data for request in requests[1:]])
        self.finished.put_nowait((requests[0].head, pieces))
        return shard_pb2.FinishRedoResponse(taken=True)


def node(kept: bytes) -> Node:
    return Node(kept)  # type: ignore[abstract]  # the rest is not asked for


def of_a_process_without_apps() -> AppRedo:
    nothing: Any = None  # is asked of nobody
    return AppRedo(Apps(), {}, nothing, nothing, str)


class Worked:
    """A worker against a node."""

    def __init__(self, node: Node, forwarder: RedoForwarder | None = None) -> None:
        self._node = node
        self._forwarder = forwarder or of_a_process_without_apps()
        self.queue = RedoQueue()

    async def __aenter__(self) -> Self:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        shard_pb2_grpc.add_ShardServiceServicer_to_server(self._node, self._server)
        dead_letter_pb2_grpc.add_DeadLetterServiceServicer_to_server(self._node, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(self.address)
        many = {"many": Provider(parse_provider(PROVIDER.format(items="", id=""), "many.toml"), 64 << 20)}
        worker = RedoWorker(self.queue, lambda _: self._channel, lambda: (), many, 10.0, self._forwarder)
        self._running = asyncio.ensure_future(worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait((self._running,))
        await self._channel.close()
        await self._server.stop(None)

    async def result(self, redo: shard_pb2.Redo) -> tuple[shard_pb2.RedoHead, bytes]:
        self.queue.put(self.address, [redo])
        return await asyncio.wait_for(self._node.finished.get(), 20)


class TestWorker:
    async def test_a_large_body_arrives_and_its_change_goes_back_in_pieces(self) -> None:
        async with Worked(node(body(thing(1, text="x" * 26_000_000)))) as worked:
            head, folds = await worked.result(redo())
        assert head.folds_bytes == len(folds) > 26_000_000
        assert len(shard_pb2.WorkspaceFolds.FromString(folds).folds) == 1

    async def test_a_result_that_the_node_refuses_is_a_failure(self) -> None:
        of = node(body(thing(1)))
        of.refuse = 1
        async with Worked(of) as worked:
            head, folds = await worked.result(redo())
            assert (head.failure.reason, folds) == ("INTERNAL_FAULT", b"")
            head, folds = await worked.result(redo())
            assert folds

    async def test_a_node_that_is_away_stops_nothing(self) -> None:
        async with Worked(node(b"{}")) as worked:
            worked.queue.put(worked.address, [redo(dead_letter_id="unknown")])
            head, _ = await worked.result(redo())
        assert head.failure.reason == "EVENT_MISSING"

    @pytest.mark.parametrize("failure", [None, Failure("UNROUTED", "no route yet")])
    async def test_a_delivery_of_an_app_is_forwarded(self, failure: Failure | None) -> None:
        seen: list[bytes] = []

        class Forwarder:
            async def forward(self, redo: shard_pb2.Redo, facts: RequestFacts) -> Failure | None:
                seen.append(facts.body)
                return failure

        async with Worked(node(b"{}"), Forwarder()) as worked:
            head, _ = await worked.result(redo(workspace_id="_app/shop"))
        assert seen == [b"{}"]
        assert (head.forwarded, head.failure.reason) == (failure is None, "" if failure is None else "UNROUTED")

    async def test_without_apps_it_is_left_to_others(self) -> None:
        async with Worked(node(b"{}")) as worked:
            head, folds = await worked.result(redo(workspace_id="_app/shop", reason="UNROUTED"))
        assert (head.postponed, head.forwarded, head.HasField("failure"), folds) == (True, False, False, b"")

    async def test_the_queue_is_bounded(self) -> None:
        queue = RedoQueue()
        queue.put("a", [redo(dead_letter_id=str(number)) for number in range(QUEUED_MAX + 5)])
        taken = [(await queue.get())[1].dead_letter_id for _ in range(QUEUED_MAX)]
        assert taken == [str(number) for number in range(QUEUED_MAX)]
        queue.put("b", [redo()])
        assert (await queue.get())[0] == "b"
