"""A server ends no quiet connection for the probes that show that it is alive; for too many of them it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from relayfile.client.recommended import KEEPALIVE_INTERVAL_S, channel_arguments
from relayfile.connections import server_arguments
from relayfile.errors import SettingError
from relayfile.serving import channel
from relayfile.settings import ClusterSettings, StoreSettings, load

INTERVAL_MIN_S = 0.1
QUICK = ClusterSettings(keepalive_interval_s=INTERVAL_MIN_S, keepalive_interval_min_s=INTERVAL_MIN_S)
PROBES = 12
"""A server forgives two."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\4\0\0\0\0\0"
PING = b"\0\0\x08\6\0\0\0\0\0" + b"relayfil"
PING_TYPE, GOAWAY_TYPE, ACK = 6, 7, 1


@asynccontextmanager
async def quiet_server(settings: ClusterSettings) -> AsyncIterator[str]:
    """The address of a server's health, which is told once to whoever watches it, and then nothing."""
    server = grpc.aio.server(options=server_arguments(settings))
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def probed(address: str, interval_s: float) -> str:
    """What a server says to a connection without calls that is probed so often; empty: nothing.

    A probe goes out an interval after the answer to the one before, so that no delay brings two closer together.
    """
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + SETTINGS + PING)
    answered = 0
    try:
        while answered < PROBES:
            head = await reader.readexactly(9)
            body = await reader.readexactly(int.from_bytes(head[:3], "big"))
            if head[3] == GOAWAY_TYPE:
                return body[8:].decode()
            if head[3] == PING_TYPE and head[4] & ACK:
                answered += 1
                await asyncio.sleep(interval_s)
                writer.write(PING)
    finally:
        writer.close()
    return ""


async def test_probes_at_the_admitted_rate_are_welcome_and_quicker_ones_are_not() -> None:
    async with quiet_server(QUICK) as address:
        assert await probed(address, INTERVAL_MIN_S) == ""
        assert await probed(address, 0) == "too_many_pings"


async def silent_for(seconds: float, through: grpc.aio.Channel) -> str:
    """What a watch that says nothing ends with; empty: it does not end for so long."""
    stub: Any = health_pb2_grpc.HealthStub(through)
    call = stub.Watch(health_pb2.HealthCheckRequest())
    await call.read()
    try:
        async with asyncio.timeout(seconds):
            await call.read()
    except TimeoutError:
        return ""
    except grpc.aio.AioRpcError as error:
        return error.details() or error.code().name
    return "the end"


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_our_clients_probes_against_the_usual_server() -> None:
    """As they are in force, for more than four of the rarest; a client that probes each second is ended long before."""
    usual = ClusterSettings()
    async with quiet_server(usual) as address, asyncio.TaskGroup() as tasks:
        library = grpc.aio.insecure_channel(address, options=channel_arguments())
        process, impatient = channel(address, usual), channel(address, ClusterSettings(keepalive_interval_s=1.0))
        watches = [
            tasks.create_task(silent_for(4.5 * KEEPALIVE_INTERVAL_S, each)) for each in (library, process, impatient)
        ]
        ends = [await watch for watch in watches]
        assert ends == ["", "", "Too many pings"]
        for each in (library, process, impatient):
            await each.close()


def test_no_server_can_be_set_to_punish_our_clients() -> None:
    """The command line and the client library do not read a server's settings."""
    with pytest.raises(SettingError):
        load(StoreSettings, {"RELAYFILE_KEEPALIVE_INTERVAL_MIN": "21s"})
    strictest = load(StoreSettings, {"RELAYFILE_KEEPALIVE_INTERVAL_MIN": "20s"}).keepalive_interval_min_s
    assert min(KEEPALIVE_INTERVAL_S, StoreSettings().keepalive_interval_s) >= strictest
    assert dict(channel_arguments())["grpc.keepalive_time_ms"] == KEEPALIVE_INTERVAL_S * 1000


def test_a_server_that_would_punish_its_own_cluster_does_not_start() -> None:
    with pytest.raises(SettingError, match="RELAYFILE_KEEPALIVE_INTERVAL_MIN"):
        server_arguments(load(StoreSettings, {"RELAYFILE_KEEPALIVE_INTERVAL": "4s"}))
