"""Copies a node's file while it is written, and proves the copy: SHA-256, SQLite's own check, every digest recounted.

By SQLite's backup interface, in steps of a mebibyte with a pause after each, all of one snapshot. Measured on a file of
150 MiB under a steady writer, against `VACUUM INTO`: equally fast, and commits take 4.9 ms (99 of 100: 43 ms), as long
as without a copy, instead of 10.9 ms (68 ms). The write-ahead log grows by what is written meanwhile.
"""

import asyncio
import hashlib
import os
import shutil
import threading
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
import msgspec

from relayfile.clock import Clock
from relayfile.data_directory import sync_directory
from relayfile.errors import DataCorrupted
from relayfile.store.integrity.copy import MANIFEST_NAME, Copied, CopiedWorkspace, CopyProgress, Manifest
from relayfile.store.integrity.finding import AuditOrder, Check, Finding
from relayfile.store.sqlite.connection import open_reader
from relayfile.store.sqlite.stopped import audit_over

PAGES_PER_STEP: Final = 256
PAUSE_S: Final = 0.005
"""After a step: for the writer's fsync."""
TELL_S: Final = 1.0
HASHED_AT_ONCE: Final = 1 << 20
CACHE_BYTES: Final = 8 << 20

_WORKSPACES: Final = (
    "SELECT w.workspace_id, w.revision, w.history_id, coalesce(d.file_count, 0), coalesce(d.total_bytes, 0),"
    " coalesce(d.digest, zeroblob(32)) FROM workspace AS w LEFT JOIN directory AS d ON d.shard_id = w.shard_id"
    " AND d.workspace_id = w.workspace_id AND d.path = '/' WHERE w.deleted_us IS NULL AND w.workspace_id > ?"
    " ORDER BY w.workspace_id LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class SqliteBackup:
    """Copies of one node's file."""

    path: Path
    """The file."""
    node_index: int
    node_count: int
    cluster_id: str
    version: str
    clock: Clock

    async def copy(self, target: Path, backup_id: str) -> AsyncGenerator[Copied, None]:
        """As `Copier.copy`."""
        making = target.with_name(f".{target.name}.{backup_id}")
        making.mkdir(parents=True)
        try:
            copied = making / self.path.name
            work = _Work()
            snapshot_us = self.clock.now_us()
            async for progress in _watched(lambda: _copy_file(self.path, copied, work), work, "copy"):
                yield progress
            async for progress in _watched(lambda: _check_file(copied, work), work, "check"):
                yield progress
            async for progress in _watched(lambda: _hash_file(copied, work), work, "hash"):
                yield progress
            count = 0
            async for workspace in self._verified(copied):
                count += 1
                yield workspace
            manifest = Manifest(
                backup_id,
                self.node_index,
                self.node_count,
                self.cluster_id,
                self.version,
                snapshot_us,
                copied.name,
                copied.stat().st_size,
                work.sha256,
                count,
            )
            await asyncio.to_thread(write_manifest, making, manifest)
            making.rename(target)
            await asyncio.to_thread(sync_directory, target.parent)
            yield manifest
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)

    async def _verified(self, copied: Path) -> AsyncGenerator[CopiedWorkspace, None]:
        """Every workspace of the copy, its digests recounted from its files."""
        connection = open_reader(copied, CACHE_BYTES)
        try:
            auditor = audit_over(connection, copied, self.clock, gives_way=True)
            after = ""
            while (row := connection.execute(_WORKSPACES, (after,)).fetchone()) is not None:
                workspace = CopiedWorkspace(*row)
                order = AuditOrder(workspace.workspace_id, (Check.DIGESTS,), findings_max=1)
                async for item in auditor.run(order):
                    if isinstance(item, Finding):
                        raise DataCorrupted(what=f"the copy of {item.workspace_id} at {item.subject}: {item.message}")
                yield workspace
                after = workspace.workspace_id
        finally:
            connection.close()


class _Work:
    """What the thread that works and the loop that tells share."""

    def __init__(self) -> None:
        self.done_bytes = 0
        self.total_bytes = 0
        self.sha256 = ""
        self.is_given_up = threading.Event()


async def _watched(run: Callable[[], None], work: _Work, step: str) -> AsyncGenerator[CopyProgress, None]:
    """Run in a thread, and tell how far it is. A generator that is closed early waits until the thread has stopped."""
    future = asyncio.get_running_loop().run_in_executor(None, run)
    try:
        while not future.done():
            await asyncio.wait((future,), timeout=TELL_S)
            yield CopyProgress(step, work.done_bytes, work.total_bytes)
        future.result()
    finally:
        work.is_given_up.set()
        if not future.done():
            await asyncio.wait((future,))
        work.is_given_up.clear()


def _copy_file(source: Path, target: Path, work: _Work) -> None:
    reader = open_reader(source, CACHE_BYTES)
    copy = apsw.Connection(str(target))
    try:
        page_bytes: int = reader.execute("PRAGMA page_size").get
        # One snapshot for all steps: without it every commit would make the copy begin again.
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM meta").fetchall()
        copy.execute("PRAGMA synchronous=OFF")  # it is forced to disk at the end, once
        with copy.backup("main", reader, "main") as backup:
            while not backup.done and not work.is_given_up.is_set():
                backup.step(PAGES_PER_STEP)
                work.total_bytes = backup.page_count * page_bytes
                work.done_bytes = work.total_bytes - backup.remaining * page_bytes
                time.sleep(PAUSE_S)
        copy.execute("PRAGMA journal_mode=DELETE")  # a file by itself, whatever the node's is
    finally:
        copy.close()
        reader.close()


def _check_file(path: Path, work: _Work) -> None:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
    except apsw.Error as error:
        answers = [str(error)]
    finally:
        connection.close()
    if answers != ["ok"]:
        raise DataCorrupted(what=f"the copy: {'; '.join(answers)}")


def _hash_file(path: Path, work: _Work) -> None:
    work.done_bytes = 0
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while (data := file.read(HASHED_AT_ONCE)) and not work.is_given_up.is_set():
            digest.update(data)
            work.done_bytes += len(data)
        os.fsync(file.fileno())
    work.sha256 = digest.hexdigest()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Beside the file that it describes; all of it is durable when this returns."""
    with (directory / manifest.file_name).open("rb") as file:
        os.fsync(file.fileno())
    with (directory / MANIFEST_NAME).open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_directory(directory)
