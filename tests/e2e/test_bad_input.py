"""Bad input gets a precise error and changes nothing but counters, the log of refused requests and the dead letters."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from relayfile.clock import ManualClock
from relayfile.local.delivery import Answer, Delivery, Sender, github_delivery
from relayfile.local.layout import Layout
from relayfile.local.system import LocalSystem
from relayfile.v1 import file_pb2, ingest_pb2
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import started_system
from tests.support.tokens import mint
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY_BYTES_MAX = 26 << 20


@dataclass(slots=True)
class Room:
    """A workspace with one file, and a way to send to it."""

    name: str
    secret: str
    client: Client
    system: LocalSystem

    async def post(self, delivery: Delivery) -> Answer:
        async with Sender(f"http://127.0.0.1:{self.system.ports.ingest_http}") as sender:
            return await sender.post(delivery)

    async def state(self) -> tuple[int, int, int]:
        """What bad input must not change: revision, files, changes that ended."""
        workspace = await self.client.workspace(self.name)
        return workspace.revision, workspace.totals.file_count, (await self.client.counts(self.name)).ended

    async def rejected(self) -> list[ingest_pb2.RejectedRequest]:
        request = ingest_pb2.ListRejectedRequestsRequest(workspace_id=self.name)
        response = await self.client.ingest().ListRejectedRequests(request, metadata=self.client.metadata)
        return list(response.requests)


@pytest_asyncio.fixture(loop_scope="session")
async def room(system: LocalSystem, client: Client, workspace: str) -> AsyncIterator[Room]:
    """The workspace; at the end it is as it was."""
    secret = system.layout.webhook_secret(workspace, "github")
    opened = Room(workspace, secret, client, system)
    assert (await opened.post(Issue(1, "good").delivery(workspace, secret))).status == 200
    await client.settled(workspace, 1)
    before = await opened.state()
    yield opened
    assert await opened.state() == before


async def test_a_wrong_signature_is_401(room: Room) -> None:
    answer = await room.post(Issue(2, "forged").delivery(room.name, "not the secret"))
    assert answer.status == 401
    (refused,) = await room.rejected()
    assert (refused.reason, refused.http_status, refused.provider) == ("SIGNATURE_MISMATCH", 401, "github")


async def test_a_missing_signature_is_401(room: Room) -> None:
    delivery = Issue(2, "unsigned").delivery(room.name, room.secret)
    headers = {name: value for name, value in delivery.headers.items() if "signature" not in name}
    assert (await room.post(replace(delivery, headers=headers))).status == 401


async def test_a_changed_body_is_401(room: Room) -> None:
    delivery = Issue(2, "signed").delivery(room.name, room.secret)
    assert (await room.post(replace(delivery, body=delivery.body.replace(b"signed", b"sigmed")))).status == 401


async def test_a_stale_timestamp_is_401(room: Room) -> None:
    key = b"k" * 24
    path = room.system.layout.secrets / room.name / "generic"
    path.write_text("whsec_" + base64.b64encode(key).decode() + "\n")
    sent_at = str(int(time.time()) - 3600)
    body = json.dumps({"provider": "generic", "changes": [{"path": "/late.txt", "content_text": "late"}]}).encode()
    signature = hmac.digest(key, f"msg_1.{sent_at}.".encode() + body, hashlib.sha256)
    headers = {
        "content-type": "application/json",
        "webhook-id": "msg_1",
        "webhook-timestamp": sent_at,
        "webhook-signature": "v1," + base64.b64encode(signature).decode(),
    }
    answer = await room.post(Delivery(f"/v1/workspaces/{room.name}/webhooks/generic", headers, body))
    assert answer.status == 401
    assert (await room.rejected())[0].reason == "TIMESTAMP_STALE"


async def test_an_unknown_provider_is_404(room: Room) -> None:
    delivery = Issue(2, "x").delivery(room.name, room.secret)
    assert (await room.post(replace(delivery, path=f"/v1/workspaces/{room.name}/webhooks/nobody"))).status == 404


async def test_a_body_over_the_cap_is_413_before_it_is_read(room: Room) -> None:
    head = (
        f"POST /v1/workspaces/{room.name}/webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: issues\r\n"
        f"content-length: {BODY_BYTES_MAX + 1}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", room.system.ports.ingest_http)
    try:
        writer.write(head.encode())
        # Not one byte of the body is sent.
        assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"413"
    finally:
        writer.close()


async def test_a_chunked_body_over_the_cap_is_413(room: Room) -> None:
    head = (
        f"POST /v1/workspaces/{room.name}/webhooks/github HTTP/1.1\r\nhost: x\r\nx-github-event: issues\r\n"
        "transfer-encoding: chunked\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", room.system.ports.ingest_http)
    chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
    try:
        writer.write(head.encode())
        answer = asyncio.ensure_future(reader.readline())
        for _ in range(BODY_BYTES_MAX // 0x100000 + 2):
            if answer.done():
                break
            writer.write(chunk)
            await writer.drain()
        assert (await asyncio.wait_for(answer, 5)).split()[1] == b"413"
    finally:
        writer.close()


async def test_malformed_json_with_a_valid_signature_is_a_dead_letter(
    system: LocalSystem, client: Client, workspace: str
) -> None:
    secret = system.layout.webhook_secret(workspace, "github")
    room = Room(workspace, secret, client, system)
    body = b'{"action": "opened", "issue": '
    answer = await room.post(github_delivery(workspace, "issues", body, secret=secret, delivery_id="broken-1"))
    assert answer.status == 200
    counts = await client.settled(workspace, 1)
    assert counts["dead_lettered"] == 1
    (letter,) = await client.dead_letter_list(workspace)
    assert (letter.reason, letter.provider, letter.delivery_id) == ("MALFORMED_JSON", "github", "broken-1")
    assert letter.raw_size_bytes == len(body)
    assert await room.state() == (0, 0, 1)


@pytest.mark.parametrize("path", ["/a/../b", "/a//b", "/a\x00b", "/./a", "/"])
async def test_a_bad_path_is_named(client: Client, workspace: str, path: str) -> None:
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope(workspace, upsert(path, b"x")))
    with pytest.raises(aio.AioRpcError) as refused:
        await client.ingest().PublishEnvelope(request, metadata=client.metadata)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "envelope.changes[0].path" in violated_fields(refused.value)


async def test_a_bad_envelope_does_not_hold_up_its_batch(client: Client, workspace: str) -> None:
    good, bad = envelope(workspace, upsert("/good.txt", b"x")), envelope(workspace, upsert("/../bad", b"x"))
    first, second, third = await client.publish(good, bad, envelope(workspace, upsert("/also.txt", b"x")))
    assert (first.status, second.status, third.status) == (
        ingest_pb2.PUBLISH_STATUS_ACCEPTED,
        ingest_pb2.PUBLISH_STATUS_INVALID,
        ingest_pb2.PUBLISH_STATUS_ACCEPTED,
    )
    assert [problem.field for problem in second.violations] == ["envelopes[1].changes[0].path"]
    await client.settled(workspace, 2)
    assert sorted(await client.tree(workspace)) == ["/also.txt", "/good.txt"]


async def test_an_unknown_workspace_is_not_found(client: Client) -> None:
    request = file_pb2.GetFileRequest(workspace_id="nobody-made-this", path="/x")
    with pytest.raises(aio.AioRpcError) as refused:
        await client.files().GetFile(request, metadata=client.metadata)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert reason(refused.value) == "WORKSPACE_NOT_FOUND"


async def test_a_webhook_for_an_unknown_workspace_is_404(tmp_path: Path) -> None:
    never = {"RELAYFILE_CREATE_WORKSPACES": "never"}
    async with (
        started_system(tmp_path, nodes=1, overrides=never, only=frozenset({"store", "ingest"})) as system,
        client_of(system) as client,
    ):
        secret = system.layout.webhook_secret("unknown", "github")
        room = Room("unknown", secret, client, system)
        assert (await room.post(Issue(1, "x").delivery("unknown", secret))).status == 404
        request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope("unknown", upsert("/x", b"x")))
        with pytest.raises(aio.AioRpcError) as refused:
            await client.ingest().PublishEnvelope(request, metadata=client.metadata)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        await client.create_workspace("unknown")
        # Ingest remembers for a second that there was none.
        await asyncio.sleep(1.1)
        assert (await room.post(Issue(1, "x").delivery("unknown", secret))).status == 200
        await client.settled("unknown", 1)


async def test_a_token_for_another_workspace_is_refused(room: Room) -> None:
    token = mint(room.system.layout, workspaces=("somebody-elses",))
    assert await refusal(room, token) is grpc.StatusCode.PERMISSION_DENIED


async def test_an_expired_token_is_refused(room: Room) -> None:
    yesterday = ManualClock(now_us=(int(time.time()) - 86_400) * 1_000_000)
    token = mint(room.system.layout, ttl_s=60, clock=yesterday)
    assert await refusal(room, token) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_token_of_another_system_is_refused(room: Room, tmp_path_factory: pytest.TempPathFactory) -> None:
    foreign = Layout(tmp_path_factory.mktemp("foreign"))
    assert await refusal(room, mint(foreign)) is grpc.StatusCode.UNAUTHENTICATED


async def refusal(room: Room, token: str) -> grpc.StatusCode:
    """How reading and publishing are refused to the holder of this token."""
    metadata = (("authorization", f"Bearer {token}"),)
    get = file_pb2.GetFileRequest(workspace_id=room.name, path=Issue(1, "").path)
    publish = ingest_pb2.PublishEnvelopeRequest(envelope=envelope(room.name, upsert("/x", b"x")))
    with pytest.raises(aio.AioRpcError) as reading:
        await room.client.files().GetFile(get, metadata=metadata)
    with pytest.raises(aio.AioRpcError) as publishing:
        await room.client.ingest().PublishEnvelope(publish, metadata=metadata)
    assert reading.value.code() is publishing.value.code()
    return reading.value.code()


def details(error: aio.AioRpcError, kind: type) -> list[object]:
    status = rpc_status.from_call(cast(grpc.Call, error))  # it reads only code, details and trailing metadata
    assert status is not None, "an error without details"
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


def reason(error: aio.AioRpcError) -> str:
    (info,) = details(error, error_details_pb2.ErrorInfo)
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert info.domain == "relayfile.dev"
    return info.reason


def violated_fields(error: aio.AioRpcError) -> list[str]:
    (problems,) = details(error, error_details_pb2.BadRequest)
    assert isinstance(problems, error_details_pb2.BadRequest)
    return [violation.field for violation in problems.field_violations]
