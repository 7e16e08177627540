"""The spool of a process that is gone: what is in it, and sending it on (`relayfile spool`).

Owns nothing of its own: a spool that is adopted is locked and verified as by its process, and goes to the shards or to
an ingest process in the ways in which a stopping process sends it. What was taken leaves it.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import grpc.aio

from relayfile.data_directory import DataDirectory
from relayfile.errors import StartRefused
from relayfile.foundation import Foundation, lay
from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.sending.streams import Surroundings
from relayfile.ingest.spool.handover import Handover, Peers
from relayfile.ingest.spool.left_spool import OfflineSpool
from relayfile.ingest.spool.open_counts import open_counts
from relayfile.ingest.spool.spool import Spool, SpoolLimits
from relayfile.ingest.spool.spool_file import FILE_NAME, SpoolReader
from relayfile.serving import channel
from relayfile.settings import IngestSettings


class LeftOfProvider(NamedTuple):
    """What a spool holds of one provider of one workspace."""

    workspace_id: str
    provider: str
    changes: int
    """Without an outcome."""
    oldest_us: int
    """When the first of them was received."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """What became of a spool."""

    found: int
    """Changes without an outcome that were in it."""
    left: int
    """Those that are still in it."""


def show(directory: Path) -> list[LeftOfProvider]:
    """What a spool holds, by workspace and provider. Reads only: its process may be at work.

    `StartRefused` when there is none, `DataCorrupted` when it is damaged.
    """
    _check_there(directory)
    reader = SpoolReader(directory)
    try:
        found: dict[tuple[str, str], tuple[int, int]] = {}
        for head in list(reader.remainders()):
            row = reader.row(head.row_id)
            if row is None:
                continue
            for provider, count in open_counts(row, head.workspace_id).items():
                changes, oldest_us = found.get((head.workspace_id, provider), (0, head.received_us))
                found[head.workspace_id, provider] = (changes + count, min(oldest_us, head.received_us))
        return [LeftOfProvider(*key, *found[key]) for key in sorted(found) if found[key][0]]
    finally:
        reader.close()


async def adopt(settings: IngestSettings, directory: Path, to: Sequence[str], timeout_s: float) -> Adopted:
    """Send what a spool holds: to the ingest processes `to`, or without any to the shards of `settings.nodes`.

    Ends when it is empty or the time is over. `StartRefused` when its process lives, or it is damaged.
    """
    _check_there(directory)
    foundation = lay("ingest", settings)
    found = sum(each.changes for each in show(directory))
    with DataDirectory(directory) as locked:
        if to:
            await _to_peers(settings, foundation, locked, to, timeout_s)
        else:
            await _to_shards(settings, foundation, locked, timeout_s)
        left = sum(each.changes for each in show(directory))
    await asyncio.to_thread(foundation.tracing.close)
    return Adopted(found, left)


async def _to_peers(
    settings: IngestSettings, foundation: Foundation, directory: DataDirectory, to: Sequence[str], timeout_s: float
) -> None:
    limits = SpoolLimits(
        commit_linger_s=settings.spool_commit_linger_s,
        commit_bytes_max=settings.spool_commit_bytes_max,
        bytes_max=settings.spool_bytes_max,
        verify=True,
    )
    spool = Spool(directory, limits, stored=lambda rows: None, arrived=lambda rows: None)
    reader = spool.open()
    peers = Peers(to, "", partial(channel, settings=settings))
    try:
        with contextlib.suppress(TimeoutError):  # what is left then is said by the caller
            async with asyncio.timeout(timeout_s):
                await Handover(peers, foundation.credentials.metadata).run(OfflineSpool(spool, reader))
    finally:
        await spool.close()
        reader.close()


async def _to_shards(
    settings: IngestSettings, foundation: Foundation, directory: DataDirectory, timeout_s: float
) -> None:
    def connect(address: str) -> tuple[grpc.aio.Channel, Sequence[tuple[str, str]]]:
        return channel(address, settings), foundation.credentials.metadata()

    around = Surroundings(
        clock=foundation.clock,
        connect=connect,
        session_id=foundation.ids.new_id(),
        ingest_id=f"adopted/{directory.path.resolve().name}",
    )
    pipeline = Pipeline(settings, directory, around)
    running = asyncio.ensure_future(pipeline.run())
    try:
        with contextlib.suppress(TimeoutError):  # as above
            async with asyncio.timeout(timeout_s):
                await pipeline.drain()
    finally:
        running.cancel()
        await asyncio.wait((running,))
        await pipeline.close()
    if not running.cancelled() and (failure := running.exception()) is not None:
        raise failure


def check_none_left(directory: Path) -> None:
    """For a process that keeps no spool: `StartRefused` when an earlier one left changes in `directory`, which nobody
    would ever send. The spool of a process that lives is its own affair.
    """
    if not (directory / FILE_NAME).exists():
        return
    locked = DataDirectory(directory)
    try:
        locked.acquire()
    except StartRefused:
        return  # its process is at work
    try:
        left = sum(each.changes for each in show(directory))
    finally:
        locked.release()
    if left:
        raise StartRefused(
            why=f"RELAYFILE_SPOOL_MODE is through, and {directory} holds {left} accepted changes without an outcome; "
            f"send them with `relayfile spool adopt {directory}`, or start with RELAYFILE_SPOOL_MODE=disk"
        )


def _check_there(directory: Path) -> None:
    if not (directory / FILE_NAME).exists():
        raise StartRefused(why=f"{directory} has no {FILE_NAME}; name the data directory of an ingest process")
