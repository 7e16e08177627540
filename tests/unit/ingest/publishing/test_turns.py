import asyncio
from collections.abc import Callable

import pytest

from relayfile.ingest.publishing.turns import BEHIND_CHANGES, BEHIND_REST_S, REST_S, Turns


async def test_one_piece_is_done_in_each_pass_of_the_loop_in_order() -> None:
    turns, done = Turns(), []
    passes = 0

    async def work(name: str) -> None:
        for _ in range(3):
            await turns.next()
            done.append((name, passes))

    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(work(name)) for name in "abc"]
        while not all(worker.done() for worker in workers):
            await asyncio.sleep(0)
            passes += 1
    assert [name for name, _ in done] == list("abcabcabc")
    assert len({number for _, number in done}) == len(done)


async def test_a_turn_that_nobody_waits_for_any_more_is_passed_on() -> None:
    turns = Turns()
    first, second = asyncio.ensure_future(turns.next()), asyncio.ensure_future(turns.next())
    await asyncio.sleep(0)
    first.cancel()
    async with asyncio.timeout(1):
        await second
        await turns.next()
    assert first.cancelled()


async def test_while_lone_requests_come_the_loop_rests_between_two_pieces() -> None:
    turns = Turns(rest_s=3600)
    turns.lone()
    await turns.next()
    second = asyncio.ensure_future(turns.next())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not second.done()
    second.cancel()

    briefly = Turns()
    briefly.lone()
    async with asyncio.timeout(5):
        for _ in range(3):
            await briefly.next()


async def test_it_rests_for_longer_while_much_that_was_accepted_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    pending = BEHIND_CHANGES
    rests: list[float] = []
    loop = asyncio.get_running_loop()

    def call_later(delay_s: float, callback: Callable[[], None]) -> asyncio.Handle:
        rests.append(delay_s)
        return loop.call_soon(callback)

    monkeypatch.setattr(loop, "call_later", call_later)
    turns = Turns(lambda: pending)
    turns.lone()
    await turns.next()
    pending -= 1
    await turns.next()
    await asyncio.sleep(0)
    assert rests[:2] == [BEHIND_REST_S, REST_S]
