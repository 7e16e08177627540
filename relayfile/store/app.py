"""The composition root of a store node: the only place that names the concrete engine and wires the parts.

Starts in the order data, shards, ports; stops in the order of `relayfile.lifecycle.Phase`: what was taken is committed
and answered before the streams end, and the file is closed last.
"""

import asyncio
import hashlib
from functools import partial

from relayfile import __version__
from relayfile.data_directory import DataDirectory
from relayfile.foundation import Foundation, lay
from relayfile.lifecycle import EXIT_OK, Lifecycle, Phase, Stop, prompt_threads, until_stopped
from relayfile.page_token import SealedTokens
from relayfile.serving import AdminPorts, GrpcServer, Service, channel
from relayfile.settings import StoreSettings
from relayfile.store.all_nodes import AllNodes
from relayfile.store.commit import CommitLimits
from relayfile.store.existence import WorkspaceExistence
from relayfile.store.integrity.background import BackgroundScrub
from relayfile.store.integrity.place import PlaceFile
from relayfile.store.letters.replayer import ReplayPolicy
from relayfile.store.node import Node, NodePolicy
from relayfile.store.outward.calling import OutwardPolicy, call_targets
from relayfile.store.outward.http import HttpLimits
from relayfile.store.ownership import StaticPlacement
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.writeback.limits import WritebackLimits
from relayfile.store.proxy import OwnerRouting, Peers
from relayfile.store.queues import QueueBounds
from relayfile.store.servicers.admin_service import AdminParts
from relayfile.store.servicers.backup_stream import BackupParts
from relayfile.store.servicers.file_service import ReadLimits
from relayfile.store.servicers.file_writing import WriteLimits
from relayfile.store.servicers.node_figures import NodeFigures
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.registry import ServiceParts, store_services
from relayfile.store.sqlite.audit.run import SqliteAudit
from relayfile.store.sqlite.backup import SqliteBackup
from relayfile.store.sqlite.census import Census
from relayfile.store.sqlite.engine import DATABASE_NAME, SqliteEngine, SqliteLimits, open_engine
from relayfile.store.sqlite.operation_census import OperationCensus
from relayfile.store.sqlite.schema import NodeIdentity
from relayfile.store.streams.shard_service import ShardService
from relayfile.telemetry import ScrubInstruments, StoreInstruments, WritebackInstruments
from relayfile.v1 import shard_pb2_grpc

ENTRY_CHANGES_MAX = 500
"""Changes of one workspace that are planned at once: about 5 ms of the loop."""
MICROSECONDS = 1_000_000


async def run(settings: StoreSettings, stop: Stop) -> int:
    """Run a node until it is to stop; the exit code. `SettingError` and `StartRefused` when it cannot start."""
    foundation = lay("store", settings)
    prompt_threads()
    with DataDirectory(settings.data_dir) as directory:
        instruments = StoreInstruments.declare(foundation.registry)
        engine = _open(directory, settings, foundation, instruments)
        try:
            await _serve(engine, settings, foundation, instruments, stop)
        finally:
            await engine.close()
            await asyncio.to_thread(foundation.tracing.close)
    return EXIT_OK


async def _serve(
    engine: SqliteEngine, settings: StoreSettings, foundation: Foundation, instruments: StoreInstruments, stop: Stop
) -> None:
    addresses = settings.nodes or (settings.public_address,)
    placement = StaticPlacement(settings.shard_count, settings.node_index, addresses)
    clock, new_id = foundation.clock, foundation.ids.new_id
    writeback = WritebackInstruments.declare(foundation.registry)
    node = await Node.start(
        engine, placement, clock, new_id, instruments, _policy(settings), foundation.tracing, writeback
    )
    shards = ShardService(node, settings.stream_credit_bytes)
    peers = Peers(partial(channel, settings=settings))
    auditor = SqliteAudit(engine.snapshot, clock, settings.shard_count, node.turns)
    scrub = BackgroundScrub(
        auditor,
        clock,
        settings.scrub_interval_s,
        settings.scrub_background_bytes_per_second_max,
        ScrubInstruments.declare(foundation.registry),
        PlaceFile(settings.data_dir),
    )
    operating = _admin_parts(node, engine, settings, peers, foundation, auditor, scrub)
    services = [
        *store_services(_parts(node, engine, settings, peers, foundation, operating)),
        Service("relayfile.v1.ShardService", shard_pb2_grpc.add_ShardServiceServicer_to_server, shards),
    ]
    routing = OwnerRouting(node.ownership, peers)
    server = GrpcServer(settings, settings.address, services, foundation.policy, [routing])
    if not settings.nodes and not settings.advertise_address:
        node.ownership.advertise(server.address)
    admin = AdminPorts(
        settings,
        http_address=settings.admin_http_address,
        grpc_address=settings.admin_grpc_address,
        registry=foundation.registry,
        public=server,
    )

    outward = _outward(settings)

    async def drain() -> None:
        await shards.drain()
        await node.committer.drain()

    lifecycle = Lifecycle(settings.shutdown_grace_s)
    admin.stop_with(lifecycle, server)
    lifecycle.on_stop(Phase.DRAIN, "commits", drain)
    lifecycle.on_stop(Phase.CLOSE_ENGINE, "channels to other nodes", peers.close)

    def work(tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(node.run(), name="store-node")
        if outward.has_targets:
            calling = call_targets(node.operations, engine, clock, outward, writeback, foundation.tracing)
            tasks.create_task(calling, name="store-outward")
        tasks.create_task(foundation.policy.verifier.run(), name="keys")
        tasks.create_task(operating.figures.run(), name="store-figures")
        tasks.create_task(scrub.run(), name="store-scrub")
        tasks.create_task(admin.http.serve(), name="admin-http")

    await admin.open(settings, server)
    await until_stopped(stop, lifecycle, work)


def _open(
    directory: DataDirectory, settings: StoreSettings, foundation: Foundation, instruments: StoreInstruments
) -> SqliteEngine:
    # Every node of a static cluster is made with the same list: what it hashes to names the cluster without a talk.
    cluster_id = hashlib.sha256(",".join(settings.nodes or (settings.address,)).encode()).hexdigest()[:16]
    identity = NodeIdentity(settings.shard_count, settings.node_index, len(settings.nodes) or 1, cluster_id)
    limits = SqliteLimits(
        cache_bytes=settings.sqlite_cache_bytes,
        wal_bytes_max=settings.wal_bytes_max,
        delivery_retention_us=round(settings.delivery_retention_s * MICROSECONDS),
        letter_retention_us=round(settings.dead_letter_retention_s * MICROSECONDS),
        event_retention_us=round(settings.event_retention_s * MICROSECONDS),
        events_max=settings.events_max,
        admin_action_retention_us=round(settings.admin_action_retention_s * MICROSECONDS),
        tombstone_retention_us=round(settings.tombstone_retention_s * MICROSECONDS),
        operation_retention_us=round(settings.operation_retention_s * MICROSECONDS),
    )
    return open_engine(directory, identity, foundation.clock, limits, instruments.wal_bytes.set)


def _policy(settings: StoreSettings) -> NodePolicy:
    return NodePolicy(
        commit=CommitLimits(
            linger_s=settings.store_commit_linger_s,
            group_changes_max=settings.commit_changes_max,
            group_bytes_max=settings.commit_bytes_max,
            entry_changes_max=min(ENTRY_CHANGES_MAX, settings.commit_changes_max),
            bounds=QueueBounds(settings.workspace_queue_changes_max, settings.node_queue_bytes_max),
        ),
        plan=PlanLimits(
            settings.content_bytes_max,
            round(settings.clock_skew_max_s * MICROSECONDS),
            settings.dead_letters_max,
            settings.dead_letter_bytes_max,
            settings.workspace_files_max,
            settings.workspace_bytes_max,
            WritebackLimits(
                provider_concurrency_max=settings.provider_max_concurrency,
                suppression_us=round(settings.suppression_window_s * MICROSECONDS),
                attempts_max=settings.writeback_attempts_max,
                backoff_max_us=round(settings.writeback_backoff_max_s * MICROSECONDS),
            ),
        ),
        creates_workspaces=settings.create_workspaces == "on-first-write",
        expiry_interval_s=settings.retention_interval_s,
        tombstone_retention_us=round(settings.tombstone_retention_s * MICROSECONDS),
        replay=ReplayPolicy(letters_per_second_max=settings.replays_per_second_max),
        writeback_providers=(*settings.writeback_providers, *(each.provider for each in settings.writeback_targets)),
    )


def _outward(settings: StoreSettings) -> OutwardPolicy:
    return OutwardPolicy(
        writers=settings.writeback_targets,
        fetchers=settings.fetch_targets,
        workers_max=settings.writeback_workers,
        http=HttpLimits(settings.outward_timeout_s, settings.content_bytes_max, settings.outward_networks),
        name=f"store-{settings.node_index}",
    )


def _admin_parts(
    node: Node,
    engine: SqliteEngine,
    settings: StoreSettings,
    peers: Peers,
    foundation: Foundation,
    auditor: SqliteAudit,
    scrub: BackgroundScrub,
) -> AdminParts:
    count = Census(engine.snapshot, node.clock).count
    operations = OperationCensus(engine.snapshot, node.clock).count
    started_us = node.clock.now_us()
    return AdminParts(
        auditor=auditor,
        backups=BackupParts(
            copier=SqliteBackup(
                settings.data_dir / DATABASE_NAME,
                settings.node_index,
                len(settings.nodes) or 1,
                engine.cluster_id,
                __version__,
                node.clock,
            ),
            directory=settings.backup_dir or settings.data_dir / "backups",
            new_id=foundation.ids.new_id,
            engine=engine,
            committer=node.committer,
            ownership=node.ownership,
            clock=node.clock,
        ),
        scrub_bytes_per_second_max=settings.scrub_bytes_per_second_max,
        nodes=AllNodes(node.ownership, peers, settings.call_timeout_s),
        figures=NodeFigures(
            node,
            count,
            operations,
            foundation.registry,
            settings.data_dir,
            __version__,
            started_us,
            scrub.state if settings.scrub_interval_s else None,
        ),
        version=__version__,
    )


def _parts(
    node: Node,
    engine: SqliteEngine,
    settings: StoreSettings,
    peers: Peers,
    foundation: Foundation,
    admin: AdminParts,
) -> ServiceParts:
    credentials = foundation.credentials.metadata
    return ServiceParts(
        reading=Reading(
            engine,
            node.feed,
            node.ownership,
            settings.call_timeout_s,
            tokens=SealedTokens(engine.page_key),
            turns=node.turns,
        ),
        limits=ReadLimits(
            settings.page_entries_default,
            settings.page_entries_max,
            settings.message_bytes_target,
            settings.export_files_max,
            settings.exports_concurrent_max,
        ),
        ownership=node.ownership,
        maker=node,
        deletions=node.deletions,
        dead_letters=node.dead_letters,
        dead_letter_retention_us=round(settings.dead_letter_retention_s * MICROSECONDS),
        routes=node.routes,
        operations=node.operations,
        mutating=node.files,
        write_limits=WriteLimits(settings.content_bytes_max, settings.upload_bytes_max, settings.upload_idle_s),
        existence=WorkspaceExistence(engine, node.ownership, peers, credentials, settings.call_timeout_s),
        admin=admin,
        clock=node.clock,
        mark_interval_s=settings.watch_mark_interval_s,
        holds=node.holds,
        cluster_id=engine.cluster_id,
        version=__version__,
        started_us=node.clock.now_us(),
    )
