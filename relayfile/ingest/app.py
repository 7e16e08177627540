"""The composition root of an ingest process: the only place that names the concrete parts and wires them.

Starts in the order spool, streams, ports; stops in the order of `relayfile.lifecycle.Phase`: nothing new is accepted,
what is held is sent and settled as far as the grace goes, then everything closes. The exit code says whether the spool
is empty: 3 means that it is not, and the next start sends the rest. Here, and nowhere else, it is decided whether
there is a spool (`RELAYFILE_SPOOL_MODE`).
"""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import grpc.aio

from relayfile.auth import TokenVerifier
from relayfile.clock import SteadyClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import SettingError
from relayfile.foundation import Foundation, lay
from relayfile.ingest.apps.app_deliveries import AppDeliveries
from relayfile.ingest.apps.app_redo import AppRedo
from relayfile.ingest.apps.app_routes import AppRoutes
from relayfile.ingest.apps.apps import Apps
from relayfile.ingest.apps.route_feed import RouteFeed
from relayfile.ingest.mode import Mode
from relayfile.ingest.owner_pauses import OwnerPauses
from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.publishing.publish import Door
from relayfile.ingest.publishing.servicer import IngestServicer
from relayfile.ingest.publishing.turns import Turns
from relayfile.ingest.redo_worker import RedoQueue, RedoWorker
from relayfile.ingest.sending.node_channels import NodeChannels
from relayfile.ingest.sending.streams import Surroundings
from relayfile.ingest.spool.adopt import check_none_left
from relayfile.ingest.spool.handover import Handover, Peers
from relayfile.ingest.status.held import ModeHolding
from relayfile.ingest.status.meter import Meter
from relayfile.ingest.status.owner_outcomes import OwnerOutcomes
from relayfile.ingest.status.rejected import RejectedRequests
from relayfile.ingest.status.sendable_age import SendableAge
from relayfile.ingest.through import Through
from relayfile.ingest.webhooks.express import Express
from relayfile.ingest.webhooks.http_protocol import HttpLimits, bounded_protocol
from relayfile.ingest.webhooks.request_body import BodyRoom
from relayfile.ingest.webhooks.webhook import Access, FrontLimits, FrontSurroundings, Reception, WebhookFront
from relayfile.ingest.webhooks.webhook_secrets import WebhookSecrets
from relayfile.ingest.workspaces import OwnerLookup, WorkspaceDirectory
from relayfile.lifecycle import EXIT_NOT_EMPTY, EXIT_OK, Lifecycle, Phase, Stop, prompt_threads, until_stopped
from relayfile.serving import AdminPorts, GrpcServer, HttpListener, Service, channel
from relayfile.settings import IngestSettings
from relayfile.telemetry import IngestInstruments, get_logger
from relayfile.v1 import ingest_pb2_grpc

METER_S = 1.0

_log = get_logger(__name__)


async def run(settings: IngestSettings, stop: Stop) -> int:
    """Run ingest until it is to stop; the exit code. `SettingError` and `StartRefused` when it cannot start."""
    if not settings.nodes:
        raise SettingError(
            variable="RELAYFILE_NODES", problem="is empty", way_out="list the gRPC addresses of the store nodes"
        )
    if settings.spool_mode == "through":
        _check_stateless(settings)
        check_none_left(settings.data_dir)
    foundation = lay("ingest", settings)
    prompt_threads()
    rejected = RejectedRequests(settings.rejected_requests_max)
    redos = RedoQueue()
    with _mode(settings, foundation, rejected, redos) as mode:
        try:
            await _serve(mode, settings, foundation, rejected, redos, stop)
        finally:
            left = await mode.close()
            await asyncio.to_thread(foundation.tracing.close)
    if left:
        _log.warning("stopped with changes in the spool; the next start sends them", left=left)
    return EXIT_NOT_EMPTY if left else EXIT_OK


@contextmanager
def _mode(
    settings: IngestSettings, foundation: Foundation, rejected: RejectedRequests, redos: RedoQueue
) -> Iterator[Mode]:
    """What accepts: with a spool, whose directory is locked meanwhile, or without."""
    if settings.spool_mode == "through":
        _, _, port = settings.http_address.rpartition(":")
        yield Through(settings, _around(settings, foundation, rejected, redos, f"through-{port}"))
    else:
        with DataDirectory(settings.data_dir) as directory:
            around = _around(settings, foundation, rejected, redos, settings.data_dir.resolve().name)
            yield Pipeline(settings, directory, around)


def _check_stateless(settings: IngestSettings) -> None:
    """Without a data directory there is no place for keys that the process would make for itself."""
    is_known = settings.service_token_file is not None or bool(settings.tls_service_names)
    if settings.keys_dir is None and (settings.jwks_file is None or not is_known):
        raise SettingError(
            variable="RELAYFILE_SPOOL_MODE",
            problem="is through, which keeps nothing on disk, and the process has no keys",
            way_out="set RELAYFILE_JWKS_FILE with RELAYFILE_SERVICE_TOKEN_FILE or RELAYFILE_TLS_SERVICE_NAMES, or "
            "RELAYFILE_KEYS_DIR",
        )


def _around(
    settings: IngestSettings, foundation: Foundation, rejected: RejectedRequests, redos: RedoQueue, name: str
) -> Surroundings:
    def connect(address: str) -> tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]:
        return channel(address, settings), foundation.credentials.metadata()

    return Surroundings(
        clock=foundation.clock,
        connect=connect,
        tracing=foundation.tracing,
        session_id=foundation.ids.new_id(),
        ingest_id=f"{socket.gethostname()}/{name}",
        refused=rejected.by_sender,
        redos=redos.put,
    )


async def _serve(
    mode: Mode,
    settings: IngestSettings,
    foundation: Foundation,
    rejected: RejectedRequests,
    redos: RedoQueue,
    stop: Stop,
) -> None:
    instruments = IngestInstruments.declare(foundation.registry)
    channels = NodeChannels(mode.router, partial(channel, settings=settings))
    room = BodyRoom(settings.bodies_bytes_max)
    instruments.bodies_bytes.set_function(lambda: room.taken_bytes)
    instruments.bodies_limit_bytes.set(settings.bodies_bytes_max)
    instruments.in_flight_limit_bytes.set(settings.in_flight_bytes_max)
    instruments.nodes_configured.set(len(mode.router.nodes))
    instruments.objects_limit.set(settings.envelope_queue_size if isinstance(mode, Pipeline) else 0)
    providers = ProviderRegistry.load(settings.content_bytes_max, settings.providers_dir)
    apps = Apps.load(settings.apps, providers)
    feed = RouteFeed(channels.to_owner, foundation.credentials.metadata, settings.call_timeout_s)
    routes = AppRoutes(apps, settings.routes_max, feed, mode.memory, mode.memory.routes, foundation.clock)
    workspaces = _workspaces(mode, apps, channels, settings, foundation)
    arrivals = SteadyClock(foundation.clock, mode.memory.newest_received_us)
    around = FrontSurroundings(
        clock=foundation.clock,
        arrivals=arrivals,
        ids=foundation.ids,
        tracing=foundation.tracing,
        instruments=instruments,
        turns=Turns(lambda: mode.traffic.pending),
    )
    deliveries = AppDeliveries(apps, routes.table)
    http = _webhooks(mode, providers, deliveries, workspaces, rejected, room, settings, foundation, around)
    door = _door(mode, workspaces, room, settings, around)
    services = [_ingest_service(mode, door, rejected, channels, settings, foundation)]
    server = GrpcServer(settings, settings.grpc_address, services, foundation.policy)
    admin = AdminPorts(
        settings,
        http_address=settings.admin_http_address,
        grpc_address=settings.admin_grpc_address,
        registry=foundation.registry,
        public=server,
    )
    worker = RedoWorker(
        redos,
        channels.to,
        foundation.credentials.metadata,
        providers,
        settings.call_timeout_s,
        AppRedo(apps, providers, feed, mode, foundation.ids.new_id),
    )
    lifecycle = Lifecycle(settings.shutdown_grace_s)
    admin.stop_with(lifecycle, server)
    lifecycle.on_stop(Phase.STOP_ACCEPTING, "HTTP port", http.stop)
    lifecycle.on_stop(Phase.DRAIN, "accepted changes", mode.drain)
    lifecycle.on_stop(Phase.CLOSE_STREAMS, "questions to nodes", channels.close)

    window_s = settings.coalesce_window_s if isinstance(mode, Pipeline) else 0.0
    sendable = SendableAge(mode.traffic, foundation.clock, window_s)

    def work(tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(mode.run(), name="intake")
        tasks.create_task(foundation.policy.verifier.run(), name="keys")
        tasks.create_task(http.serve(), name="http")
        tasks.create_task(admin.http.serve(), name="admin-http")
        tasks.create_task(_measure(mode, routes, instruments, sendable), name="meter")
        tasks.create_task(worker.run(), name="redos")
        routes.start(tasks)

    stop.has_left = lambda: mode.traffic.pending > 0
    if isinstance(mode, Pipeline) and settings.ingest_peers:
        peers = Peers(settings.ingest_peers, server.address, partial(channel, settings=settings))
        mode.handover = Handover(peers, foundation.credentials.metadata)
    await admin.open(settings, server, http=http.address)
    await until_stopped(stop, lifecycle, work)


async def _measure(mode: Mode, routes: AppRoutes, instruments: IngestInstruments, sendable: SendableAge) -> None:
    """Bring the metrics up to date, until cancelled."""
    meter = Meter(instruments)
    while True:
        meter.update(mode.figures())
        instruments.sendable_age_seconds.set(sendable.look())
        instruments.routes.set(routes.table.count)
        await asyncio.sleep(METER_S)


def _door(
    mode: Mode, workspaces: WorkspaceDirectory, room: BodyRoom, settings: IngestSettings, around: FrontSurroundings
) -> Door:
    return Door(
        intake=mode,
        workspaces=workspaces,
        room=room,
        content_bytes_max=settings.content_bytes_max,
        raw_bytes_max=settings.body_bytes_max,
        clock=around.clock,
        arrivals=around.arrivals,
        ids=around.ids,
        tracing=around.tracing,
        instruments=around.instruments,
        turns=around.turns,
    )


def _ingest_service(
    mode: Mode,
    door: Door,
    rejected: RejectedRequests,
    channels: NodeChannels,
    settings: IngestSettings,
    foundation: Foundation,
) -> Service:
    outcomes = OwnerOutcomes(
        channels.to_owner, channels.to_all, foundation.credentials.metadata, settings.call_timeout_s
    )
    pauses = OwnerPauses(channels.to_owner, foundation.credentials.metadata, settings.call_timeout_s)
    servicer = IngestServicer(door, rejected, ModeHolding(mode), outcomes, pauses)
    return Service("relayfile.v1.IngestService", ingest_pb2_grpc.add_IngestServiceServicer_to_server, servicer)


def _workspaces(
    mode: Mode, apps: Apps, channels: NodeChannels, settings: IngestSettings, foundation: Foundation
) -> WorkspaceDirectory:
    lookup = OwnerLookup(channels.to_owner, foundation.credentials.metadata, settings.workspace_lookup_timeout_s)
    return WorkspaceDirectory(
        {*mode.memory.known_workspaces(), *(app.workspace for app in apps.values())},
        mode.memory,
        lookup,
        foundation.clock,
        creates=settings.create_workspaces == "on-first-write",
    )


def _webhooks(
    mode: Mode,
    providers: ProviderRegistry,
    deliveries: AppDeliveries,
    workspaces: WorkspaceDirectory,
    rejected: RejectedRequests,
    room: BodyRoom,
    settings: IngestSettings,
    foundation: Foundation,
    around: FrontSurroundings,
) -> HttpListener:
    verifier: TokenVerifier = foundation.policy.verifier
    access = Access(
        secrets=WebhookSecrets(settings.webhook_secrets, settings.webhook_secrets_dir, foundation.clock),
        tokens=verifier,
        workspaces=workspaces,
        apps=deliveries,
    )
    limits = FrontLimits(
        body_bytes_max=settings.body_bytes_max,
        signature_tolerance_s=settings.signature_tolerance_s,
        public_url=settings.public_url,
    )
    reception = Reception(providers, access, limits, rejected, room, around)
    front, prompt = WebhookFront(mode, reception), mode.prompt
    express = Express(front, prompt, reception) if prompt is not None else None
    return _listener(front, express, rejected, settings, foundation)


def _listener(
    front: WebhookFront,
    express: Express | None,
    rejected: RejectedRequests,
    settings: IngestSettings,
    foundation: Foundation,
) -> HttpListener:
    def refused(status: int, reason: str) -> None:
        rejected.add(foundation.clock.now_us(), workspace="", provider="", reason=reason, http_status=status)

    idle_grace_s = min(settings.idle_grace_s, settings.shutdown_grace_s / 2)  # the rest is for what was accepted
    limits = HttpLimits(settings.header_bytes_max, settings.request_timeout_s, settings.connections_max, idle_grace_s)
    protocol = bounded_protocol(limits, refused, express)
    return HttpListener(front, settings.http_address, protocol=protocol, keep_alive_s=settings.idle_timeout_s)
