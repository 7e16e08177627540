"""A real node, called from code that is not asynchronous: a state machine's rules.

Between two calls the node's event loop stands still, so nothing happens that the machine has not asked for.
"""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio

from relayfile.clock import ManualClock
from relayfile.status import from_rpc_error
from relayfile.store.node import NodePolicy
from tests.support.writeback import WRITEBACK_POLICY, Stage, staged

T = TypeVar("T")
CALL_TIMEOUT_S = 30.0
AWAY_S = 0.001
"""What a kill takes. Short: a call that it interrupts may have been done before or after."""
KILL_STEP_S = 0.0003
DATABASE, LOG, LOG_HEADER_BYTES = "store.db", "store.db-wal", 32


class Driver:
    """One node over one directory, which may be stopped, killed and started."""

    def __init__(self, runner: asyncio.Runner, directory: Path, policy: NodePolicy = WRITEBACK_POLICY) -> None:
        self.clock = ManualClock()
        self._runner = runner
        self._directory = directory
        self._policy = policy
        self._lives = 0
        self._stop: asyncio.Event
        self._task: asyncio.Task[None]
        self.stage: Stage
        self.is_running = False
        self.kill_steps: int | None = None
        """The next call that can be repeated is cut off after so many steps by the death of the node."""
        self.listeners: set[asyncio.Task[None]] = set()
        """What hears of the node by itself. It hears nothing of what a node does after its death."""

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

    def kill(self) -> None:
        """The node dies without warning, and another one finds what it has written."""
        left = self._place
        self._lives += 1
        _copy_as_left(left / "store-0", self._place / "store-0")
        shutil.copytree(left / "keys", self._place / "keys")
        for listener in self.listeners:
            listener.cancel()
        self.stop()  # What it does from now on nobody finds.
        shutil.rmtree(left)
        self.clock.advance(AWAY_S)
        self.start()

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

    def ask_surely(self, call: Callable[[], Awaitable[T]]) -> tuple[T | None, str]:
        """As `ask`, of a call that may be repeated: when the node dies meanwhile, it is."""
        self.die_in(call)
        return self.ask(call())

    def die_in(self, call: Callable[[], Awaitable[Any]]) -> None:
        """Die in the middle of a first try, where that is due."""
        steps, self.kill_steps = self.kill_steps, None
        if steps is None:
            return

        async def tried() -> None:
            await call()

        async def begun() -> asyncio.Task[None]:
            first = asyncio.create_task(tried(), name="model-first-try")
            for _ in range(steps):
                await asyncio.sleep(KILL_STEP_S)
            return first

        first = self.wait(begun())
        self.listeners.add(first)
        self.kill()
        self.listeners.remove(first)
        # However it ended: its answer is lost, and it is asked again.
        self.wait(asyncio.gather(first, return_exceptions=True))

    @property
    def _place(self) -> Path:
        return self._directory / f"life-{self._lives}"

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
        self._place.mkdir(exist_ok=True)
        async with staged(self._place, self.clock, self._policy) as stage:
            ready.set_result(stage)
            await self._stop.wait()


def _copy_as_left(left: Path, found: Path) -> None:
    """The database as a killed process leaves it, while its threads may be at work.

    The log is copied behind the file: what a checkpoint brings into the file meanwhile is in the log too, unless that
    was begun anew.
    """
    found.mkdir(parents=True)
    header: bytes | None = None
    while header is None or header != _header(left / LOG):
        header = _header(left / LOG)
        shutil.copyfile(left / DATABASE, found / DATABASE)
        if header:
            shutil.copyfile(left / LOG, found / LOG)


def _header(log: Path) -> bytes:
    """With the numbers that change when a log is begun anew; empty without a log."""
    if not log.is_file():
        return b""
    with log.open("rb") as file:
        return file.read(LOG_HEADER_BYTES)
