"""What one entry takes of a queue."""

import asyncio

from relayfile.store.engine import WorkspaceKey
from relayfile.store.queues import QueueBounds, Waiting, WorkspaceQueues

KEY = WorkspaceKey(1, "acme")


async def queued(change_counts: list[int]) -> WorkspaceQueues:
    queues = WorkspaceQueues(QueueBounds(20_000, 64 << 20))
    for number in change_counts:
        queues.put(KEY, Waiting("kind", "it", None, number, 10, asyncio.get_running_loop().create_future()))
    return queues


async def test_an_entry_has_no_more_mutations_than_it_may() -> None:
    queues = await queued([1] * 40)
    taken = [each.change_count for each in queues.take(500, 16)[1]]
    assert taken == [1] * 16
    assert queues.changes_of(KEY) == 24


async def test_an_entry_has_no_more_changes_than_it_may_but_at_least_one_mutation() -> None:
    queues = await queued([100, 100, 100, 900])
    assert len(queues.take(250, 16)[1]) == 2
    queues.release(KEY)
    assert len(queues.take(250, 16)[1]) == 1
    queues.release(KEY)
    assert len(queues.take(250, 16)[1]) == 1
    assert queues.changes_of(KEY) == 0
