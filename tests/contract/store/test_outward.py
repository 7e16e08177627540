"""A node that calls providers by itself: edits go out signed, signals bring content, and trouble is waited for.

Providers are real HTTP servers on loopback, which only tests allow.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from relayfile.model import MemberKind, Outcome
from relayfile.settings.targets import TargetDefinition
from relayfile.store.outward.calling import OutwardPolicy, call_targets
from relayfile.store.outward.http import HttpLimits
from relayfile.telemetry import Tracing
from relayfile.v1 import writeback_pb2
from tests.fakes.target import FakeTarget, Reply, fake_target
from tests.support.writeback import DEAD_LETTERED, PENDING, PROVIDER, SUCCEEDED, Stage, W, staged

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"),)
SECRET = b"signing-secret-of-a-test"


@dataclass(frozen=True, slots=True)
class Scene:
    """A stage whose node has a target."""

    stage: Stage
    target: FakeTarget
    policy: OutwardPolicy

    async def operation(self, operation_id: str) -> writeback_pb2.Operation:
        request = writeback_pb2.GetOperationRequest(workspace_id=W, operation_id=operation_id)
        client = self.stage.client
        return (await client.writeback.GetOperation(request, metadata=client.metadata)).operation

    async def until(self, holds: Callable[[], Awaitable[bool]], *, step_s: float = 0.0) -> None:
        """Wait until it holds; each time let `step_s` pass on the node's clock."""
        async with asyncio.timeout(15):
            while not await holds():
                if step_s:
                    self.stage.clock.advance(step_s)
                    self.stage.node.node.operations.feed.tell(W)
                await asyncio.sleep(0.02)

    async def reaches(self, operation_id: str, state: int, *, step_s: float = 0.0) -> writeback_pb2.Operation:
        async def there() -> bool:
            return (await self.operation(operation_id)).state == state

        await self.until(there, step_s=step_s)
        return await self.operation(operation_id)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    async with played(tmp_path) as scene:
        yield scene


@asynccontextmanager
async def played(
    tmp_path: Path, *, allowed: Any = LOOPBACK, answer_bytes_max: int = 4096, **definition: Any
) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        target = await stack.enter_async_context(fake_target())
        on_stage = await stack.enter_async_context(staged(tmp_path))
        secret, headers = tmp_path / "secret", tmp_path / "headers"
        secret.write_bytes(SECRET)
        headers.write_text("Authorization: Bearer of-a-test\n")
        writer = TargetDefinition(PROVIDER, "", f"{target.url}/hook", secret, 4, 0.0)
        fetcher = TargetDefinition(PROVIDER, "", target.url + "/v1/{type}s/{id}", headers, 4, 0.0)
        policy = OutwardPolicy(
            (replace(writer, **definition),),
            (replace(fetcher, **definition),),
            8,
            HttpLimits(5.0, answer_bytes_max, allowed),
            "store-0",
        )
        node = on_stage.node
        calling = asyncio.ensure_future(
            call_targets(node.node.operations, node.engine, on_stage.clock, policy, node.node.writeback, Tracing())
        )
        try:
            yield Scene(on_stage, target, policy)
            assert not calling.done(), calling
        finally:
            calling.cancel()
            await asyncio.wait([calling])


class TestEdits:
    async def test_an_edit_is_brought_signed_and_succeeds(self, scene: Scene) -> None:
        await scene.stage.deliver(b'{"a":1}', path="/linear/issues/1.json")
        operation_id = await scene.stage.write("/linear/issues/1.json", b'{"a":2}')
        ended = await scene.reaches(operation_id, SUCCEEDED)
        assert ended.claimed_by == "store-0"
        (request,) = scene.target.received
        assert (request.method, request.path) == ("POST", "/hook")
        said = json.loads(request.body)["data"]
        assert (said["content"], said["provider_object_id"], said["kind"]) == ('{"a":2}', "issue/1", "write")
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + request.body
        expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
        assert request.headers["webhook-signature"] == f"v1,{expected}"

    async def test_a_delete_and_a_move_are_brought_too(self, scene: Scene) -> None:
        await scene.stage.deliver(b"{}", path="/linear/issues/1.json")
        moved = await scene.stage.move("/linear/issues/1.json", "/linear/issues/one.json")
        await scene.reaches(moved, SUCCEEDED)
        deleted = await scene.stage.delete("/linear/issues/one.json")
        await scene.reaches(deleted, SUCCEEDED, step_s=1.0)
        kinds = [json.loads(each.body)["data"]["kind"] for each in scene.target.received]
        assert kinds == ["move", "delete"]

    async def test_what_fails_is_tried_again_under_another_claim_and_refusals_are_not(self, scene: Scene) -> None:
        scene.target.replies = [Reply(503), Reply(200)]
        operation_id = await scene.stage.write("/linear/issues/1.json", b"1")
        await scene.reaches(operation_id, SUCCEEDED, step_s=0.5)
        assert len({each.headers["webhook-id"] for each in scene.target.received}) == 2
        scene.target.replies = [Reply(422, b"no such field")]
        refused = await scene.reaches(await scene.stage.write("/linear/issues/2.json", b"2"), DEAD_LETTERED)
        assert refused.last_failure.reason == "PROVIDER_REFUSED"
        assert refused.last_failure.message == "HTTP 422: no such field"
        assert refused.last_failure.provider_status == 422

    async def test_retry_after_is_honoured(self, scene: Scene) -> None:
        scene.target.replies = [Reply(429, headers={"Retry-After": "60"}), Reply(200)]
        operation_id = await scene.stage.write("/linear/issues/1.json", b"1")
        await scene.target.got(1)
        waiting = await scene.reaches(operation_id, PENDING)
        assert waiting.claimable_time.seconds - scene.stage.clock.now_us() // 1_000_000 >= 59
        scene.stage.clock.advance(50)
        await scene.stage.write("/linear/issues/2.json", b"2")
        await asyncio.sleep(0.1)
        assert len(scene.target.received) == 1, "the target wants to be left alone, by other objects too"
        await scene.reaches(operation_id, SUCCEEDED, step_s=1.0)

    async def test_no_object_is_written_twice_at_a_time_nor_more_than_once_a_second(self, scene: Scene) -> None:
        release = asyncio.Event()
        scene.target.replies = [Reply(after=release), Reply()]
        await scene.stage.write("/linear/issues/1.json", b"1")
        await scene.target.got(1)
        for content in (b"2", b"3"):
            await scene.stage.write("/linear/issues/1.json", content)
        last = await scene.stage.write("/linear/issues/1.json", b"4")
        await asyncio.sleep(0.1)
        assert len(scene.target.received) == 1
        release.set()
        await asyncio.sleep(0.1)
        assert len(scene.target.received) == 1, "a second has not passed"
        await scene.reaches(last, SUCCEEDED, step_s=0.3)
        assert [json.loads(each.body)["data"]["content"] for each in scene.target.received] == ["1", "4"]

    async def test_so_many_requests_at_once_and_no_more(self, tmp_path: Path) -> None:
        async with played(tmp_path, concurrency_max=2) as scene:
            release = asyncio.Event()
            scene.target.replies = [Reply(after=release)]
            ids = [await scene.stage.write(f"/linear/issues/{number}.json", b"x") for number in range(6)]
            await scene.target.got(2)
            await asyncio.sleep(0.1)
            assert len(scene.target.received) == 2
            release.set()
            for operation_id in ids:
                await scene.reaches(operation_id, SUCCEEDED)
            assert scene.target.most_at_once == 2

    async def test_redirects_lead_nowhere(self, scene: Scene) -> None:
        scene.target.replies = [Reply(302, headers={"Location": f"{scene.target.url}/elsewhere"})]
        await scene.reaches(await scene.stage.write("/linear/issues/1.json", b"1"), DEAD_LETTERED)
        assert [each.path for each in scene.target.received] == ["/hook"]

    async def test_a_target_that_is_down_rests_and_is_found_again(self, scene: Scene) -> None:
        scene.target.replies = [Reply(500)] * 5 + [Reply(200)]
        ids = [await scene.stage.write(f"/linear/issues/{number}.json", b"x") for number in range(5)]
        await scene.target.got(5)
        late = await scene.stage.write("/linear/issues/late.json", b"x")
        await asyncio.sleep(0.1)
        assert len(scene.target.received) == 5, "the circuit is open"
        for operation_id in (*ids, late):
            await scene.reaches(operation_id, SUCCEEDED, step_s=1.0)

    async def test_private_addresses_are_not_called(self, tmp_path: Path) -> None:
        async with played(tmp_path, allowed=()) as scene:
            operation_id = await scene.stage.write("/linear/issues/1.json", b"1")

            async def failed() -> bool:
                return bool((await scene.operation(operation_id)).last_failure.reason)

            await scene.until(failed)
            assert (await scene.operation(operation_id)).last_failure.reason == "TARGET_ADDRESS_REFUSED"
            assert not scene.target.received

    async def test_a_missing_credential_is_told_and_waited_for(self, scene: Scene) -> None:
        secret = scene.policy.writers[0].credential_file
        secret.unlink()
        operation_id = await scene.stage.write("/linear/issues/1.json", b"1")

        async def failed() -> bool:
            return (await scene.operation(operation_id)).last_failure.reason == "CREDENTIAL_MISSING"

        await scene.until(failed)
        secret.write_bytes(SECRET)
        await scene.reaches(operation_id, SUCCEEDED, step_s=0.5)


class TestFetches:
    async def test_a_signal_brings_the_objects_content(self, scene: Scene) -> None:
        scene.target.replies = [Reply(200, b'{"title": "new"}', {"Content-Type": "application/json"})]
        assert await scene.stage.deliver(kind=MemberKind.SIGNAL, object_id="page/a b") is Outcome.APPLIED

        async def there() -> bool:
            return await scene.stage.read("/linear/page/a b.json") is not None or any(
                [each.path async for each in listed(scene)]
            )

        await scene.until(there)
        (request,) = scene.target.received
        assert (request.method, request.path) == ("GET", "/v1/pages/a%20b")
        assert request.headers["Authorization"] == "Bearer of-a-test"

    async def test_content_is_renewed_and_what_is_gone_is_deleted(self, scene: Scene) -> None:
        path = "/linear/issues/1.json"
        await scene.stage.deliver(b"old", path=path)
        scene.target.replies = [Reply(200, b"new"), Reply(404)]
        await scene.stage.deliver(kind=MemberKind.SIGNAL)

        async def renewed() -> bool:
            return await scene.stage.read(path) == b"new"

        await scene.until(renewed)
        assert not (await scene.stage.meta(path)).HasField("stale_since")
        scene.stage.clock.advance(5)
        await scene.stage.deliver(kind=MemberKind.SIGNAL)

        async def gone() -> bool:
            return await scene.stage.read(path) is None

        await scene.until(gone)

    async def test_content_that_is_too_large_is_given_up(self, scene: Scene) -> None:
        scene.target.replies = [Reply(200, b"x" * 5_000)]
        await scene.stage.deliver(b"old", path="/linear/issues/1.json")
        await scene.stage.deliver(kind=MemberKind.SIGNAL)
        client = scene.stage.client

        async def ended() -> bool:
            request = writeback_pb2.ListOperationsRequest(workspace_id=W)
            operations = (await client.writeback.ListOperations(request, metadata=client.metadata)).operations
            return bool(operations) and operations[0].last_failure.reason == "PROVIDER_ANSWER_TOO_LARGE"

        await scene.until(ended)
        assert await scene.stage.read("/linear/issues/1.json") == b"old"


async def listed(scene: Scene) -> AsyncIterator[Any]:
    from relayfile.v1 import file_pb2

    client = scene.stage.client
    async for page in client.files.ListTree(file_pb2.ListTreeRequest(workspace_id=W), metadata=client.metadata):
        for entry in page.entries:
            yield entry.file
