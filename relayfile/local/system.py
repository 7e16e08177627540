"""A whole local system: which processes it has, how they find one another, in which order they start and stop."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from relayfile.clock import Clock
from relayfile.local.layout import Addresses, Layout, Runtime
from relayfile.local.process import Command, LocalProcess
from relayfile.settings import child_environment

LOOPBACK = "127.0.0.1"
STOP_GRACE_S = 25.0

USUAL_PORTS: Mapping[str, int] = {"ingest_http": 7430, "ingest_grpc": 7431, "syncd": 7440}
"""What `relayfile up` listens on when nobody else does, so that commands can be pasted."""
USUAL_NODE_PORT = 7450
"""Of node 0; the others follow. 7420, the default of one node alone, has room for ten before ingest's ports."""


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports that must be known before the processes start."""

    nodes: tuple[int, ...]
    ingest_http: int
    ingest_grpc: int
    syncd: int

    @property
    def node_addresses(self) -> tuple[str, ...]:
        return tuple(f"{LOOPBACK}:{port}" for port in self.nodes)


def choose_ports(node_count: int, *, usual: bool) -> Ports:
    """Free loopback ports; the usual ones where they are free and wanted."""
    taken: list[socket.socket] = []

    def free(wanted: int) -> int:
        for port in (wanted, 0) if usual else (0,):
            listener = socket.socket()
            if port:
                # What a system that ended just now left in TIME_WAIT does not count as taken; a listener does.
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                listener.close()
                continue
            taken.append(listener)
            return int(listener.getsockname()[1])
        raise AssertionError("port 0 is always free")

    try:
        return Ports(
            nodes=tuple(free(USUAL_NODE_PORT + index) for index in range(node_count)),
            ingest_http=free(USUAL_PORTS["ingest_http"]),
            ingest_grpc=free(USUAL_PORTS["ingest_grpc"]),
            syncd=free(USUAL_PORTS["syncd"]),
        )
    finally:
        for listener in taken:
            listener.close()


def commands(layout: Layout, ports: Ports, overrides: Mapping[str, str]) -> list[Command]:
    """The processes in the order in which they start. `overrides` are variables for all of them."""
    shared = {
        "RELAYFILE_CREATE_WORKSPACES": "on-first-write",
        **overrides,
        "RELAYFILE_KEYS_DIR": str(layout.keys),
        "RELAYFILE_NODES": ",".join(ports.node_addresses),
    }

    def command(name: str, subcommand: str, addresses: Mapping[str, str]) -> Command:
        prefix = f"RELAYFILE_{subcommand.upper()}_"
        own = {
            **shared,
            "RELAYFILE_DATA_DIR": str(layout.data(name)),
            f"{prefix}ADMIN_HTTP_ADDRESS": f"{LOOPBACK}:0",
            f"{prefix}ADMIN_GRPC_ADDRESS": f"{LOOPBACK}:0",
            **addresses,
        }
        return Command(name, subcommand, child_environment(own))

    nodes = [
        command(
            f"store-{index}",
            "store",
            {"RELAYFILE_STORE_ADDRESS": address, "RELAYFILE_NODE_INDEX": str(index)},
        )
        for index, address in enumerate(ports.node_addresses)
    ]
    ingest = command(
        "ingest",
        "ingest",
        {
            "RELAYFILE_INGEST_HTTP_ADDRESS": f"{LOOPBACK}:{ports.ingest_http}",
            "RELAYFILE_INGEST_GRPC_ADDRESS": f"{LOOPBACK}:{ports.ingest_grpc}",
            "RELAYFILE_WEBHOOK_SECRETS_DIR": str(layout.secrets),
        },
    )
    syncd = command("syncd", "syncd", {"RELAYFILE_SYNCD_ADDRESS": f"{LOOPBACK}:{ports.syncd}"})
    return [*nodes, ingest, syncd]


@dataclass(slots=True)
class LocalSystem:
    """Store nodes, ingest and syncd on this machine."""

    layout: Layout
    ports: Ports
    processes: dict[str, LocalProcess]
    addresses: dict[str, Addresses] = field(default_factory=dict)

    @property
    def nodes(self) -> list[LocalProcess]:
        return [process for process in self.processes.values() if process.command.subcommand == "store"]

    async def start(self) -> None:
        """Start all: the nodes together, then ingest, then syncd. Raises `StartRefused` naming the one that failed."""
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(self.start_one(node.name))
        for name, process in self.processes.items():
            if process not in self.nodes:
                await self.start_one(name)

    async def start_one(self, name: str) -> Addresses:
        """Start one process, again or for the first time."""
        self.addresses[name] = await self.processes[name].start()
        return self.addresses[name]

    async def stop(self) -> None:
        """Stop in the order that loses no time: senders first, so that what they hold still finds its node."""
        self.layout.runtime.unlink(missing_ok=True)
        started = [process for process in self.processes.values() if process.was_started]
        for process in started:
            if process not in self.nodes:
                await process.stop(STOP_GRACE_S)
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                if node in started:
                    group.create_task(node.stop(STOP_GRACE_S))

    def runtime(self, pid: int) -> Runtime:
        """What other commands need to find this system."""
        return Runtime(
            pid=pid,
            nodes=self.ports.node_addresses,
            ingest_http=f"http://{self.addresses['ingest'].http}",
            ingest_grpc=self.addresses["ingest"].grpc,
            syncd_grpc=self.addresses["syncd"].grpc,
            token_file=str(self.layout.token),
        )


def local_system(layout: Layout, ports: Ports, clock: Clock, overrides: Mapping[str, str] | None = None) -> LocalSystem:
    """The processes of a system, none of them started."""
    described = commands(layout, ports, overrides or {})
    return LocalSystem(layout, ports, {each.name: LocalProcess(each, layout, clock) for each in described})


@asynccontextmanager
async def running(system: LocalSystem) -> AsyncIterator[LocalSystem]:
    """The system started, and stopped at the end whatever happens."""
    try:
        await system.start()
        yield system
    finally:
        await system.stop()
