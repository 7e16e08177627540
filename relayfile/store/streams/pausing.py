"""Pauses in the owning shard: how they are set and ended, and how connected ingest processes are told.

A pause is a row; the shard refuses nothing because of it: what a paused provider still sends is applied. Ingest
processes get the whole list of the node's shards when they connect, and again after each change, in messages of bounded
size. Nothing is kept in memory but who has heard of which change.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Final, NamedTuple

from relayfile.errors import WorkspaceNotFound
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.order import Order
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import PauseRow
from relayfile.v1 import shard_pb2

STATES_PER_MESSAGE_MAX: Final = 2_000
"""Paused workspaces in one message; with all their providers some hundred kilobytes."""
ALL_PROVIDERS: Final = ""


class PauseChange(NamedTuple):
    """A pause to set or to end."""

    provider: str
    """Empty: the whole workspace. Ending that ends the pauses of its providers too."""
    paused: bool
    order: Order


class ChangePauses:
    """`SetPause`. Setting what is set and ending what is not there is fine, and recorded as any other."""

    def __init__(self, context: PlanContext) -> None:
        self._context = context

    async def plan(
        self, key: WorkspaceKey, mutations: Sequence[PauseChange]
    ) -> tuple[Plan | None, Sequence[Exception | None]]:
        async with self._context.engine.view(key) as view:
            workspace = await view.workspace()
            before = {row.provider: row for row in await view.pauses()}
        if workspace is None or workspace.deleted_us is not None:
            return None, [WorkspaceNotFound(workspace=key.workspace_id)] * len(mutations)
        now_us = self._context.clock.now_us()
        plan = Plan(key.workspace_id, workspace)
        after = dict(before)
        for provider, paused, order in mutations:
            subject = provider or "all providers"
            plan.admin_actions_put.append(order.action(self._context.new_id(), now_us, subject))
            if paused:
                after.setdefault(provider, PauseRow(provider, now_us))
            elif provider == ALL_PROVIDERS:
                after.clear()
            else:
                after.pop(provider, None)
        plan.pauses_ended += [provider for provider in before if provider not in after]
        plan.pauses_put += [row for provider, row in after.items() if before.get(provider) != row]
        return plan, [None] * len(mutations)


class PauseNews:
    """Who has heard of which change. One for a node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changes = 0
        self._listeners: set[PauseListener] = set()
        self._moved = asyncio.Event()

    def listen(self, wake: Callable[[], None]) -> "PauseListener":
        """A stream that is to be told: of everything first. `wake` is called when there is something to tell."""
        listener = PauseListener(self, wake)
        self._listeners.add(listener)
        return listener

    def changed(self) -> None:
        """Pauses changed, durably."""
        self._changes += 1
        for listener in self._listeners:
            listener.wake()

    async def told(self, timeout_s: float) -> bool:
        """Wait until every stream was told of the changes so far, or has ended; False when one takes too long."""
        changes = self._changes
        try:
            async with asyncio.timeout(timeout_s):
                while any(listener.heard < changes for listener in self._listeners):
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    @property
    def changes(self) -> int:
        """How many there were since the node started."""
        return self._changes

    async def messages(self) -> AsyncIterator[shard_pb2.ApplyEnvelopesResponse]:
        """All pauses of the node; the last message says that the list is complete."""
        states: list[shard_pb2.PauseState] = []
        for workspace_id, rows in groupby(await self._engine.pauses(), key=itemgetter(0)):
            if len(states) >= STATES_PER_MESSAGE_MAX:
                yield shard_pb2.ApplyEnvelopesResponse(pauses=states)
                states = []
            states.append(shard_pb2.PauseState(workspace_id=workspace_id, providers=[row[1] for row in rows]))
        yield shard_pb2.ApplyEnvelopesResponse(pauses=states, pauses_complete=True)

    def forget(self, listener: "PauseListener") -> None:
        """Its stream ended."""
        self._listeners.discard(listener)
        self._moved.set()

    def heard(self) -> None:
        """A stream was told."""
        self._moved.set()


class PauseListener:
    """One stream's share of the news."""

    def __init__(self, news: PauseNews, wake: Callable[[], None]) -> None:
        self._news = news
        self.wake = wake
        self.heard = -1
        """Changes that its stream was told of."""

    @property
    def is_due(self) -> bool:
        """Whether there is something to tell."""
        return self.heard < self._news.changes

    async def messages(self) -> AsyncIterator[shard_pb2.ApplyEnvelopesResponse]:
        """What to tell now; it counts as told when all of it was taken."""
        changes = self._news.changes
        async for message in self._news.messages():
            yield message
        self.heard = changes
        self._news.heard()

    def close(self) -> None:
        """The stream ended."""
        self._news.forget(self)
