"""A store node inside of a test: the real engine, the real servicers, a real gRPC server on loopback."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import apsw
import grpc.aio
from prometheus_client import CollectorRegistry

from relayfile.auth import ALL, EVERY_SCOPE, KeyStore, TokenSigner, TokenVerifier, auth_stage
from relayfile.clock import Clock, SystemClock
from relayfile.data_directory import DataDirectory
from relayfile.ids import IdSource
from relayfile.interception import CallInterceptor
from relayfile.serving import HandlersByName
from relayfile.status import error_stage
from relayfile.store.all_nodes import AllNodes
from relayfile.store.commit import CommitLimits
from relayfile.store.engine import Engine
from relayfile.store.existence import WorkspaceExistence
from relayfile.store.node import Node, NodePolicy
from relayfile.store.ownership import Ownership, StaticPlacement
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.proxy import OwnerRouting, Peers
from relayfile.store.servicers.admin_service import AdminParts
from relayfile.store.servicers.file_service import ReadLimits
from relayfile.store.servicers.file_writing import WriteLimits
from relayfile.store.servicers.node_figures import NodeFigures
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.registry import ServiceParts, store_services
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.census import Census
from relayfile.store.sqlite.engine import open_engine
from relayfile.store.sqlite.operation_census import OperationCensus
from relayfile.store.sqlite.schema import NodeIdentity
from relayfile.store.watch import RevisionFeed
from relayfile.telemetry import StoreInstruments, WritebackInstruments
from relayfile.v1 import (
    admin_pb2_grpc,
    dead_letter_pb2_grpc,
    event_pb2_grpc,
    file_pb2_grpc,
    route_pb2_grpc,
    topology_pb2_grpc,
    workspace_pb2_grpc,
    writeback_pb2_grpc,
)
from tests.support.running_node import backup_parts
from tests.support.trees import TreeWriter

SHARDS = 8
POLICY = NodePolicy(commit=CommitLimits(), plan=PlanLimits(), creates_workspaces=False, expiry_interval_s=60.0)
LIMITS = ReadLimits(
    page_entries_default=5_000,
    page_entries_max=20_000,
    message_bytes_target=1 << 20,
    export_files_max=1_000_000,
    exports_concurrent_max=4,
)
WRITE_LIMITS = WriteLimits(content_bytes_max=16 << 20, upload_bytes_max=64 << 20, upload_idle_s=5.0)
CLIENT_OPTIONS = (("grpc.max_receive_message_length", 5 << 20), ("grpc.use_local_subchannel_pool", 1))


class Client:
    """Stubs to one node, with a token."""

    def __init__(self, address: str, token: str) -> None:
        self.channel = grpc.aio.insecure_channel(address, options=CLIENT_OPTIONS)
        self.metadata = _bearer(token)
        self.files: file_pb2_grpc.FileServiceAsyncStub = file_pb2_grpc.FileServiceStub(self.channel)
        self.events: event_pb2_grpc.EventServiceAsyncStub = event_pb2_grpc.EventServiceStub(self.channel)
        self.workspaces: workspace_pb2_grpc.WorkspaceServiceAsyncStub = workspace_pb2_grpc.WorkspaceServiceStub(
            self.channel
        )
        self.routes: route_pb2_grpc.RouteServiceAsyncStub = route_pb2_grpc.RouteServiceStub(self.channel)
        self.admin: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(self.channel)
        self.topology: topology_pb2_grpc.TopologyServiceAsyncStub = topology_pb2_grpc.TopologyServiceStub(self.channel)
        self.writeback: writeback_pb2_grpc.WritebackServiceAsyncStub = writeback_pb2_grpc.WritebackServiceStub(
            self.channel
        )
        self.dead_letters: dead_letter_pb2_grpc.DeadLetterServiceAsyncStub = dead_letter_pb2_grpc.DeadLetterServiceStub(
            self.channel
        )


@dataclass(frozen=True, slots=True)
class TestNode:
    """A running node and ways to it."""

    __test__ = False

    address: str
    node: Node
    engine: Engine
    ownership: Ownership
    feed: RevisionFeed
    writer: TreeWriter
    client: Client
    signer: TokenSigner
    database: Path
    server: grpc.aio.Server

    async def stop(self) -> None:
        """No more answers; the data stays open."""
        await self.server.stop(0)

    async def alter(self, statement: str, *bindings: int | str) -> None:
        """Change the rows below the running node, which writes too: beside the loop, where it waits for its turn."""

        def altered() -> None:
            with closing(apsw.Connection(str(self.database))) as connection:
                connection.set_busy_timeout(10_000)
                connection.execute(statement, bindings)

        await asyncio.to_thread(altered)

    def caller(
        self,
        workspaces: str | Sequence[str] = ALL,
        address: str = "",
        *,
        subject: str = "test",
        scopes: tuple[str, ...] = (EVERY_SCOPE,),
    ) -> Client:
        """Another client, for these workspaces; close its channel."""
        token = self.signer.mint(subject, workspaces=_claim(workspaces), ttl_s=3600, scopes=scopes)
        return Client(address or self.address, token)


class NoDeadline:
    """The call of somebody who waits for ever, where a servicer's parts are asked without a server."""

    def time_remaining(self) -> float | None:
        return None


def _claim(workspaces: str | Sequence[str]) -> str | tuple[str, ...]:
    return workspaces if isinstance(workspaces, str) else tuple(workspaces)


@asynccontextmanager
async def started_nodes(
    directory: Path,
    count: int = 1,
    *,
    limits: ReadLimits = LIMITS,
    mark_interval_s: float = 10.0,
    clock: Clock | None = None,
    policy: NodePolicy = POLICY,
    arguments: Sequence[tuple[str, int]] = (("grpc.so_reuseport", 0),),
) -> AsyncIterator[list[TestNode]]:
    """`count` nodes that share the shards. `clock` is the stores' alone; tokens go by the machine's.

    `arguments` are their servers' channel arguments.
    """
    store_clock = clock or SystemClock()
    clock = SystemClock()
    keys = KeyStore(directory / "keys")
    signer = TokenSigner(keys.signing_key(), clock)
    servers: list[grpc.aio.Server] = []
    async with AsyncExitStack() as stack:
        addresses: list[str] = []
        routings: list[_LateRouting] = []
        for _ in range(count):
            routing = _LateRouting()
            stages = (error_stage, auth_stage(TokenVerifier(keys.public_file, clock)))
            calls = CallInterceptor(stages, IdSource(clock).new_id, frozenset())
            server = grpc.aio.server(interceptors=[calls, routing], options=arguments)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            servers.append(server)
            routings.append(routing)
        nodes: list[TestNode] = []
        for index, server in enumerate(servers):
            data = stack.enter_context(DataDirectory(directory / f"store-{index}"))
            engine = open_engine(data, NodeIdentity(SHARDS, index, count, "test"), store_clock)
            stack.push_async_callback(engine.close)
            ownership = await Ownership.acquire(engine, StaticPlacement(SHARDS, index, tuple(addresses)))
            registry = CollectorRegistry()
            instruments = StoreInstruments.declare(registry)
            writeback = WritebackInstruments.declare(registry)
            node = Node(
                engine, ownership, store_clock, IdSource(store_clock).new_id, instruments, policy, writeback=writeback
            )
            await stack.enter_async_context(_running(node))
            feed = node.feed
            writer = TreeWriter(engine, ownership, feed, clock)
            peers = Peers(grpc.aio.insecure_channel)
            stack.push_async_callback(peers.close)
            service_token = signer.mint("store", workspaces=ALL, ttl_s=3600, scopes=(EVERY_SCOPE,), service="store")
            routings[index].routing = OwnerRouting(ownership, peers)
            parts = ServiceParts(
                reading=Reading(engine, feed, ownership, 5.0),
                limits=limits,
                ownership=ownership,
                maker=writer,
                deletions=node.deletions,
                dead_letters=node.dead_letters,
                dead_letter_retention_us=7 * 86_400_000_000,
                routes=node.routes,
                operations=node.operations,
                mutating=node.files,
                write_limits=WRITE_LIMITS,
                existence=WorkspaceExistence(engine, ownership, peers, partial(_bearer, service_token), 5.0),
                admin=AdminParts(
                    auditor=SqliteAudit(engine.snapshot, clock, SHARDS),
                    backups=backup_parts(node, data.path, IdSource(clock).new_id),
                    scrub_bytes_per_second_max=1 << 30,
                    nodes=AllNodes(ownership, peers, 5.0),
                    figures=NodeFigures(
                        node,
                        Census(engine.snapshot, clock).count,
                        OperationCensus(engine.snapshot, store_clock).count,
                        registry,
                        data.path,
                        "0",
                        clock.now_us(),
                    ),
                    version="0",
                ),
                clock=store_clock,
                mark_interval_s=mark_interval_s,
                holds=node.holds,
                cluster_id="test",
                version="0",
                started_us=clock.now_us(),
            )
            for service in store_services(parts):
                service.add(service.servicer, HandlersByName(server))
            await server.start()
            stack.push_async_callback(server.stop, 0)
            client = Client(addresses[index], signer.mint("test", workspaces=ALL, ttl_s=3600, scopes=(EVERY_SCOPE,)))
            stack.push_async_callback(client.channel.close)
            nodes.append(
                TestNode(
                    addresses[index],
                    node,
                    engine,
                    ownership,
                    feed,
                    writer,
                    client,
                    signer,
                    data.path / "store.db",
                    server,
                )
            )
        yield nodes


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@asynccontextmanager
async def _running(node: Node) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(node.run())
        yield
        running.cancel()


class _LateRouting(grpc.aio.ServerInterceptor):
    """Stands in for the routing until the addresses of all nodes are known."""

    routing: OwnerRouting

    async def intercept_service(self, continuation, handler_call_details):  # type: ignore[no-untyped-def]
        return await self.routing.intercept_service(continuation, handler_call_details)
