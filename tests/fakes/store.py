"""A store in memory, served by a real grpc.aio server on loopback, with knobs for everything that can go wrong.

It answers as the real one must (order of paths, one snapshot per message, gap-free revisions, marks after each burst),
and lies only where a knob says so.
"""

import asyncio
import hashlib
import itertools
from collections.abc import AsyncIterator, Container, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio

from relayfile.errors import (
    CursorExpired,
    ExportRefused,
    FileNotFound,
    RelayfileError,
    ServedLater,
    Unavailable,
    WorkspaceNotFound,
)
from relayfile.interception import CallInterceptor
from relayfile.paths import contains, name, normalise
from relayfile.status import error_stage
from relayfile.syncd.digest import EMPTY, TreeSum
from relayfile.v1 import event_pb2, file_pb2, types_pb2, workspace_pb2
from relayfile.v1.event_pb2_grpc import EventServiceServicer, add_EventServiceServicer_to_server
from relayfile.v1.file_pb2_grpc import FileServiceServicer, add_FileServiceServicer_to_server
from relayfile.v1.workspace_pb2_grpc import WorkspaceServiceServicer, add_WorkspaceServiceServicer_to_server
from tests.fakes.store_writes import FileWrites, StoredFile, WriteKnobs, Writes

MESSAGE_BYTES = 1 << 20
CHUNK_BYTES = 1 << 18
CHILDREN_MAX = 20_000
BUCKETS_ABOVE = 4_096


@dataclass
class Knobs(WriteKnobs):
    """What goes wrong, until it is set back."""

    latency_s: float = 0.0
    refuse_export: bool = False
    cut_after_messages: int | None = None
    """Streams of content end with UNAVAILABLE after so many messages."""
    garbage: set[str] = field(default_factory=set)
    """The content of these paths arrives changed."""
    empty_listing: bool = False
    """Listings and exports are empty, and say that they are complete."""
    empty_digest: bool = False
    """The digest says that there is nothing."""
    cut_with: RelayfileError = field(default_factory=lambda: Unavailable(what="store (a knob says so)"))
    refusal: RelayfileError | None = None
    """Every call ends with this, and every stream that is open."""
    endless: bool = False
    """Listings, exports and pages of events bring nothing, for ever."""
    empty_chunks: bool = False
    """Of the first file exports and reads bring pieces without a byte, for ever."""
    unasked: str = ""
    """Reads also bring this path."""
    no_digests: bool = False
    """As a store that serves none."""
    silent_watch: bool = False
    no_marks: bool = False


class FakeStore(Writes):
    """One workspace. ``put``, ``delete`` and ``move`` commit; everything else is asked over gRPC."""

    def __init__(self, workspace_id: str = "acme") -> None:
        super().__init__()
        self.workspace_id = workspace_id
        self.history_id = "history-1"
        self.revision = 0
        self.files: dict[str, StoredFile] = {}
        self.events: list[event_pb2.Event] = []
        self.oldest = 0
        self.knobs = Knobs()
        self.calls: list[str] = []
        self.paths_read: list[str] = []
        self.exports_after: list[str] = []
        self.reads_now = 0
        self.reads_peak = 0
        self._changed = asyncio.Condition()
        self._packed: list[file_pb2.ExportTreeResponse] | None = None

    # --- commits ----------------------------------------------------------------------------------------------------

    def put(self, path: str, content: bytes | str, *, moved_from: str = "", traceparent: str = "") -> int:
        """Create or replace; any name, also one that a real store refuses."""
        raw = content.encode() if isinstance(content, str) else content
        kind = event_pb2.EVENT_TYPE_FILE_UPDATED if path in self.files else event_pb2.EVENT_TYPE_FILE_CREATED
        self.revision += 1
        self.files[path] = StoredFile(path, self.revision, raw)
        self._event(
            kind,
            path,
            content_sha256=self.files[path].sha,
            size_bytes=len(raw),
            moved_from=moved_from,
            traceparent=traceparent,
        )
        return self.revision

    def delete(self, path: str, *, moved_to: str = "") -> int:
        self.revision += 1
        del self.files[path]
        self._event(event_pb2.EVENT_TYPE_FILE_DELETED, path, moved_to=moved_to)
        return self.revision

    def move(self, path: str, to_path: str) -> int:
        content = self.files[path].content
        self.delete(path, moved_to=to_path)
        return self.put(to_path, content, moved_from=path)

    def write_back(self, path: str, *, taken: bool) -> int:
        """A provider took the edit of a file, or refused it for good."""
        kinds = event_pb2.EVENT_TYPE_WRITEBACK_SUCCEEDED, event_pb2.EVENT_TYPE_WRITEBACK_FAILED
        self.revision += 1
        self._event(kinds[not taken], path, operation_id=f"op-{self.revision}", provider="github")
        return self.revision

    def hide(self, directory: str) -> int:
        """Rules changed: nobody may read what is below any more."""
        self.revision += 1
        for path in [path for path in self.files if contains(directory, path)]:
            del self.files[path]
        self._event(event_pb2.EVENT_TYPE_ACCESS_CHANGED, directory)
        return self.revision

    def fill(self, files: Mapping[str, bytes | str]) -> None:
        for path, content in files.items():
            self.put(path, content)

    async def notify(self) -> None:
        """Wake the watchers: what was committed is visible to them now."""
        async with self._changed:
            self._changed.notify_all()

    def new_history(self) -> None:
        """As after a restore: other numbers, no events before."""
        self.history_id += "+"
        self.events.clear()
        self.oldest = self.revision

    def expire_events(self) -> None:
        self.events.clear()
        self.oldest = self.revision

    def pack(self) -> None:
        """Build the export's messages once, for benchmarks."""
        self._packed = list(self._export("", "/"))

    # --- reading ----------------------------------------------------------------------------------------------------

    def below(self, path: str, after: str = "") -> list[StoredFile]:
        return [self.files[each] for each in sorted(self.files) if contains(path, each) and each > after]

    def total(self, path: str) -> TreeSum:
        total = EMPTY
        if not self.knobs.empty_digest:
            for file in self.below(path):
                total = total.with_file(file.path, file.sha, len(file.content))
        return total

    def totals(self, path: str) -> types_pb2.TreeTotals:
        return message_of(self.total(path))

    def entries(self, path: str) -> dict[str, TreeSum]:
        """What is directly in a directory, by path, with its sum."""
        found: dict[str, TreeSum] = {}
        start = len(path) + (path != "/")
        for file in [] if self.knobs.empty_listing else self.below(path):
            each = file.path[:start] + file.path[start:].partition("/")[0]
            found[each] = found.get(each, EMPTY).with_file(file.path, file.sha, len(file.content))
        return found

    def entry(self, path: str, total: TreeSum) -> file_pb2.TreeEntry:
        if path in self.files:
            return file_pb2.TreeEntry(file=self.files[path].meta())
        return file_pb2.TreeEntry(directory=file_pb2.DirectoryMeta(path=path, totals=message_of(total)))

    def export_messages(
        self, after: str, path: str, known: Container[bytes] = ()
    ) -> Iterator[file_pb2.ExportTreeResponse]:
        if self._packed is not None and not after:
            return iter(self._packed)
        return self._export(after, path, known)

    def _export(
        self, after: str, path: str = "/", known: Container[bytes] = ()
    ) -> Iterator[file_pb2.ExportTreeResponse]:
        files = [] if self.knobs.empty_listing else self.below(path, after)
        first = True
        for message in self.packed(files, known):
            message_out = file_pb2.ExportTreeResponse(revision=self.revision, history_id=self.history_id)
            message_out.files.extend(message.files)
            if message.HasField("chunk"):
                message_out.chunk.CopyFrom(message.chunk)
            if first:
                message_out.totals.CopyFrom(self.totals(path))
                first = False
            yield message_out
        yield file_pb2.ExportTreeResponse(
            revision=self.revision,
            history_id=self.history_id,
            totals=self.totals(path) if first else None,
            end=file_pb2.ExportEnd(file_count=len(files), revision=self.revision, totals=self.totals(path)),
        )

    def packed(self, files: list[StoredFile], known: Container[bytes] = ()) -> Iterator[file_pb2.ReadFilesResponse]:
        message, size = file_pb2.ReadFilesResponse(), 0
        for file in files:
            if file.sha in known:
                message.files.add(file=file.meta(), content_known=True)
                size += 200
                continue
            content = b"garbage" if file.path in self.knobs.garbage else file.content
            if len(content) > MESSAGE_BYTES:
                message.files.add(file=file.meta(), content_follows_bytes=len(content))
                yield message
                for start in range(0, len(content), CHUNK_BYTES):
                    piece = content[start : start + CHUNK_BYTES]
                    last = start + CHUNK_BYTES >= len(content)
                    yield file_pb2.ReadFilesResponse(chunk=types_pb2.ContentChunk(data=piece, last=last))
                message, size = file_pb2.ReadFilesResponse(), 0
                continue
            message.files.add(file=file.meta(), content=content)
            size += len(content) + 200
            if size >= MESSAGE_BYTES:
                yield message
                message, size = file_pb2.ReadFilesResponse(), 0
        if size:
            yield message

    async def lag(self) -> None:
        if self.knobs.refusal is not None:
            raise self.knobs.refusal
        if self.knobs.latency_s:
            await asyncio.sleep(self.knobs.latency_s)

    async def committed(self, revision: int) -> None:
        """Until something after ``revision`` is committed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.revision > revision)

    def _event(self, kind: event_pb2.EventType.ValueType, path: str, **fields: object) -> None:
        self._packed = None
        event = event_pb2.Event(revision=self.revision, type=kind, path=path, **fields)  # type: ignore[arg-type]  # its fields
        self.events.append(event)

    @asynccontextmanager
    async def served(self) -> AsyncIterator[str]:
        """Listens on a free port; gives its address."""
        ids = itertools.count()
        server = grpc.aio.server(
            interceptors=[CallInterceptor([error_stage], lambda: str(next(ids)), frozenset())],
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)],
        )
        add_FileServiceServicer_to_server(_Files(self), server)  # type: ignore[abstract]  # the rest is served later
        add_EventServiceServicer_to_server(_Events(self), server)
        add_WorkspaceServiceServicer_to_server(_Workspaces(self), server)  # type: ignore[abstract]  # as above
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(None)


class _Files(FileWrites, FileServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def ListTree(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("ListTree")
        while store.knobs.endless:
            yield file_pb2.ListTreeResponse(page_token="more", revision=store.revision, history_id=store.history_id)
        if request.depth:
            entries = {} if store.knobs.empty_listing else store.entries(normalise(request.path))
            yield file_pb2.ListTreeResponse(
                entries=[store.entry(each, total) for each, total in entries.items()],
                revision=store.revision,
                history_id=store.history_id,
            )
            return
        files = [] if store.knobs.empty_listing else store.below(normalise(request.path), request.page_token)
        size = request.page_size or 5000
        pages = [files[start : start + size] for start in range(0, len(files), size)] or [[]]
        for sent, page in enumerate(pages):
            await store.lag()
            yield file_pb2.ListTreeResponse(
                entries=[file_pb2.TreeEntry(file=file.meta()) for file in page],
                page_token=page[-1].path if sent + 1 < len(pages) else "",
                revision=store.revision,
                history_id=store.history_id,
            )

    async def ReadFiles(self, request_iterator, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("ReadFiles")
        async for request in request_iterator:
            store.reads_now += 1
            store.reads_peak = max(store.reads_peak, store.reads_now)
            await store.lag()
            store.reads_now -= 1
            store.paths_read += request.paths
            found = [store.files[path] for path in request.paths if path in store.files]
            if store.knobs.unasked:
                found.append(store.files[store.knobs.unasked])
            if store.knobs.empty_chunks:
                head = file_pb2.FileWithContent(file=found[0].meta(), content_follows_bytes=1)
                yield file_pb2.ReadFilesResponse(files=[head])
            while store.knobs.empty_chunks:
                yield file_pb2.ReadFilesResponse(chunk=types_pb2.ContentChunk())
            for sent, message in enumerate(store.packed(found)):
                _cut(store, sent)
                yield message
            yield file_pb2.ReadFilesResponse(missing_paths=[path for path in request.paths if path not in store.files])

    async def ReadFile(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        if request.path not in store.files:
            raise FileNotFound(path=request.path)
        await store.lag()
        file = store.files[request.path]
        yield file_pb2.ReadFileResponse(file=file.meta(), data=file.content)

    async def ExportTree(self, request_iterator, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("ExportTree")
        start, known = await _question(request_iterator)  # first, as a store does: see ANSWER_LOST
        if store.knobs.refuse_export:
            raise ExportRefused(why="a knob says so")
        store.exports_after.append(start.after_path)
        await store.lag()
        while store.knobs.endless:
            yield file_pb2.ExportTreeResponse(revision=store.revision, history_id=store.history_id)
        if store.knobs.empty_chunks:
            head = file_pb2.FileWithContent(file=next(iter(store.files.values())).meta(), content_follows_bytes=1)
            yield file_pb2.ExportTreeResponse(files=[head])
        while store.knobs.empty_chunks:
            yield file_pb2.ExportTreeResponse(chunk=types_pb2.ContentChunk())
        for sent, message in enumerate(store.export_messages(start.after_path, normalise(start.path), known)):
            _cut(store, sent)
            yield message

    async def GetTreeDigest(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("GetTreeDigest")
        if store.knobs.no_digests:
            raise ServedLater(rpc="GetTreeDigest")
        await store.lag()
        path = normalise(request.path)
        answer = file_pb2.GetTreeDigestResponse(
            directory=file_pb2.DirectoryMeta(path=path, totals=store.totals(path)),
            revision=store.revision,
            history_id=store.history_id,
        )
        entries = store.entries(path)
        if request.children and (len(entries) <= CHILDREN_MAX or request.HasField("bucket")):
            for each, totals in entries.items():
                if request.HasField("bucket") and bucket_of(name(each)) not in (request.bucket, *request.more_buckets):
                    continue
                answer.children.append(store.entry(each, totals))
        if request.buckets and len(entries) > BUCKETS_ABOVE:
            sums = [EMPTY] * 256
            for each, total in entries.items():
                sums[bucket_of(name(each))] += total
            for number, total in enumerate(sums):
                answer.buckets.add(bucket=number, totals=message_of(total))
        return answer


class _Events(EventServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def ListEvents(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("ListEvents")
        self._check(request)
        await store.lag()
        return event_pb2.ListEventsResponse(
            events=[event for event in store.events if event.revision > request.after_revision],
            history_id=store.history_id,
            revision=store.revision,
            next_page_token="more" if store.knobs.endless else "",
        )

    async def WatchEvents(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("WatchEvents")
        self._check(request)
        sent = request.after_revision
        while True:
            await store.lag()
            if store.knobs.silent_watch:
                await asyncio.Event().wait()
            events = [event for event in store.events if event.revision > sent]
            sent = store.revision
            message = event_pb2.WatchEventsResponse(events=events)
            if not store.knobs.no_marks:
                message.mark.CopyFrom(self._mark(request))
            await store.lag()
            yield message
            await store.committed(sent)

    def _mark(self, request: event_pb2.WatchEventsRequest) -> event_pb2.Mark:
        store = self._store
        mark = event_pb2.Mark(revision=store.revision, history_id=store.history_id)
        for path in request.mark_paths or ["/"]:
            mark.roots.add(path=path, totals=store.totals(path))
        return mark

    def _check(self, request: event_pb2.WatchEventsRequest | event_pb2.ListEventsRequest) -> None:
        store = self._store
        expired = request.after_revision < store.oldest
        if expired or (request.history_id and request.history_id != store.history_id):
            raise CursorExpired(history_id=store.history_id, oldest=store.oldest)


class _Workspaces(WorkspaceServiceServicer):
    def __init__(self, store: FakeStore) -> None:
        self._store = store

    async def GetWorkspace(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("GetWorkspace")
        await store.lag()
        if request.workspace_id != store.workspace_id:
            raise WorkspaceNotFound(workspace=request.workspace_id)
        return workspace_pb2.GetWorkspaceResponse(
            workspace=workspace_pb2.Workspace(
                workspace_id=store.workspace_id, revision=store.revision, history_id=store.history_id
            )
        )


async def _question(
    requests: AsyncIterator[file_pb2.ExportTreeRequest],
) -> tuple[file_pb2.ExportStart, frozenset[bytes]]:
    """Where an export starts, and which contents its caller has."""
    start = file_pb2.ExportStart()
    hashes = b""
    async for request in requests:
        if request.HasField("start"):
            start = request.start
        hashes += request.have_sha256
        if request.have_complete:
            break
    return start, frozenset(hashes[at : at + 32] for at in range(0, len(hashes), 32))


def bucket_of(entry_name: str) -> int:
    return hashlib.sha256(entry_name.encode()).digest()[0]


def message_of(total: TreeSum) -> types_pb2.TreeTotals:
    return types_pb2.TreeTotals(file_count=total.file_count, total_bytes=total.total_bytes, digest=total.digest_bytes())


def _cut(store: FakeStore, sent: int) -> None:
    limit = store.knobs.cut_after_messages
    if limit is not None and sent >= limit:
        raise store.knobs.cut_with
