import asyncio

import pytest

from relayfile.store.watch import RevisionFeed


async def test_a_later_revision_wakes_and_an_earlier_one_is_known_at_once() -> None:
    feed = RevisionFeed()
    waiting = asyncio.ensure_future(feed.wait("a", 5))
    patient = asyncio.ensure_future(feed.wait("a", 7))
    await asyncio.sleep(0)
    feed.tell("b", 9)
    feed.tell("a", 5)
    await asyncio.sleep(0)
    assert not waiting.done()
    feed.tell("a", 6)
    assert await waiting == 6
    assert not patient.done()
    feed.tell("a", 8)
    assert await patient == 8
    assert await feed.wait("a", 3) == 8


async def test_who_gives_up_leaves_nothing_behind() -> None:
    feed = RevisionFeed()
    waiting = asyncio.ensure_future(feed.wait("a", 0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not feed._waiting


async def test_only_what_moved_last_is_remembered() -> None:
    feed = RevisionFeed(remembered_max=2)
    waiting = asyncio.ensure_future(feed.wait("quiet", 1))
    await asyncio.sleep(0)
    for workspace_id, revision in (("a", 1), ("b", 1), ("a", 2), ("c", 1)):
        feed.tell(workspace_id, revision)
    assert [feed.newest(each) for each in "abc"] == [2, 0, 1]
    feed.tell("quiet", 2)
    assert await waiting == 2
