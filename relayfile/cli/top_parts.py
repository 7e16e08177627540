"""The parts of a running system as `relayfile top` asks them: each by itself, again and again.

One that does not answer keeps its last figures, with their age, and holds up no other. Refuses to know how they look.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextlib import AsyncExitStack
from typing import Final, Generic, Self, TypeVar

import grpc.aio

from relayfile.cli.connection import Connection, open_channel
from relayfile.clock import Clock
from relayfile.errors import RelayfileError, Unavailable
from relayfile.status import from_rpc_error
from relayfile.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    mirror_pb2,
    mirror_pb2_grpc,
    topology_pb2,
    topology_pb2_grpc,
)

_CALL_TIMEOUT_S: Final = 5.0
_WINDOW_S: Final = 10.0
"""Rates are those of about so long."""
_SAMPLES_MAX: Final = 50
_WORKSPACES: Final = 20
_MIRRORS_PAGE: Final = 1_000
_MIRRORS_MAX: Final = 5_000

Value = TypeVar("Value")


class Part(Generic[Value]):
    """What one part said last, when, and what it said before; or why it says nothing."""

    def __init__(
        self, name: str, ask: Callable[[], Awaitable[Value]], clock: Clock, same: Callable[[Value], Hashable]
    ) -> None:
        """``same``: counters of two answers are comparable when this is equal; else the process is another one."""
        self.name = name
        self.failure: RelayfileError | None = None
        self._ask = ask
        self._clock = clock
        self._same = same
        self._answers: deque[tuple[float, Value]] = deque(maxlen=_SAMPLES_MAX)

    async def look(self) -> None:
        """Ask once."""
        try:
            value = await self._ask()
        except grpc.aio.AioRpcError as error:
            self.failure = from_rpc_error(error)
            return
        except RelayfileError as error:
            self.failure = error
            return
        now = self._clock.monotonic()
        if self._answers and self._same(self._answers[-1][1]) != self._same(value):
            self._answers.clear()
        self._answers.append((now, value))
        while len(self._answers) > 2 and now - self._answers[1][0] >= _WINDOW_S:
            self._answers.popleft()
        self.failure = None

    async def watch(self, interval_s: float) -> None:
        """Ask until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(interval_s)

    @property
    def last(self) -> Value | None:
        """What it said last; None: it never answered."""
        return self._answers[-1][1] if self._answers else None

    @property
    def age_s(self) -> float | None:
        """Seconds since then."""
        return self._clock.monotonic() - self._answers[-1][0] if self._answers else None

    def per_second(self, count: Callable[[Value], float]) -> float | None:
        """How fast a counter grows; None while nobody can tell: one answer, or none of late."""
        if self.failure is not None or len(self._answers) < 2:
            return None
        (first_at, first), (last_at, last) = self._answers[0], self._answers[-1]
        return max(0.0, (count(last) - count(first)) / (last_at - first_at)) if last_at > first_at else None


class System:
    """Every part of a running system, as far as addresses are known. An async context manager: it owns the channels."""

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock
        self._stack = AsyncExitStack()
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._addresses = list(connection.nodes)
        """Of store nodes; the one that answered last is asked first for the map."""
        self._reached: set[int] = set()
        """Nodes that answer at their own addresses."""
        self.topology = Part("shard map", self._ask_topology, clock, lambda answer: answer.cluster_id)
        self.nodes: dict[int, Part[admin_pb2.NodeStats]] = {}
        self.ingest = Part("ingest", self._ask_ingest, clock, _answering_parts) if connection.ingest_grpc else None
        self.mirrors = Part("syncd", self._ask_mirrors, clock, lambda _: None) if connection.syncd else None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def look(self) -> None:
        """Ask every part once."""
        parts: list[
            Part[ingest_pb2.GetIngestStatusResponse] | Part[list[mirror_pb2.Mirror]] | Part[admin_pb2.NodeStats]
        ]
        parts = [each for each in (self.ingest, self.mirrors) if each is not None]
        async with asyncio.TaskGroup() as tasks:
            for each in parts:
                tasks.create_task(each.look())
            await self.topology.look()
            for node in self._known_nodes():
                tasks.create_task(node.look())

    async def watch(self, interval_s: float) -> None:
        """Ask every part, and nodes that are new, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for each in (self.ingest, self.mirrors):
                if each is not None:
                    tasks.create_task(each.watch(interval_s))
            watched: set[str] = set()
            while True:
                await self.topology.look()
                for node in self._known_nodes():
                    if node.name not in watched:
                        watched.add(node.name)
                        tasks.create_task(node.watch(interval_s))
                await asyncio.sleep(interval_s)

    def _known_nodes(self) -> list[Part[admin_pb2.NodeStats]]:
        """By index, with those that the map names now for the first time."""
        topology = self.topology.last
        for node in topology.nodes if topology is not None else ():
            if node.node_index not in self.nodes:
                self.nodes[node.node_index] = Part(
                    f"node {node.node_index}",
                    self._asking(node),
                    self._clock,
                    lambda stats: stats.node.start_time.seconds,
                )
                if node.address not in self._addresses:
                    self._addresses.append(node.address)
        return [self.nodes[index] for index in sorted(self.nodes)]

    def _channel(self, address: str) -> grpc.aio.Channel:
        if address not in self._channels:
            channel = self._channels[address] = open_channel(address)
            self._stack.push_async_callback(channel.close)
        return self._channels[address]

    async def _ask_topology(self) -> topology_pb2.Topology:
        """Of the first node that answers."""
        failure: grpc.aio.AioRpcError | None = None
        for address in list(self._addresses):
            stub: topology_pb2_grpc.TopologyServiceAsyncStub = topology_pb2_grpc.TopologyServiceStub(
                self._channel(address)
            )
            try:
                answer = await stub.GetTopology(
                    topology_pb2.GetTopologyRequest(), metadata=self._connection.credentials, timeout=_CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                failure = failure or error
                continue
            self._addresses.remove(address)
            self._addresses.insert(0, address)
            return answer.topology
        raise failure or Unavailable(what="store (no address of a node is known)")

    def _asking(self, node: topology_pb2.StoreNode) -> Callable[[], Awaitable[admin_pb2.NodeStats]]:
        """A node at its own address; where that cannot be reached from here, as through a forwarded port, by way of
        the node that gave the map."""

        async def ask() -> admin_pb2.NodeStats:
            try:
                stats = await self._ask_node(node.address, node.node_index)
            except grpc.aio.AioRpcError:
                if node.node_index in self._reached or self._addresses[0] == node.address:
                    raise
                return await self._ask_node(self._addresses[0], node.node_index)
            self._reached.add(node.node_index)
            return stats

        return ask

    async def _ask_node(self, address: str, index: int) -> admin_pb2.NodeStats:
        stub: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(self._channel(address))
        request = admin_pb2.GetStatsRequest(node_index=index, top_workspaces_max=_WORKSPACES)
        answer = await stub.GetStats(request, metadata=self._connection.credentials, timeout=_CALL_TIMEOUT_S)
        if not answer.nodes:
            raise Unavailable(what=f"node {index}")
        return answer.nodes[0]

    async def _ask_ingest(self) -> ingest_pb2.GetIngestStatusResponse:
        stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(
            self._channel(self._connection.ingest_grpc)
        )
        request = ingest_pb2.GetIngestStatusRequest()
        return await stub.GetIngestStatus(request, metadata=self._connection.credentials, timeout=_CALL_TIMEOUT_S)

    async def _ask_mirrors(self) -> list[mirror_pb2.Mirror]:
        stub: mirror_pb2_grpc.MirrorServiceAsyncStub = mirror_pb2_grpc.MirrorServiceStub(
            self._channel(self._connection.syncd)
        )
        found: list[mirror_pb2.Mirror] = []
        request = mirror_pb2.ListMirrorsRequest(page_size=_MIRRORS_PAGE)
        while True:
            page = await stub.ListMirrors(request, metadata=self._connection.credentials, timeout=_CALL_TIMEOUT_S)
            found += page.mirrors
            if not page.next_page_token or len(found) >= _MIRRORS_MAX:
                return found
            request.page_token = page.next_page_token


def _answering_parts(status: ingest_pb2.GetIngestStatusResponse) -> Hashable:
    """Sums over other parts than before do not compare: a node that comes back is no burst."""
    return frozenset(part.source for part in status.parts if not part.missing_reason)
