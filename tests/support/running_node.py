"""A store node that takes writes in a test: the real engine and pipeline, and `ApplyEnvelopes` on a loopback port.

Without tokens: who may call is tested where access is. A test may drop the node in the middle, as a crash would.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import grpc.aio
from prometheus_client import CollectorRegistry

from relayfile.auth import ALL, EVERY_SCOPE, Principal, set_current_principal
from relayfile.clock import Clock, SystemClock
from relayfile.data_directory import DataDirectory
from relayfile.ids import IdSource
from relayfile.interception import Call, CallInterceptor
from relayfile.placement import shard_of
from relayfile.status import error_stage
from relayfile.store.all_nodes import AllNodes
from relayfile.store.commit import CommitLimits
from relayfile.store.node import Node, NodePolicy
from relayfile.store.ownership import StaticPlacement
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.proxy import Peers
from relayfile.store.servicers.admin_service import AdminParts
from relayfile.store.servicers.backup_stream import BackupParts
from relayfile.store.servicers.dead_letter_service import DeadLetterService
from relayfile.store.servicers.node_figures import NodeFigures
from relayfile.store.servicers.reading import Reading
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.backup import SqliteBackup
from relayfile.store.sqlite.census import Census
from relayfile.store.sqlite.engine import DATABASE_NAME, SqliteEngine, SqliteLimits, open_engine
from relayfile.store.sqlite.operation_census import OperationCensus
from relayfile.store.sqlite.schema import NodeIdentity
from relayfile.store.streams.shard_service import ShardService
from relayfile.telemetry import StoreInstruments
from relayfile.v1 import dead_letter_pb2_grpc, shard_pb2, shard_pb2_grpc, types_pb2

SHARDS = 256
POLICY = NodePolicy(commit=CommitLimits(), plan=PlanLimits(), creates_workspaces=True, expiry_interval_s=60.0)
CREDIT_BYTES = 16 << 20
LETTER_RETENTION_US = 7 * 86_400_000_000


@dataclass(slots=True)
class RunningNode:
    """What a test sees of a node."""

    node: Node
    engine: SqliteEngine
    registry: CollectorRegistry
    address: str

    def admin_parts(self) -> AdminParts:
        """What operators see of it."""
        node, engine = self.node, self.engine
        count = Census(engine.snapshot, node.clock).count
        operations = OperationCensus(engine.snapshot, node.clock).count
        return AdminParts(
            auditor=SqliteAudit(engine.snapshot, node.clock, SHARDS),
            backups=backup_parts(node, Path("/nowhere"), IdSource(node.clock).new_id),
            scrub_bytes_per_second_max=1 << 30,
            nodes=AllNodes(node.ownership, Peers(grpc.aio.insecure_channel), 5.0),
            figures=NodeFigures(node, count, operations, self.registry, Path("/"), "0", 0),
            version="0",
        )


def backup_parts(node: Node, data_dir: Path, new_id: Callable[[], str]) -> BackupParts:
    """What copies a node of a test."""
    placement = node.ownership.placement
    copier = SqliteBackup(
        data_dir / DATABASE_NAME, placement.node_index, len(placement.addresses), "test", "0", node.clock
    )
    return BackupParts(
        copier=copier,
        directory=data_dir / "backups",
        new_id=new_id,
        engine=node.engine,
        committer=node.committer,
        ownership=node.ownership,
        clock=node.clock,
    )


def open_test_engine(
    directory: DataDirectory, clock: Clock | None = None, limits: SqliteLimits | None = None
) -> SqliteEngine:
    """The engine of a cluster with one node."""
    return open_engine(directory, NodeIdentity(SHARDS, 0, 1), clock or SystemClock(), limits or SqliteLimits())


@asynccontextmanager
async def running_node(
    path: Path,
    policy: NodePolicy = POLICY,
    clock: Clock | None = None,
    limits: SqliteLimits | None = None,
    arguments: Sequence[tuple[str, int]] = (("grpc.so_reuseport", 0),),
) -> AsyncIterator[RunningNode]:
    """A node over the data in `path`. Leaving it drains nothing: what is not committed is lost, as in a crash.

    `arguments` are its server's channel arguments.
    """
    clock = clock or SystemClock()
    registry = CollectorRegistry()
    with DataDirectory(path) as directory:
        engine = open_test_engine(directory, clock, limits)
        server = grpc.aio.server(
            interceptors=[CallInterceptor([error_stage, _as_service], IdSource(clock).new_id, frozenset())],
            options=arguments,
        )
        try:
            placement = StaticPlacement(SHARDS, 0, ("127.0.0.1:0",))
            instruments = StoreInstruments.declare(registry)
            node = await Node.start(engine, placement, clock, IdSource(clock).new_id, instruments, policy)
            service = ShardService(node, CREDIT_BYTES)
            shard_pb2_grpc.add_ShardServiceServicer_to_server(service, server)
            reading = Reading(engine, node.feed, node.ownership, 1.0)
            letters = DeadLetterService(reading, node.dead_letters, LETTER_RETENTION_US)
            dead_letter_pb2_grpc.add_DeadLetterServiceServicer_to_server(letters, server)
            port = server.add_insecure_port("127.0.0.1:0")
            await server.start()
            running = asyncio.ensure_future(node.run())
            try:
                yield RunningNode(node, engine, registry, f"127.0.0.1:{port}")
            finally:
                running.cancel()
                await asyncio.wait((running,))
                if not running.cancelled() and (failure := running.exception()) is not None:
                    raise failure
        finally:
            await server.stop(None)
            await engine.close()


@asynccontextmanager
async def _as_service(call: Call) -> AsyncIterator[None]:
    """Every caller is a process of the cluster."""
    set_current_principal(
        Principal(
            subject="ingest-0",
            workspaces=frozenset({ALL}),
            scopes=(EVERY_SCOPE,),
            service="ingest",
            expires_at_us=1 << 60,
        )
    )
    yield


class Sender:
    """The ingest side of one stream, by hand: sequences and refs are counted here."""

    def __init__(
        self, address: str, session_id: str = "session", ingest_id: str = "ingest-0", redos_max: int = 0
    ) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self.stub = shard_pb2_grpc.ShardServiceStub(self._channel)
        self._call = self.stub.ApplyEnvelopes()
        self._hello = shard_pb2.StreamHello(session_id=session_id, ingest_id=ingest_id, redos_max=redos_max)
        self.acks: dict[tuple[int, int], shard_pb2.SubBatchAck] = {}
        self.resyncs: list[shard_pb2.Resync] = []
        self.pauses: dict[str, set[str]] = {}
        """Workspace to providers, as told last."""
        self.pause_messages: list[int] = []
        """Workspaces in each message of pauses."""
        self._pauses: dict[str, set[str]] = {}
        self._lists = 0
        self.redos: list[shard_pb2.Redo] = []
        self.welcome = shard_pb2.StreamWelcome()

    async def __aenter__(self) -> Self:
        await self._call.write(shard_pb2.ApplyEnvelopesRequest(hello=self._hello))
        response = await self._call.read()
        assert isinstance(response, shard_pb2.ApplyEnvelopesResponse), response
        self.welcome = response.welcome
        await self.told_pauses()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()
        await self._channel.close()

    async def send(self, *batches: shard_pb2.SubBatch) -> None:
        """In one message."""
        await self._call.write(shard_pb2.ApplyEnvelopesRequest(sub_batches=batches))

    async def send_request(self, request: shard_pb2.ApplyEnvelopesRequest) -> None:
        """As it is."""
        await self._call.write(request)

    async def read(self) -> shard_pb2.ApplyEnvelopesResponse | None:
        """The next response, noted; None at the end of the stream."""
        response = await self._call.read()
        if not isinstance(response, shard_pb2.ApplyEnvelopesResponse):
            return None
        for ack in response.acks:
            self.acks[ack.shard_id, ack.sequence] = ack
        self.resyncs.extend(response.resyncs)
        self._pauses.update({state.workspace_id: set(state.providers) for state in response.pauses})
        if response.pauses or response.pauses_complete:
            self.pause_messages.append(len(response.pauses))
        if response.pauses_complete:
            self.pauses, self._pauses = self._pauses, {}
            self._lists += 1
        self.redos.extend(response.redos)
        return response

    async def answered(self, batch: shard_pb2.SubBatch) -> shard_pb2.SubBatchAck:
        """Read until the sub-batch is answered."""
        while (batch.shard_id, batch.sequence) not in self.acks:
            assert await self.read() is not None, "the stream ended before the answer"
        return self.acks[batch.shard_id, batch.sequence]

    async def told_pauses(self) -> dict[str, set[str]]:
        """The next whole list of pauses."""
        lists = self._lists
        while self._lists == lists:
            assert await self.read() is not None, "the stream ended before the list"
        return self.pauses

    async def redo(self) -> shard_pb2.Redo:
        """The next redo that is handed over."""
        while not self.redos:
            assert await self.read() is not None, "the stream ended before a redo"
        return self.redos.pop(0)

    async def finish(
        self,
        redo: shard_pb2.Redo,
        *folds: shard_pb2.Fold,
        failure: types_pb2.Failure | None = None,
        forwarded: bool = False,
        postponed: bool = False,
        lease_id: str = "",
    ) -> bool:
        """Send what a redo amounts to; whether it was taken."""
        body = (
            shard_pb2.WorkspaceFolds(workspace_id=redo.workspace_id, folds=folds).SerializeToString() if folds else b""
        )
        head = shard_pb2.RedoHead(
            workspace_id=redo.workspace_id,
            dead_letter_id=redo.dead_letter_id,
            lease_id=lease_id or redo.lease_id,
            adapter_version="github/2",
            failure=failure,
            forwarded=forwarded,
            postponed=postponed,
            folds_bytes=len(body),
        )
        messages = [shard_pb2.FinishRedoRequest(head=head)]
        for start in range(0, len(body), 1 << 20):
            chunk = types_pb2.ContentChunk(data=body[start : start + (1 << 20)])
            messages.append(shard_pb2.FinishRedoRequest(chunk=chunk))
        return (await self.stub.FinishRedo(iter(messages))).taken

    async def done_writing(self) -> None:
        """End our side."""
        await self._call.done_writing()


def upsert(number: int, content: bytes = b"{}", *, envelope: str = "", object_id: str = "") -> shard_pb2.FoldMember:
    """A change of object `issue/<number>`."""
    return shard_pb2.FoldMember(
        spool_ref=number.to_bytes(12, "big"),
        envelope_id=envelope or f"envelope-{number:017d}",
        delivery_id=f"delivery-{number}",
        kind=shard_pb2.MEMBER_KIND_UPSERT,
        path=f"/github/issues/{object_id or number}.json",
        provider_object_id=f"issue/{object_id or number}",
        received_unix_us=1_800_000_000_000_000 + number,
        content=content,
        content_type="application/json",
    )


def fold(*members: shard_pb2.FoldMember) -> shard_pb2.Fold:
    """Members of one object."""
    return shard_pb2.Fold(provider="github", change_key=f"o:{members[0].provider_object_id}", members=members)


def sub_batch(workspace_id: str, sequence: int, folds: Sequence[shard_pb2.Fold], epoch: int = 0) -> shard_pb2.SubBatch:
    """Folds of one workspace, for its shard."""
    return shard_pb2.SubBatch(
        shard_id=shard_of(workspace_id, SHARDS),
        epoch=epoch,
        sequence=sequence,
        workspaces=[shard_pb2.WorkspaceFolds(workspace_id=workspace_id, folds=folds)],
    )
