"""An opened mirror on a temporary directory, fed by the fake store."""

import asyncio
import contextlib
import os
import pathlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio

from relayfile.clock import SystemClock
from relayfile.ids import IdSource
from relayfile.settings import SyncdSettings
from relayfile.syncd import ignore_files
from relayfile.syncd.delivery import Delivery
from relayfile.syncd.feed import Feed, FeedLimits
from relayfile.syncd.journal import Journal
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rights import Rights
from relayfile.syncd.root import Marker, Root, create_root
from relayfile.syncd.writer import Writer
from relayfile.telemetry import SyncdInstruments, Tracing, new_registry

MARKER = Marker("mirror-1", "acme")


def no_metadata() -> tuple[tuple[str, str], ...]:
    return ()


@asynccontextmanager
async def opened(
    address: str,
    directory: pathlib.Path,
    *,
    settings: SyncdSettings | None = None,
    remote_paths: tuple[str, ...] = ("/",),
    adopt_existing: bool = False,
    folds: bool = False,
    read_only: bool = True,
) -> AsyncIterator[OpenMirror]:
    """The mirror at ``directory``/mirror with its journal beside it; can be opened again after it was closed."""
    settings = settings or SyncdSettings(data_dir=directory)
    path = directory / "mirror"
    create_root(str(path), MARKER, adopt_existing=adopt_existing)
    root = Root.open(str(path), MARKER)
    root.folds = root.folds or folds
    journal = Journal(directory / "journal.db", remote_paths, folds=root.folds)
    writer = Writer()
    limits = FeedLimits(
        settings.call_timeout_s, settings.watch_silence_max_s, settings.content_bytes_max, settings.sync_page_entries
    )
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 16 << 20)]) as channel:
        feed = Feed(channel, "acme", no_metadata, limits)
        try:
            clock = SystemClock()
            mirror = OpenMirror(
                remote_paths,
                root,
                journal,
                feed,
                clock,
                IdSource(clock),
                settings,
                writer,
                Tracing(),
                SyncdInstruments.declare(new_registry()),
                asyncio.Semaphore(settings.sync_read_concurrency),
                Rights(read_only),
                Delivery(channel, "acme", no_metadata, settings.call_timeout_s),
            )
            ignore_files.begin(mirror)
            yield mirror
        finally:
            writer.close()
            journal.close()
            root.close()


def tree_of(directory: pathlib.Path) -> dict[str, bytes]:
    """Absolute remote path to content of every file in the mirror, our own left out.

    What goes away meanwhile is left out: a mirror that follows works in other threads, and whoever waits looks again.
    """
    root, found = directory / "mirror", dict[str, bytes]()
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if folder != str(root) or name != ".relayfile")
        for path in (pathlib.Path(folder, name) for name in sorted(names)):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink():
                    found["/" + path.relative_to(root).as_posix()] = path.read_bytes()
    return found
