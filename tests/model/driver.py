"""A real node, called from code that is not asynchronous: a state machine's rules.

Between two calls the node's event loop stands still, so nothing happens that the machine has not asked for.
"""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from relayfile.clock import ManualClock
from relayfile.status import from_rpc_error
from relayfile.store.node import NodePolicy
from tests.support.writeback import WRITEBACK_POLICY, Stage, staged

T = TypeVar("T")
CALL_TIMEOUT_S = 30.0


class Driver:
    """One node over one directory, which may be stopped and started."""

    def __init__(self, runner: asyncio.Runner, directory: Path, policy: NodePolicy = WRITEBACK_POLICY) -> None:
        self.clock = ManualClock()
        self._runner = runner
        self._directory = directory
        self._policy = policy
        self._stop: asyncio.Event
        self._task: asyncio.Task[None]
        self.stage: Stage
        self.is_running = False

    def start(self) -> None:
        """Open the data and serve."""
        self.wait(self._started())
        self.is_running = True

    def stop(self) -> None:
        """End the node and close its data."""
        self.is_running = False

        async def stopped() -> None:
            self._stop.set()
            await self._task

        self.wait(stopped())

    def wait(self, work: Awaitable[T]) -> T:
        """Its result, at most so many seconds later."""

        async def bounded() -> T:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await work

        return self._runner.run(bounded())

    def ask(self, work: Awaitable[T]) -> tuple[T | None, str]:
        """(the answer of an RPC, empty), or (None, the reason why it was refused)."""
        try:
            return self.wait(work), ""
        except grpc.aio.AioRpcError as error:
            return None, from_rpc_error(error).reason

    async def _started(self) -> None:
        ready: asyncio.Future[Stage] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._serve(ready), name="model-node")
        both: list[asyncio.Future[Any]] = [self._task, ready]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._task
        self.stage = ready.result()

    async def _serve(self, ready: asyncio.Future[Stage]) -> None:
        async with staged(self._directory, self.clock, self._policy) as stage:
            ready.set_result(stage)
            await self._stop.wait()
