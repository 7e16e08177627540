"""Signed deliveries, and the small sender that posts them."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from relayfile.errors import PeerFailed
from relayfile.local import samples
from relayfile.local.delivery import Sender, github_delivery

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Serve = Callable[[Handler], Awaitable[str]]


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    servers: list[asyncio.Server] = []

    async def start(handler: Handler) -> str:
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        servers.append(server)
        host, port = server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


def test_the_signature_is_over_the_raw_body() -> None:
    sample = samples.issue("conveyor", 1)
    delivery = github_delivery("demo", sample.event, sample.body, secret="s", delivery_id=sample.delivery_id)
    expected = hmac.new(b"s", sample.body, hashlib.sha256).hexdigest()
    assert delivery.headers["x-hub-signature-256"] == f"sha256={expected}"
    assert delivery.headers["x-github-event"] == "issues"
    assert delivery.path == "/v1/workspaces/demo/webhooks/github"


def test_samples_have_distinct_deliveries_and_advancing_times() -> None:
    morning = list(samples.morning("conveyor", 12))
    assert len({each.delivery_id for each in morning}) == len(morning) == 12 + 4 + 3
    times = [json.loads(samples.issue("c", 1, edit=edit).body)["issue"]["updated_at"] for edit in range(50)]
    assert times == sorted(set(times))


async def test_one_connection_serves_many_posts(serve: Serve) -> None:
    connections: list[asyncio.StreamWriter] = []
    bodies: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                bodies.append(await reader.readexactly(length))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 3\r\n\r\nok")
        except asyncio.IncompleteReadError:
            writer.close()

    delivery = github_delivery("demo", "issues", b"{}", secret="s", delivery_id="d")
    async with Sender(await serve(handler)) as sender:
        first, second = await sender.post(delivery), await sender.post(delivery)
    assert (first.status, first.body, second.headers["retry-after"]) == (200, b"ok", "3")
    assert (len(connections), bodies) == (1, [b"{}", b"{}"])


async def test_a_connection_closed_without_an_answer_is_an_error(serve: Serve) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    delivery = github_delivery("demo", "issues", b"{}", secret="s", delivery_id="d")
    async with Sender(await serve(handler)) as sender:
        with pytest.raises(PeerFailed):
            await sender.post(delivery)
