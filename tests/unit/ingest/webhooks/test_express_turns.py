import asyncio

from relayfile.ingest.webhooks.express_turns import PASS_REQUESTS, ExpressTurns
from relayfile.ingest.webhooks.http_protocol import HttpLimits
from tests.support.http_connection import Connection

LIMITS = HttpLimits(head_bytes_max=8_192, request_timeout_s=10, connections_max=1_000)
NOISE = b"POST /noise HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}"
QUIET = NOISE.replace(b"/noise", b"/quiet")
ODD = NOISE.replace(b"/noise", b"/odd;way")
"""The short way does not take it."""


async def busy() -> ExpressTurns:
    """Turns of which this pass has none left."""
    turns = ExpressTurns()
    while turns.may_go():
        pass
    return turns


async def test_few_requests_of_many_are_worked_on_in_one_pass_and_a_lone_one_does_not_wait_for_them() -> None:
    turns = ExpressTurns()
    connections = [Connection(LIMITS, turns=turns) for _ in range(10 * PASS_REQUESTS)]
    for connection in connections:
        connection.protocol.data_received(NOISE)
    quiet = Connection(LIMITS, turns=turns)
    quiet.protocol.data_received(QUIET)
    done = [sum(len(each.seen) for each in connections)]
    while len(quiet.seen) + done[-1] <= len(connections):
        await asyncio.sleep(0)
        done.append(sum(len(each.seen) for each in connections))
        assert done[-1] - done[-2] <= PASS_REQUESTS
        assert len(done) > 2 or quiet.seen, "others of its sender came first, and so did one of each pass"
    assert done[0] == PASS_REQUESTS
    assert {tuple(each.statuses) for each in [*connections, quiet]} == {(200,)}


async def test_a_waiting_request_is_looked_at_before_anything_else_of_its_connection() -> None:
    for following in (NOISE, ODD, b"nonsense\r\n\r\n"):
        waiting = Connection(LIMITS, turns=await busy())
        waiting.protocol.data_received(ODD + QUIET)
        await waiting.settle(20)
        for first in (NOISE, ODD):
            at_once, whole, apart = (
                Connection(LIMITS, turns=turns) for turns in (ExpressTurns(), await busy(), await busy())
            )
            for connection in (at_once, whole):
                connection.protocol.data_received(first + following)
                await connection.settle(20)
            apart.protocol.data_received(first)
            apart.protocol.data_received(following)
            await apart.settle(20)
            assert whole.outcome == apart.outcome == at_once.outcome
            assert len(whole.statuses) == 2


async def test_a_request_that_is_not_taken_in_its_turn_goes_the_usual_way() -> None:
    connection = Connection(LIMITS, turns=await busy())
    connection.protocol.data_received(ODD)
    assert not connection.seen
    await connection.settle(20)
    assert [(seen.target, seen.body) for seen in connection.seen] == [(b"/odd;way", b"{}")]
    assert connection.statuses == [200]


async def test_a_request_that_waits_is_answered_before_its_connection_is_shut_down() -> None:
    connection = Connection(LIMITS, turns=await busy())
    connection.protocol.data_received(NOISE)
    connection.protocol.shutdown()
    assert connection.statuses == [200]
    assert connection.wire.is_over


async def test_a_request_whose_connection_is_lost_is_not_taken() -> None:
    connection = Connection(LIMITS, turns=await busy())
    connection.protocol.data_received(NOISE)
    await connection.settle(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not connection.seen
