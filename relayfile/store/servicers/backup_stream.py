"""Backup: a copy of this node's data as a stream, or in a directory of the node; recorded.

Owns that there is one copy at a time, where it goes, and its messages. How it is made and verified is the copier's
business. A copy that is streamed is made whole on the node's disk first: what is sent is what was verified.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relayfile.clock import Clock
from relayfile.errors import BackupExists, Overloaded, RequestIdReused
from relayfile.store.commit import Committer
from relayfile.store.engine import Engine, WorkspaceKey
from relayfile.store.entry_kinds import PlanContext
from relayfile.store.integrity.copy import CopiedWorkspace, Copier, CopyProgress, Manifest
from relayfile.store.once import Asked, Once, RequestMark, mark_of
from relayfile.store.order import Order, current_order
from relayfile.store.ownership import Ownership
from relayfile.store.plan.rows import ActionResult, AdminActionRow
from relayfile.store.recording import RecordActions, Recorded
from relayfile.store.servicers.checks import Checks
from relayfile.v1 import admin_pb2
from relayfile.wire import set_us

CHUNK_BYTES: Final = 1 << 20
MICROSECONDS: Final = 1_000_000
NAME_BYTES_MAX: Final = 128
RETRY_AFTER_S: Final = 30.0
_NAME = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]*\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupParts:
    """What makes and records copies of this node."""

    copier: Copier
    directory: Path
    """Where copies that stay on the node go, and streamed ones while they are made."""
    new_id: Callable[[], str]
    engine: Engine
    committer: Committer
    ownership: Ownership
    clock: Clock


class Backups:
    """Copies of this node, one at a time."""

    def __init__(self, parts: BackupParts) -> None:
        self._parts = parts
        context = PlanContext(parts.engine, parts.clock, parts.new_id)
        self._record = Once(context, RecordActions(), encode=bytes, decode=bytes)
        self._busy = asyncio.Lock()

    async def messages(self, request: admin_pb2.BackupRequest) -> AsyncGenerator[admin_pb2.BackupResponse, None]:
        """The stream of one copy."""
        order = current_order(request.reason, request.request_id)
        to_node = request.target == admin_pb2.BACKUP_TARGET_NODE_DIRECTORY
        mark = mark_of(order.method, request) if to_node else None
        if mark is not None and (before := await self._answered(mark)) is not None:
            yield admin_pb2.BackupResponse(result=before)
            return
        if self._busy.locked():
            raise Overloaded(what="list of copies that this node makes at once", retry_after_s=RETRY_AFTER_S)
        async with self._busy:
            backup_id = self._parts.new_id()
            target = self._parts.directory / (request.directory_name if to_node else f".stream-{backup_id}")
            if target.exists():
                raise BackupExists(directory=request.directory_name)
            try:
                async with aclosing(self._copied(target, backup_id, to_node)) as messages:
                    async for message in messages:
                        if message.HasField("result"):
                            await self._recorded(order, mark, backup_id, message.result)
                        yield message
            except Exception as failure:
                await self._record_failure(order, backup_id, str(failure))
                raise
            finally:
                if not to_node:
                    await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)

    async def _copied(
        self, target: Path, backup_id: str, to_node: bool
    ) -> AsyncGenerator[admin_pb2.BackupResponse, None]:
        clock = self._parts.clock
        started = clock.monotonic()
        manifest: Manifest | None = None
        async with aclosing(self._parts.copier.copy(target, backup_id)) as items:
            async for item in items:
                message = admin_pb2.BackupResponse()
                match item:
                    case CopyProgress():
                        message.progress.step = item.step
                        message.progress.done_bytes = item.done_bytes
                        message.progress.total_bytes = item.total_bytes
                        elapsed_s = clock.monotonic() - started
                        message.progress.elapsed.FromMicroseconds(round(elapsed_s * MICROSECONDS))
                        yield message
                    case CopiedWorkspace():
                        _fill_workspace(message.workspace, item)
                        yield message
                    case Manifest():
                        manifest = item
        assert manifest is not None, "the last item of a copy"
        if not to_node:
            with (target / manifest.file_name).open("rb") as file:
                while data := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    message = admin_pb2.BackupResponse()
                    message.chunk.data = data
                    yield message
        message = admin_pb2.BackupResponse()
        result = message.result
        result.backup_id = backup_id
        result.location = str(target) if to_node else ""
        result.size_bytes = manifest.size_bytes
        result.sha256 = bytes.fromhex(manifest.sha256)
        result.workspace_count = manifest.workspace_count
        set_us(result.snapshot_time, manifest.snapshot_us)
        result.duration.FromMicroseconds(round((clock.monotonic() - started) * MICROSECONDS))
        yield message

    async def _answered(self, mark: RequestMark) -> admin_pb2.BackupResult | None:
        """The result of the first request with this id."""
        async with self._parts.engine.view(self._key()) as view:
            row = (await view.requests([mark.key])).get(mark.key)
        if row is None:
            return None
        if row.fingerprint != mark.fingerprint:
            raise RequestIdReused(request_id=mark.key.request_id)
        return admin_pb2.BackupResult.FromString(row.answer)

    async def _recorded(
        self, order: Order, mark: RequestMark | None, backup_id: str, result: admin_pb2.BackupResult
    ) -> None:
        detail = f"{result.workspace_count} workspaces, {result.size_bytes} bytes, {result.sha256.hex()}"
        action = self._action(order, backup_id, detail, ActionResult.SUCCEEDED)
        await self._write(Recorded(action, result.SerializeToString()), mark)

    async def _record_failure(self, order: Order, backup_id: str, why: str) -> None:
        await self._write(Recorded(self._action(order, backup_id, why[:1_000], ActionResult.FAILED), b""), None)

    def _action(self, order: Order, backup_id: str, detail: str, result: ActionResult) -> AdminActionRow:
        node = self._parts.ownership.placement.node_index
        subject = f"node {node}, copy {backup_id}"
        return order.action(self._parts.new_id(), self._parts.clock.now_us(), subject, detail=detail, result=result)

    async def _write(self, recorded: Recorded, mark: RequestMark | None) -> None:
        asked = Asked(recorded, mark)
        await self._parts.committer.submit(self._key(), self._record, asked, change_count=1, byte_count=0)

    def _key(self) -> WorkspaceKey:
        """What is about the node as a whole is kept in its first shard."""
        return WorkspaceKey(min(self._parts.ownership.epochs()), "")


def check_backup(checks: Checks, request: admin_pb2.BackupRequest) -> None:
    """Note what of a request is wrong."""
    known = (
        admin_pb2.BACKUP_TARGET_UNSPECIFIED,
        admin_pb2.BACKUP_TARGET_STREAM,
        admin_pb2.BACKUP_TARGET_NODE_DIRECTORY,
    )
    checks.require(request.target in known, "target", f"is {request.target}, which is not a target")
    name = request.directory_name
    if request.target == admin_pb2.BACKUP_TARGET_NODE_DIRECTORY:
        fits = len(name) <= NAME_BYTES_MAX and _NAME.match(name) is not None
        checks.require(
            fits, "directory_name", "must have 1 to 128 characters of A-Z a-z 0-9 . _ - and not start with . or _"
        )
    else:
        checks.require(not name, "directory_name", "is only for a copy that stays on the node")
        checks.require(not request.request_id, "request_id", "is only for a copy that stays on the node")
    checks.reason(request.reason)
    checks.request_id(request.request_id)


def _fill_workspace(into: admin_pb2.BackedUpWorkspace, copied: CopiedWorkspace) -> None:
    into.workspace_id = copied.workspace_id
    into.revision = copied.revision
    into.history_id = copied.history_id
    into.totals.file_count = copied.file_count
    into.totals.total_bytes = copied.total_bytes
    into.totals.digest = copied.digest
