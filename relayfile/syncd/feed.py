"""What a mirror asks of the store, as streams of checked messages.

Owns the calls: their deadlines, their silence limits, the joining of content that came in chunks, and the translation
of statuses to our errors. Every stream that says nothing for longer than it may is dead (`Unavailable`). Refuses to
retry: its users know what they already have.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import grpc
import grpc.aio

from relayfile.errors import DataCorrupted, TooLarge, Unavailable
from relayfile.status import from_rpc_error
from relayfile.syncd.digest import TreeSum
from relayfile.syncd.rows import Cursor
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2, writeback_pb2
from relayfile.v1.event_pb2_grpc import EventServiceStub
from relayfile.v1.file_pb2_grpc import FileServiceStub
from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceStub
from relayfile.v1.writeback_pb2_grpc import WritebackServiceStub

Message = TypeVar("Message")
Message_co = TypeVar("Message_co", covariant=True)
Metadata = tuple[tuple[str, str], ...]

MARK_INTERVAL_S: Final = 10
_EMPTY_MAX: Final = 1_000
"""Messages or pages in a row that may bring nothing; a store that sends more of them never ends."""


class Reading(Protocol[Message_co]):
    """A stream being read, as grpc.aio gives it."""

    def __aiter__(self) -> AsyncIterator[Message_co]: ...

    def cancel(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """How long and how much the store may make us wait for."""

    call_timeout_s: float
    silence_max_s: float
    content_bytes_max: int
    page_entries: int


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds below a path at one revision."""

    at: Cursor
    total: TreeSum
    partial: bool
    wire_bytes: int
    """Of the question and the answer."""


@dataclass(frozen=True, slots=True)
class ExportPart:
    """A message of an export, its content complete."""

    files: Sequence[file_pb2.FileWithContent]
    at: Cursor
    totals: TreeSum | None
    """In the first part: what there is, for progress."""
    end: file_pb2.ExportEnd | None
    wire_bytes: int


class Feed:
    """One workspace, as one caller may see it."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        workspace_id: str,
        metadata: Callable[[], Metadata],
        limits: FeedLimits,
    ) -> None:
        self.workspace_id = workspace_id
        self._files = FileServiceStub(channel)
        # Only the decoder of raw messages learns their size for nothing; asking a message costs 5 % of a pull.
        self._export: grpc.aio.StreamStreamMultiCallable[
            file_pb2.ExportTreeRequest, tuple[file_pb2.ExportTreeResponse, int]
        ] = channel.stream_stream(
            "/relayfile.v1.FileService/ExportTree",
            request_serializer=file_pb2.ExportTreeRequest.SerializeToString,
            response_deserializer=_with_size,
        )
        self._events = EventServiceStub(channel)
        self._writeback = WritebackServiceStub(channel)
        self._workspaces = WorkspaceServiceStub(channel)
        self._metadata = metadata
        self._limits = limits

    async def workspace(self) -> Cursor:
        """Where the workspace is now."""
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=self.workspace_id)
        with _errors():
            answer = await self._workspaces.GetWorkspace(
                request, metadata=self._metadata(), timeout=self._limits.call_timeout_s
            )
        workspace = _understood(answer).workspace
        return Cursor(workspace.revision, workspace.history_id)

    async def held(self, path: str, min_revision: int = 0) -> Held:
        """Count, bytes and digest of what is below ``path``, in one small message."""
        request = file_pb2.GetTreeDigestRequest(
            workspace_id=self.workspace_id, path=path, partial=True, min_revision=min_revision
        )
        with _errors():
            answer = await self._files.GetTreeDigest(
                request, metadata=self._metadata(), timeout=self._limits.call_timeout_s
            )
        _understood(answer)
        return Held(
            Cursor(answer.revision, answer.history_id),
            tree_sum(answer.directory.totals),
            partial=answer.partial,
            wire_bytes=request.ByteSize() + answer.ByteSize(),
        )

    async def digest(
        self, path: str, *, children: bool = False, buckets: bool = False, bucket: Sequence[int] = ()
    ) -> file_pb2.GetTreeDigestResponse:
        """As ``held``, with the entries of the directory, all or of each ``bucket``, and with its buckets."""
        request = file_pb2.GetTreeDigestRequest(
            workspace_id=self.workspace_id,
            path=path,
            children=children,
            buckets=buckets,
            bucket=bucket[0] if bucket else None,
            more_buckets=bucket[1:],
            partial=True,
        )
        with _errors():
            return await self._files.GetTreeDigest(
                request, metadata=self._metadata(), timeout=self._limits.call_timeout_s
            )

    async def export(self, path: str, after_path: str = "", have: Iterable[bytes] = ()) -> AsyncIterator[ExportPart]:
        """Everything below ``path`` in order of path, after ``after_path``. ``ExportRefused`` asks to list instead.

        ``have``: hashes one after the other, some at a time; files with such a content come without it.
        """
        start = file_pb2.ExportStart(workspace_id=self.workspace_id, path=path, after_path=after_path)
        call = self._export(_question(start, have), metadata=self._metadata())
        joiner = _Joiner(self._limits.content_bytes_max)
        bringing = _Bringing("export")
        async with self._reading(call):
            ended = False
            async for message, wire_bytes in self._messages(call):
                bringing.heard(bool(message.files or message.chunk.data or message.chunk.last))
                files = joiner.take(message.files, message.chunk if message.HasField("chunk") else None)
                ended = ended or message.HasField("end")
                yield ExportPart(
                    files,
                    Cursor(message.revision, message.history_id),
                    tree_sum(message.totals) if message.HasField("totals") else None,
                    message.end if message.HasField("end") else None,
                    wire_bytes,
                )
            if not ended:
                raise Unavailable(what="export (the stream ended before its end was sent)")

    async def list_tree(self, path: str, depth: int = 0) -> AsyncIterator[file_pb2.ListTreeResponse]:
        """Every file below ``path``, page after page in order of path; with a ``depth`` so deep, and directories."""
        request = file_pb2.ListTreeRequest(
            workspace_id=self.workspace_id, path=path, page_size=self._limits.page_entries, depth=depth
        )
        call = self._files.ListTree(request, metadata=self._metadata())
        async with self._reading(call):
            more = True
            bringing = _Bringing("listing")
            async for page in self._messages(call):
                bringing.heard(bool(page.entries))
                more = bool(page.page_token)
                yield page
            if more:
                raise Unavailable(what="listing (the stream ended before its last page)")

    async def read_files(self, paths: Sequence[str]) -> AsyncIterator[tuple[Sequence[file_pb2.FileWithContent], int]]:
        """Packed files, and the size of their message. What is not there (any more) is left out."""
        request = file_pb2.ReadFilesRequest(workspace_id=self.workspace_id, paths=paths)
        call = self._files.ReadFiles(_only(request), metadata=self._metadata())
        joiner = _Joiner(self._limits.content_bytes_max)
        bringing = _Bringing("read")
        asked = set(paths)
        async with self._reading(call):
            async for message in self._messages(call):
                bringing.heard(bool(message.files or message.chunk.data or message.chunk.last))
                for each in message.files:
                    if each.file.path not in asked:
                        raise DataCorrupted(
                            what=f"the store sent {each.file.path!r}, which nobody asked for (any more)"
                        )
                    asked.remove(each.file.path)
                files = joiner.take(message.files, message.chunk if message.HasField("chunk") else None)
                yield files, message.ByteSize()

    async def failure_of(self, operation_id: str) -> str:
        """Why a provider did not take an edit; empty when the operation does not say."""
        request = writeback_pb2.GetOperationRequest(workspace_id=self.workspace_id, operation_id=operation_id)
        with _errors():
            answer = await self._writeback.GetOperation(
                request, metadata=self._metadata(), timeout=self._limits.call_timeout_s
            )
        failure = answer.operation.last_failure
        return f"{failure.reason} {failure.message}".strip()

    async def events(self, cursor: Cursor) -> AsyncIterator[tuple[Sequence[event_pb2.Event], Cursor]]:
        """What is committed after ``cursor``, page by page, each with the cursor behind it."""
        token = ""
        bringing = _Bringing("list of events")
        newest = cursor.revision
        while True:
            request = event_pb2.ListEventsRequest(
                workspace_id=self.workspace_id,
                after_revision=cursor.revision,
                history_id=cursor.history_id,
                page_size=self._limits.page_entries,
                page_token=token,
            )
            with _errors():
                page = await self._events.ListEvents(
                    request, metadata=self._metadata(), timeout=self._limits.call_timeout_s
                )
            _understood(page)
            bringing.heard(bool(page.events) and page.events[-1].revision > newest)
            newest = max(newest, page.events[-1].revision if page.events else 0)
            yield page.events, Cursor(max(page.revision, cursor.revision), page.history_id)
            token = page.next_page_token
            if not token:
                return

    async def watch(self, cursor: Cursor, roots: Sequence[str]) -> AsyncIterator[event_pb2.WatchEventsResponse]:
        """Events after ``cursor`` as they are committed, with marks for ``roots``. Ends only with an error."""
        request = event_pb2.WatchEventsRequest(
            workspace_id=self.workspace_id,
            after_revision=cursor.revision,
            history_id=cursor.history_id,
            mark_paths=roots,
            partial_digests=True,
        )
        request.mark_interval.FromSeconds(MARK_INTERVAL_S)
        call = self._events.WatchEvents(request, metadata=self._metadata())
        async with self._reading(call):
            async for message in self._messages(call):
                yield message
        raise Unavailable(what="event stream (the store ended it)")

    async def _messages(self, call: Reading[Message]) -> AsyncIterator[Message]:
        source = aiter(call)
        while True:
            try:
                async with asyncio.timeout(self._limits.silence_max_s):
                    with _errors():
                        message = await anext(source)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(
                    what=f"store: its stream has been silent for {self._limits.silence_max_s:g} s and counts as dead"
                ) from None
            yield _understood(message)

    @asynccontextmanager
    async def _reading(self, call: Reading[object]) -> AsyncIterator[None]:
        try:
            yield
        finally:
            call.cancel()


class _Bringing:
    """Tells a stream that goes on for ever from a long one: messages without anything in them are counted."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._empty = 0

    def heard(self, brings: bool) -> None:
        """The next message."""
        self._empty = 0 if brings else self._empty + 1
        if self._empty > _EMPTY_MAX:
            raise DataCorrupted(what=f"the store's {self._what} does not end: nothing in {_EMPTY_MAX} messages")


class _Joiner:
    """Puts content that came in chunks back behind its file. Bounded by one file's size."""

    def __init__(self, content_bytes_max: int) -> None:
        self._content_bytes_max = content_bytes_max
        self._head: file_pb2.FileWithContent | None = None
        self._pieces = bytearray()

    def take(
        self, files: Sequence[file_pb2.FileWithContent], chunk: types_pb2.ContentChunk | None
    ) -> Sequence[file_pb2.FileWithContent]:
        """The files that are complete with this message."""
        done: list[file_pb2.FileWithContent] = []
        if chunk is not None:
            head = self._head
            if head is None:
                raise DataCorrupted(what="the store sent content that belongs to no file")
            self._pieces += chunk.data
            if len(self._pieces) > head.content_follows_bytes:
                raise DataCorrupted(what=f"the store sent more of {head.file.path!r} than it has")
            if chunk.last:
                head.content = bytes(self._pieces)
                done.append(head)
                self._head, self._pieces = None, bytearray()
        if not files:
            return done
        if self._head is not None:
            raise DataCorrupted(what=f"the store sent only a part of {self._head.file.path!r}")
        last = files[-1]
        if last.content_follows_bytes <= 0:
            return files if not done else [*done, *files]
        if last.content_follows_bytes > self._content_bytes_max:
            raise TooLarge(what=last.file.path, size=last.content_follows_bytes, limit=self._content_bytes_max)
        self._head = last
        return [*done, *files[:-1]]


async def _only(request: Message) -> AsyncIterator[Message]:
    """The one request of a call. (Written by hand, it would fail with INTERNAL where the store refuses first.)"""
    yield request


async def _question(start: file_pb2.ExportStart, have: Iterable[bytes]) -> AsyncIterator[file_pb2.ExportTreeRequest]:
    request = file_pb2.ExportTreeRequest(start=start)
    for hashes in have:
        request.have_sha256 = hashes
        yield request
        request = file_pb2.ExportTreeRequest()
    request.have_complete = True
    yield request


def _with_size(raw: bytes) -> tuple[file_pb2.ExportTreeResponse, int]:
    return file_pb2.ExportTreeResponse.FromString(raw), len(raw)


def _understood(message: Message | None) -> Message:
    """gRPC gives None for bytes that are no message; what came in their place is not known."""
    if message is None:
        raise DataCorrupted(what="the store's answer, which is no message of this API")
    return message


def tree_sum(totals: types_pb2.TreeTotals) -> TreeSum:
    """The wire's totals as a value."""
    return TreeSum(totals.file_count, totals.total_bytes, int.from_bytes(totals.digest, "big"))


class _errors:  # noqa: N801 - reads as what it does
    """Statuses become our errors."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, grpc.aio.AioRpcError):
            raise from_rpc_error(error) from error
