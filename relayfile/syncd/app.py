"""The composition root of syncd: the only place that wires its parts.

Mirrors share one writer thread, one bound on read streams, and one channel to each store node. Starts with the mirrors
that follow; stops when their batches have ended, the databases last.
"""

import asyncio
from pathlib import Path

import grpc.aio

from relayfile.data_directory import DataDirectory
from relayfile.foundation import Foundation, lay
from relayfile.lifecycle import EXIT_OK, Lifecycle, Stop, until_stopped
from relayfile.placement import node_of, shard_of
from relayfile.serving import AdminPorts, GrpcServer, Service, channel
from relayfile.settings import StoreSettings, SyncdSettings
from relayfile.syncd import ignore_files
from relayfile.syncd.delivery import Delivery
from relayfile.syncd.feed import Feed, FeedLimits
from relayfile.syncd.figures import Figures
from relayfile.syncd.journal import Journal
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.registry import Registry
from relayfile.syncd.rights import Rights
from relayfile.syncd.root import Root
from relayfile.syncd.servicer import MirrorService
from relayfile.syncd.shown import MirrorRecord
from relayfile.syncd.token_file import TokenFile
from relayfile.syncd.writer import Writer
from relayfile.telemetry import SyncdInstruments, outgoing
from relayfile.v1 import mirror_pb2_grpc


class Stores:
    """A channel to each store node, made at its first use."""

    def __init__(self, settings: SyncdSettings) -> None:
        self._settings = settings
        self._addresses = settings.nodes or (StoreSettings().address,)
        self._channels: dict[str, grpc.aio.Channel] = {}

    def of(self, workspace_id: str) -> grpc.aio.Channel:
        """The node that owns the workspace; any other would pass the call on."""
        address = self._addresses[node_of(shard_of(workspace_id, self._settings.shard_count), len(self._addresses))]
        if address not in self._channels:
            ahead_bytes = self._settings.message_bytes_target
            self._channels[address] = channel(address, self._settings, ahead_bytes=ahead_bytes)
        return self._channels[address]

    async def close(self) -> None:
        for each in self._channels.values():
            await each.close()


async def run(settings: SyncdSettings, stop: Stop) -> int:
    """Serve mirrors until it is to stop; the exit code. `SettingError` and `StartRefused` when it cannot start."""
    foundation = lay("syncd", settings)
    with DataDirectory(settings.data_dir) as directory:
        writer = Writer()
        stores = Stores(settings)
        instruments = SyncdInstruments.declare(foundation.registry)
        instruments.writer_queue_batches.set_function(lambda: writer.waiting)
        registry = _registry(directory.path, settings, foundation, stores, writer, instruments)
        figures = Figures(registry, instruments, foundation.clock)
        try:
            await _serve(registry, settings, foundation, figures, stop)
        finally:
            registry.close()
            writer.close()
            await stores.close()
            await asyncio.to_thread(foundation.tracing.close)
    return EXIT_OK


async def _serve(
    registry: Registry, settings: SyncdSettings, foundation: Foundation, figures: Figures, stop: Stop
) -> None:
    servicer = MirrorService(registry, foundation.clock)
    service = Service("relayfile.v1.MirrorService", mirror_pb2_grpc.add_MirrorServiceServicer_to_server, servicer)
    server = GrpcServer(settings, settings.address, [service], foundation.policy)
    admin = AdminPorts(
        settings,
        http_address=settings.admin_http_address,
        grpc_address=settings.admin_grpc_address,
        registry=foundation.registry,
        public=server,
    )

    lifecycle = Lifecycle(settings.shutdown_grace_s)
    admin.stop_with(lifecycle, server)

    def work(tasks: asyncio.TaskGroup) -> None:
        tasks.create_task(registry.serve(), name="mirrors")
        tasks.create_task(figures.run(), name="figures")
        tasks.create_task(foundation.policy.verifier.run(), name="keys")
        tasks.create_task(admin.http.serve(), name="admin-http")

    await admin.open(settings, server)
    await until_stopped(stop, lifecycle, work)


def _registry(
    data_dir: Path,
    settings: SyncdSettings,
    foundation: Foundation,
    stores: Stores,
    writer: Writer,
    instruments: SyncdInstruments,
) -> Registry:
    # A stream that is open holds about one message that is not written yet.
    messages_max = max(1, settings.sync_read_bytes_max // settings.message_bytes_target)
    reads = asyncio.Semaphore(min(settings.sync_read_concurrency, messages_max))
    limits = FeedLimits(
        call_timeout_s=settings.call_timeout_s,
        silence_max_s=settings.watch_silence_max_s,
        content_bytes_max=settings.content_bytes_max,
        page_entries=settings.sync_page_entries,
    )

    def open_with(record: MirrorRecord, root: Root, journal: Journal) -> OpenMirror:
        token = TokenFile(Path(record.token_file)) if record.token_file else None
        credentials = foundation.credentials.metadata if token is None else token.metadata

        def shown() -> tuple[tuple[str, str], ...]:
            return (*credentials(), *outgoing())

        feed = Feed(stores.of(record.workspace_id), record.workspace_id, shown, limits)
        mirror = OpenMirror(
            remote_paths=record.remote_paths,
            root=root,
            journal=journal,
            feed=feed,
            clock=foundation.clock,
            ids=foundation.ids,
            settings=settings,
            writer=writer,
            tracing=foundation.tracing,
            instruments=instruments,
            reads=reads,
            rights=Rights(record.read_only),
            delivery=Delivery(stores.of(record.workspace_id), record.workspace_id, shown, settings.call_timeout_s),
            token=token,
        )
        ignore_files.begin(mirror)
        return mirror

    return Registry(data_dir, foundation.clock, foundation.ids, open_with, settings.problems_max)
