"""A listener that stops: the request that is on its way to it over a kept connection is answered, and is the last."""

import asyncio
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relayfile.ingest.webhooks.http_protocol import HttpLimits
from tests.support.http_connection import Connection
from tests.unit.ingest.front import Client, Front, request_bytes, running_front, until
from tests.unit.ingest.webhooks.test_http_protocol import GOOD
from tests.unit.ingest.webhooks.test_webhook import BODY, HOOK, github

REQUEST = request_bytes(HOOK, BODY, github())


async def stopping(front: Front) -> asyncio.Task[None]:
    """The listener's stop, once it accepts no connection any more."""
    stop = asyncio.ensure_future(front.stop())
    while True:
        try:
            client = await Client.connect(front.address)
        except ConnectionError:
            return stop
        await client.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_prompt", [True, False])
async def test_a_request_on_a_kept_connection_is_answered_and_told_that_it_is_the_last(
    tmp_path: Path, is_prompt: bool
) -> None:
    async with running_front(tmp_path, is_prompt=is_prompt, creates=True, idle_grace_s=600.0) as front:
        clients = [await Client.connect(front.address) for _ in range(2)]
        for client in clients:
            client.send(REQUEST)
            answer = await client.response()
            assert answer is not None
            assert (answer.status, answer.headers.get("connection")) == (200, None)
        stop = await stopping(front)
        for client in clients:  # one after the other: the first one's end does not end the second
            assert not stop.done()
            client.send(REQUEST)
            answer = await client.response()
            assert answer is not None
            assert (answer.status, answer.headers["connection"]) == (200, "close")
            assert await client.response() is None
            await client.close()
        await stop
        assert len(front.intake.accepted) == 4


async def test_a_request_that_is_being_answered_is_told_so_too(tmp_path: Path) -> None:
    async with running_front(tmp_path, creates=True, idle_grace_s=600.0) as front:
        front.intake.delay_s = 0.5
        client = await Client.connect(front.address)
        client.send(REQUEST)

        async def has_arrived() -> bool:
            return front.intake.calls > 0

        await until(has_arrived)
        stop = await stopping(front)
        answer = await client.response()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await stop
        await client.close()


async def test_a_connection_without_a_request_is_closed_after_the_grace(tmp_path: Path) -> None:
    async with running_front(tmp_path, creates=True, idle_grace_s=0.05) as front:
        used, unused = [await Client.connect(front.address) for _ in range(2)]
        used.send(REQUEST)
        assert await used.response() is not None
        await (await stopping(front))
        for client in (used, unused):
            assert await client.response() is None
            await client.close()


async def test_a_request_that_has_begun_to_arrive_outlasts_the_grace() -> None:
    connection = Connection(HttpLimits(8_192, 60.0, 100, idle_grace_s=0.0))
    connection.protocol.data_received(GOOD[:40])
    connection.protocol.shutdown()
    for _ in range(5):  # the grace is over
        await asyncio.sleep(0.001)
    assert not connection.wire.is_over
    connection.protocol.data_received(GOOD[40:])
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(connection.seen) == 1
    assert b"connection: close\r\n" in connection.wire.written
    assert connection.wire.is_over


class Holding(asyncio.Protocol):
    """Does something long in the middle of what the loop has to read."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def data_received(self, data: bytes) -> None:
        self._work()


@pytest.mark.parametrize("stops", [True, False], ids=["stopping", "idle for too long"])
async def test_a_request_that_came_while_the_loop_was_held_up_is_answered(stops: bool) -> None:
    """The time of the connection is over when the loop goes on, and its next request lies in the socket."""
    connection = Connection(HttpLimits(8_192, 60.0, 100, idle_grace_s=0.001))
    connection.protocol.timeout_keep_alive = 0.001  # type: ignore[assignment]  # uvicorn's own says whole seconds
    loop = asyncio.get_running_loop()
    (there, here), (holding, held) = socket.socketpair(), socket.socketpair()

    def work() -> None:
        connection.protocol.data_received(GOOD)
        if stops:
            connection.protocol.shutdown()
        here.sendall(GOOD)
        time.sleep(0.02)

    with here, held:
        await loop.create_connection(lambda: connection.protocol, sock=there)
        await loop.create_connection(lambda: Holding(work), sock=holding)
        held.send(b"go")
        here.setblocking(False)
        answers = b""
        while some := await loop.sock_recv(here, 10_000):
            answers += some
    assert answers.count(b"HTTP/1.1 200 ") == len(connection.seen) == 2
    assert answers.count(b"connection: close") == stops
