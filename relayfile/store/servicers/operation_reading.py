"""Operations as their readers see them: listed, described, watched, and their contents in pieces.

Owns that a caller sees only operations of files that it may read, and the rhythm of a watch stream: it reads what
changed since it last looked, each operation once and as it is now, and waits for the feed when there is nothing.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

from relayfile.errors import OperationContentGone, OperationNotFound
from relayfile.model import MemberKind
from relayfile.store.access import ReadAccess
from relayfile.store.engine import WorkspaceKey, WorkspaceView
from relayfile.store.operation_view import OperationFilter
from relayfile.store.operations.feed import OperationFeed
from relayfile.store.plan.writeback.rows import UNFINISHED, HeldChange, OperationKind, OperationRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.operation_wire import check_operation_id, fill_operation, read_filter
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.v1 import types_pb2, writeback_pb2

ACTION = "ops:read"
PAGE_DEFAULT = 100
PAGE_MAX = 1_000
WATCH_PAGE = 500
SIGN_OF_LIFE_S = 10.0
CHUNK_BYTES_MAX = 1 << 20
LOOKS_MAX = 20
"""Times that one page of a list goes on where the store's look of some thousand rows ended before it was full."""


@dataclass(frozen=True, slots=True)
class OperationReading:
    """Reads operations of this node's workspaces."""

    reading: Reading
    feed: OperationFeed

    async def list(
        self, request: writeback_pb2.ListOperationsRequest, call: TimeLeft
    ) -> writeback_pb2.ListOperationsResponse:
        """One page: full, but for the last one, and for one that ends after `LOOKS_MAX` looks."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        chosen = read_filter(checks, request.filter)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.not_negative(request.min_revision, "min_revision")
        checks.done()
        key = self.reading.key(request.workspace_id)
        await self.reading.reached(key, request.min_revision, call)
        answer = writeback_pb2.ListOperationsResponse()
        async with self.reading.snapshot(key) as (view, workspace):
            binding = ("ListOperations", key.workspace_id, workspace.history_id, repr(_sorted(chosen)))
            before_id = self.reading.tokens.unseal(binding, request.page_token)
            next_id = await self._look(answer, view, key, chosen, before_id, size)
        for _ in range(LOOKS_MAX - 1):
            if not next_id or len(answer.operations) >= size:
                break
            await asyncio.sleep(0)  # the others' turn: a look takes tens of milliseconds
            async with self.reading.snapshot(key) as (view, now):
                if now.history_id != workspace.history_id:
                    break  # the token says so
                next_id = await self._look(answer, view, key, chosen, next_id, size)
        if next_id:
            answer.next_page_token = self.reading.tokens.seal(binding, next_id)
        return answer

    async def _look(
        self,
        answer: writeback_pb2.ListOperationsResponse,
        view: WorkspaceView,
        key: WorkspaceKey,
        chosen: OperationFilter,
        before_id: str,
        size: int,
    ) -> str:
        """Adds what is found to a page of `size`; the id to go on after, empty at the end."""
        rows, next_id = await view.operations().listed(chosen, before_id, size - len(answer.operations))
        await self._fill(answer.operations, view, key, await _seen(view, rows))
        return next_id

    async def get(self, key: WorkspaceKey, operation_id: str) -> writeback_pb2.Operation:
        """One operation. `OperationNotFound`, also of a file that the caller may not read."""
        message = writeback_pb2.Operation()
        async with self.reading.snapshot(key) as (view, _):
            row = await _one(view, operation_id)
            held = await _held(view, [row])
            fill_operation(message, key.workspace_id, row, held.get(row.operation_id))
        return message

    async def watch(
        self, request: writeback_pb2.WatchOperationsRequest
    ) -> AsyncGenerator[writeback_pb2.WatchOperationsResponse, None]:
        """What is unfinished, then every change, until the call ends."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        chosen = read_filter(checks, request.filter)
        checks.done()
        chosen = replace(chosen, states=frozenset())
        key = self.reading.key(request.workspace_id)
        async with self.reading.snapshot(key) as (view, _):
            cursor = await view.operations().newest_change()
        async for message in self._beginning(key, chosen):
            yield message
        yield writeback_pb2.WatchOperationsResponse(caught_up=True)
        while True:
            tick = self.feed.now(key.workspace_id)
            answer = writeback_pb2.WatchOperationsResponse()
            async with self.reading.snapshot(key) as (view, _):
                rows, newest = await view.operations().changed_after(cursor, WATCH_PAGE)
                wanted = [row for row in rows if chosen.selects(row)]
                await self._fill(answer.operations, view, key, await _seen(view, wanted))
            if answer.operations:
                yield answer
            cursor = newest
            if len(rows) < WATCH_PAGE and not await self._news(key, tick):
                yield writeback_pb2.WatchOperationsResponse()

    async def _beginning(
        self, key: WorkspaceKey, chosen: OperationFilter
    ) -> AsyncGenerator[writeback_pb2.WatchOperationsResponse, None]:
        unfinished = replace(chosen, states=frozenset(map(int, UNFINISHED)))
        before_id = ""
        while True:
            answer = writeback_pb2.WatchOperationsResponse()
            async with self.reading.snapshot(key) as (view, _):
                rows, before_id = await view.operations().listed(unfinished, before_id, WATCH_PAGE)
                await self._fill(answer.operations, view, key, await _seen(view, rows))
            if answer.operations:
                yield answer
            if not before_id:
                return

    async def _news(self, key: WorkspaceKey, tick: int) -> bool:
        try:
            async with asyncio.timeout(SIGN_OF_LIFE_S):
                await self.feed.wait(key.workspace_id, tick)
            return True
        except TimeoutError:
            return False

    async def content(
        self, request: writeback_pb2.ReadOperationContentRequest
    ) -> AsyncGenerator[writeback_pb2.ReadOperationContentResponse, None]:
        """A head, then the bytes from the offset on, at least one chunk. `OperationContentGone`."""
        checks = Checks()
        checks.workspace(request.workspace_id)
        check_operation_id(checks, request.operation_id)
        checks.not_negative(request.offset_bytes, "offset_bytes")
        parts = (
            writeback_pb2.OPERATION_CONTENT_PART_UNSPECIFIED,
            writeback_pb2.OPERATION_CONTENT_PART_OPERATION,
            writeback_pb2.OPERATION_CONTENT_PART_PROVIDER_BASE,
        )
        checks.require(request.part in parts, "part", f"is {request.part}, which is not a part")
        checks.done()
        key = self.reading.key(request.workspace_id)
        of_base = request.part == writeback_pb2.OPERATION_CONTENT_PART_PROVIDER_BASE
        async with self.reading.snapshot(key) as (view, _):
            row = await _one(view, request.operation_id)
            held = (await _held(view, [row])).get(row.operation_id) if of_base else None
        if of_base and held is None:
            raise OperationContentGone(operation=row.operation_id, why="no change of the provider is held")
        if held is not None and held.member.kind is MemberKind.DELETE:
            raise OperationContentGone(operation=row.operation_id, why="the provider has deleted the object")
        head = writeback_pb2.ReadOperationContentResponse()
        if held is not None:
            head.head.content_sha256 = held.content_sha256
            head.head.size_bytes = len(held.member.content or b"")
            head.head.content_type = held.member.content_type
        else:
            head.head.content_sha256 = row.content_sha256
            head.head.size_bytes = row.size_bytes
            head.head.content_type = row.content_type
        size, at = head.head.size_bytes, request.offset_bytes
        piece = await self._piece(key, row, held, at)  # before the head: what is gone is told instead of it
        yield head
        while True:
            at += len(piece)
            is_last = at >= size or not piece
            chunk = types_pb2.ContentChunk(data=piece, last=is_last)
            yield writeback_pb2.ReadOperationContentResponse(chunk=chunk)
            if is_last:
                return
            piece = await self._piece(key, row, held, at)

    async def _piece(self, key: WorkspaceKey, row: OperationRow, held: HeldChange | None, offset: int) -> bytes:
        if held is not None:
            return (held.member.content or b"")[offset : offset + CHUNK_BYTES_MAX]
        if not row.content_id:
            raise OperationContentGone(operation=row.operation_id, why=_why_none(row))
        piece = await self.reading.engine.content_chunk(key, row.content_id, offset, CHUNK_BYTES_MAX)
        if piece is None:
            raise OperationContentGone(operation=row.operation_id, why="it has ended meanwhile")
        return piece

    async def _fill(
        self,
        into: RepeatedCompositeFieldContainer[writeback_pb2.Operation],
        view: WorkspaceView,
        key: WorkspaceKey,
        rows: Sequence[OperationRow],
    ) -> None:
        held = await _held(view, rows)
        for row in rows:
            fill_operation(into.add(), key.workspace_id, row, held.get(row.operation_id))


async def _one(view: WorkspaceView, operation_id: str) -> OperationRow:
    row = (await view.operations().by_ids([operation_id])).get(operation_id)
    if row is None or not await _seen(view, [row]):
        raise OperationNotFound(operation=operation_id)
    return row


async def _seen(view: WorkspaceView, rows: Sequence[OperationRow]) -> Sequence[OperationRow]:
    """Those of files that the caller may read."""
    sight = await ReadAccess.current(ACTION).sight(view)
    if sight.sees_all and not any(row.semantics.permissions for row in rows):
        return rows
    files = await view.files([row.path for row in rows])
    return [
        row
        for row, file in zip(rows, files, strict=True)
        if await sight.allows(row.path, file, row.semantics.permissions)
    ]


async def _held(view: WorkspaceView, rows: Sequence[OperationRow]) -> dict[str, HeldChange]:
    """By operation, of those that have not ended."""
    edits = [row for row in rows if row.state in UNFINISHED and row.kind is not OperationKind.FETCH]
    held = await view.operations().held_of({row.key for row in edits}) if edits else {}
    return {row.operation_id: held[row.key] for row in edits if row.key in held}


def _why_none(row: OperationRow) -> str:
    if row.kind in (OperationKind.DELETE, OperationKind.FETCH):
        return f"a {row.kind.name.lower()} has none"
    return "it has ended"


def _sorted(chosen: OperationFilter) -> tuple[object, ...]:
    """The filter as a page token is bound to it."""
    return (
        sorted(chosen.providers), sorted(chosen.kinds), sorted(chosen.states), chosen.path, chosen.object_id,
        chosen.quarantine_id, chosen.created_from_us, chosen.created_before_us,
    )  # fmt: skip
