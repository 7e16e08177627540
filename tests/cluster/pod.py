"""One pod: its containers in their order, its readiness, and its end, as a kubelet does it."""

import asyncio
import math
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tests.cluster.container import Container

INIT_TRIES_MAX = 30
RESTARTS_MAX = 5
PAUSE_S = 1.0
"""Before what ended or failed is started again."""


class First(NamedTuple):
    """An init container. A sidecar, which is restarted always, goes on beside the others and stops after them."""

    container: Container
    is_sidecar: bool


class Pod:
    """`run` it in a task; `delete` it. Cancelling that task kills it."""

    def __init__(
        self,
        name: str,
        address: str,
        labels: Mapping[str, str],
        first: Sequence[First],
        containers: Sequence[Container],
        grace_s: float,
    ) -> None:
        self.name = name
        self.address = address
        self.labels = labels
        self.restarts = 0
        """Ends of containers that nobody asked for."""
        self.was_killed = False
        """It did not end within its grace."""
        self.exit_codes: list[int | None] = []
        """Of the containers, once it is gone."""
        self.deleted = asyncio.Event()
        self.deleted_s = math.inf
        """When, on the loop's clock: others hear of it some time after that, whether or not they call meanwhile."""
        self.changed: Callable[[], None] = lambda: None
        self._first = first
        self._containers = containers
        self._grace_s = grace_s
        self._ready: dict[str, bool] = {}
        """Container to what its probe said."""

    @property
    def is_ready(self) -> bool:
        """Whether the init containers are through and every container that says so is ready."""
        probed = [each.name for each in self.containers if each.readiness is not None]
        is_through = all(each.container.has_succeeded for each in self._first if not each.is_sidecar)
        return is_through and all(self._ready.get(name, False) for name in probed) and not self.exit_codes

    @property
    def containers(self) -> list[Container]:
        """Those that last, sidecars first."""
        return [*(each.container for each in self._first if each.is_sidecar), *self._containers]

    def delete(self) -> None:
        """Ask it to go."""
        self._gone_from_now()
        self.changed()

    def lose(self) -> None:
        """Its machine is gone, and nobody starts it again."""
        self._gone_from_now()
        for container in self.containers:
            container.signal(signal.SIGKILL)
        self.changed()

    def _gone_from_now(self) -> None:
        self.deleted_s = min(self.deleted_s, asyncio.get_running_loop().time())
        self.deleted.set()

    async def run(self) -> None:
        """From its start to its end. `AssertionError` when it cannot start."""
        probes: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                starting = tasks.create_task(self._start(tasks, probes))
                await self.deleted.wait()
                for each in (starting, *probes):
                    each.cancel()
                await asyncio.wait((starting,))
                await self._stop()
        finally:
            # An init container may still run: of a pod that is deleted while it starts.
            every = [*(each.container for each in self._first), *self._containers]
            for container in every:
                container.signal(signal.SIGKILL)
            codes = {container: await container.ended() for container in every}
            self.exit_codes = [codes[each] for each in self.containers]
            self.changed()

    # ... its start

    async def _start(self, tasks: asyncio.TaskGroup, probes: list[asyncio.Task[None]]) -> None:
        for container, is_sidecar in self._first:
            container.start()
            if is_sidecar:
                await self._begin(container, tasks, probes)
            else:
                await self._run_to_its_end(container)
        for container in self._containers:
            container.start()
        for container in self._containers:
            await self._begin(container, tasks, probes)

    async def _run_to_its_end(self, container: Container) -> None:
        for _ in range(INIT_TRIES_MAX):
            if await container.ended() == 0:
                return
            await asyncio.sleep(PAUSE_S)
            container.start()
        raise AssertionError(f"{self.name}: {container.name} never succeeded: {container.tail()}")

    async def _begin(self, container: Container, tasks: asyncio.TaskGroup, probes: list[asyncio.Task[None]]) -> None:
        """Wait until it has started; it is watched from then on."""
        tasks.create_task(self._keep(container))
        if container.startup is not None and not await container.startup.once():
            raise AssertionError(f"{self.name}: {container.name} did not start: {container.tail()}")
        if container.readiness is not None:

            def told_ready(ready: bool) -> None:
                self._ready[container.name] = ready
                self.changed()

            probes.append(tasks.create_task(container.readiness.watch(told_ready)))
        if container.liveness is not None:

            def told_alive(alive: bool) -> None:
                if not alive:
                    container.signal(signal.SIGKILL)

            probes.append(tasks.create_task(container.liveness.watch(told_alive)))

    async def _keep(self, container: Container) -> None:
        """Start it again when it ends, until the pod is to go."""
        while True:
            await container.ended()
            if self.deleted.is_set():
                return
            self.restarts += 1
            if self.restarts > RESTARTS_MAX:
                raise AssertionError(f"{self.name}: {container.name} ends again and again: {container.tail()}")
            await asyncio.sleep(PAUSE_S)
            if self.deleted.is_set():
                return
            container.start()

    # ... its end

    async def _stop(self) -> None:
        """preStop and SIGTERM of the containers, then of the sidecars, the last one first; all within the grace."""
        sidecars = [each.container for each in self._first if each.is_sidecar]
        try:
            async with asyncio.timeout(self._grace_s):
                await asyncio.gather(*(_stop(each) for each in self._containers))
                for sidecar in reversed(sidecars):
                    await _stop(sidecar)
        except TimeoutError:
            self.was_killed = True
            for container in self.containers:
                container.signal(signal.SIGKILL)


async def _stop(container: Container) -> None:
    await asyncio.sleep(container.pre_stop_s)
    container.signal(signal.SIGTERM)
    await container.ended()
