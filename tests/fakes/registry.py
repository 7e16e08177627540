"""A registry of mirrors fed by the fake store, as `relayfile.syncd.app` wires it, without ports."""

import asyncio
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from relayfile.auth import Principal, set_current_principal
from relayfile.clock import Clock, SystemClock
from relayfile.ids import IdSource
from relayfile.settings import SyncdSettings
from relayfile.syncd import ignore_files
from relayfile.syncd.delivery import Delivery
from relayfile.syncd.feed import Feed, FeedLimits, Metadata
from relayfile.syncd.journal import Journal
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.registry import Registry
from relayfile.syncd.rights import Rights
from relayfile.syncd.root import Root
from relayfile.syncd.servicer import MirrorService
from relayfile.syncd.shown import MirrorRecord, MirrorState
from relayfile.syncd.writer import Writer
from relayfile.telemetry import SyncdInstruments, Tracing, new_registry
from tests.fakes.store import FakeStore


@asynccontextmanager
async def serving(
    address: str,
    directory: pathlib.Path,
    settings: SyncdSettings | None = None,
    metadata: Metadata = (),
    tracing: Tracing | None = None,
    clock: Clock | None = None,
) -> AsyncIterator[Registry]:
    """A registry with its data in ``directory``/data; can be opened again after it was closed."""
    settings = settings or SyncdSettings(data_dir=directory)
    clock = clock or SystemClock()
    ids = IdSource(clock)
    writer = Writer()
    reads = asyncio.Semaphore(settings.sync_read_concurrency)
    instruments = SyncdInstruments.declare(new_registry())
    limits = FeedLimits(
        settings.call_timeout_s, settings.watch_silence_max_s, settings.content_bytes_max, settings.sync_page_entries
    )
    options = [
        ("grpc.max_reconnect_backoff_ms", 50),
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.http2.lookahead_bytes", settings.message_bytes_target),
    ]
    channel = grpc.aio.insecure_channel(address, options=options)

    def open_with(record: MirrorRecord, root: Root, journal: Journal) -> OpenMirror:
        feed = Feed(channel, record.workspace_id, lambda: metadata, limits)
        mirror = OpenMirror(
            record.remote_paths,
            root,
            journal,
            feed,
            clock,
            ids,
            settings,
            writer,
            tracing or Tracing(),
            instruments,
            reads,
            Rights(record.read_only),
            Delivery(channel, record.workspace_id, lambda: metadata, settings.call_timeout_s),
        )
        ignore_files.begin(mirror)
        return mirror

    registry = Registry(directory / "data", clock, ids, open_with)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(registry.serve())
        try:
            yield registry
        finally:
            running.cancel()
    registry.close()
    writer.close()
    await channel.close()


def add(
    registry: Registry,
    directory: pathlib.Path,
    *,
    follow: bool = True,
    paths: tuple[str, ...] = ("/",),
    read_only: bool = True,
    adopt_existing: bool = False,
) -> Mirror:
    """A mirror of the fake's workspace at ``directory``/mirror."""
    wanted = MirrorRecord("", "acme", str(directory / "mirror"), paths, follow, read_only, "", 0)
    return registry.create(wanted, adopt_existing=adopt_existing, request_id="", fingerprint=b"")


async def until(condition: object, timeout_s: float = 50.0) -> None:
    """Poll until ``condition()`` holds: what is waited for is on a disk, which tells nobody."""
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)


async def level(mirror: Mirror, store: FakeStore) -> None:
    """Until the mirror has seen everything that is committed and a mark after it."""
    await store.notify()
    await until(
        lambda: (
            mirror.seen.audited is not None
            and mirror.seen.state is MirrorState.FOLLOWING
            and mirror.seen.audited.result.at.revision == store.revision
        )
    )


def contents(store: FakeStore) -> dict[str, bytes]:
    """Every file of the store."""
    return {path: file.content for path, file in store.files.items()}


def problems(mirror: Mirror) -> dict[str, str]:
    """Path to reason of everything that is listed."""
    assert mirror.opened is not None
    return {each.path: each.reason for each in mirror.opened.journal.problems.listed(1_000)}


def quick(directory: pathlib.Path) -> SyncdSettings:
    """Settings of somebody in a hurry: cycles and retries in tenths of a second."""
    return SyncdSettings(data_dir=directory, mount_interval_s=0.05, retry_delay_max_s=0.1, watch_silence_max_s=5)


def caller(*workspaces: str) -> None:
    """From now on calls come from somebody with a token for these workspaces."""
    set_current_principal(Principal(subject="test", workspaces=frozenset(workspaces), expires_at_us=2**60))


def servicer(registry: Registry) -> MirrorService:
    """The service of the registry, to be called without a network."""
    return MirrorService(registry, SystemClock())
