"""The part of the fake store that writes, as the real one must: preconditions, and one effect for each request id."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from relayfile.errors import (
    FileNotFound,
    HistoryMismatch,
    InvalidPath,
    PermissionDenied,
    RelayfileError,
    RequestIdReused,
    RevisionConflict,
    Unavailable,
)
from relayfile.status import code_of
from relayfile.v1 import file_pb2, types_pb2

if TYPE_CHECKING:
    from tests.fakes.store import FakeStore, Knobs

T = TypeVar("T", file_pb2.WriteFilesResponse, file_pb2.UploadFileResponse)


@dataclass
class WriteKnobs:
    """What goes wrong with writes, until it is set back."""

    write_failures: int = 0
    """So many calls that write fail with UNAVAILABLE, before anything is done."""
    lost_answers: int = 0
    """So many calls that write do their work and then fail with UNAVAILABLE."""
    refuse_writes: bool = False
    """The token may write nothing."""
    refused_paths: dict[str, str] = field(default_factory=dict)
    """Path to the reason with which its items are refused."""


@dataclass(frozen=True)
class StoredFile:
    path: str
    revision: int
    content: bytes

    @property
    def sha(self) -> bytes:
        return hashlib.sha256(self.content).digest()

    def meta(self) -> types_pb2.FileMeta:
        return types_pb2.FileMeta(
            path=self.path, revision=self.revision, content_sha256=self.sha, size_bytes=len(self.content)
        )


class Writes:
    """Of one workspace."""

    if TYPE_CHECKING:
        knobs: Knobs
        files: dict[str, StoredFile]
        put: Callable[[str, bytes], int]
        delete: Callable[[str], int]
        move: Callable[[str, str], int]

    def __init__(self) -> None:
        self.requests: dict[str, tuple[bytes, file_pb2.WriteFilesResponse | file_pb2.UploadFileResponse]] = {}
        self.writes: list[file_pb2.WriteFilesItem] = []

    def apply(self, item: file_pb2.WriteFilesItem) -> file_pb2.WriteFilesResult:
        """One item, as the real store's table of preconditions says."""
        self.writes.append(item)
        action = item.WhichOneof("action") or "write"
        path = getattr(item, action).path
        if path in self.knobs.refused_paths:
            reason = self.knobs.refused_paths[path]
            return file_pb2.WriteFilesResult(code=7, reason=reason, message="a knob says so")
        there = self.files.get(path)
        if action == "write" and there is not None and there.content == item.write.content:
            return file_pb2.WriteFilesResult(file=there.meta(), changed=False)
        if there is None and item.if_revision:
            return _failed(FileNotFound(path=path))
        if there is not None and item.if_revision != there.revision:
            return _failed(RevisionConflict(expected=item.if_revision, current=there.revision))
        why = "" if action == "delete" else self._obstacle(item.move.to_path if action == "move" else path)
        if why:
            return _failed(InvalidPath(path=path, why=why))
        if action == "delete":
            self.delete(path)
            return file_pb2.WriteFilesResult(changed=True)
        if action == "move":
            target = self.files.get(item.move.to_path)
            if target is not None:
                return _failed(RevisionConflict(expected=0, current=target.revision))
            self.move(path, item.move.to_path)
            return file_pb2.WriteFilesResult(file=self.files[item.move.to_path].meta(), changed=True)
        self.put(path, item.write.content)
        return file_pb2.WriteFilesResult(file=self.files[path].meta(), changed=True)

    def _obstacle(self, path: str) -> str:
        if any(each.startswith(path + "/") for each in self.files):
            return "is a directory"
        return "lies below a file" if any(path.startswith(each + "/") for each in self.files) else ""


class FileWrites:
    """The RPCs."""

    if TYPE_CHECKING:
        _store: FakeStore

    async def BatchGetFiles(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        store.calls.append("BatchGetFiles")
        found = [store.files[path].meta() for path in request.paths if path in store.files]
        return file_pb2.BatchGetFilesResponse(files=found, revision=store.revision, history_id=store.history_id)

    async def WriteFiles(self, request, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        fingerprint = request.SerializeToString(deterministic=True)

        def write() -> file_pb2.WriteFilesResponse:
            results = [store.apply(item) for item in request.items]
            return file_pb2.WriteFilesResponse(results=results, revision=store.revision)

        return await self._once("WriteFiles", request, fingerprint, write)

    async def UploadFile(self, request_iterator, context):  # type: ignore[no-untyped-def]  # as generated
        store = self._store
        messages = [message async for message in request_iterator]
        head, content = messages[0].head, b"".join(message.chunk.data for message in messages)
        assert len(content) == messages[0].size_bytes
        item = file_pb2.WriteFilesItem(if_revision=head.if_revision)
        item.write.path, item.write.content = head.path, content

        def write() -> file_pb2.UploadFileResponse:
            result = store.apply(item)
            if result.code:
                raise RevisionConflict(expected=item.if_revision, current=result.current_revision)
            return file_pb2.UploadFileResponse(file=result.file, changed=result.changed)

        return await self._once("UploadFile", head, content, write)

    async def _once(
        self,
        call: str,
        request: file_pb2.WriteFilesRequest | file_pb2.WriteFileRequest,
        fingerprint: bytes,
        write: Callable[[], T],
    ) -> T:
        store, request_id = self._store, request.request_id
        store.calls.append(call)
        await store.lag()
        if store.knobs.refuse_writes:
            raise PermissionDenied(why="a knob says so")
        if store.knobs.write_failures:
            store.knobs.write_failures -= 1
            raise Unavailable(what="store (a knob says so)")
        known = store.requests.get(request_id)
        if known is not None and known[0] != fingerprint:
            raise RequestIdReused(request_id=request_id)
        if known is None and request.history_id not in ("", store.history_id):
            raise HistoryMismatch(expected=request.history_id, current=store.history_id)
        answer = write() if known is None else cast("T", known[1])
        store.requests[request_id] = (fingerprint, answer)
        await store.notify()
        if store.knobs.lost_answers:
            store.knobs.lost_answers -= 1
            raise Unavailable(what="store (a knob says so)")
        return answer


def _failed(error: RelayfileError) -> file_pb2.WriteFilesResult:
    current = error.current if isinstance(error, RevisionConflict) else 0
    return file_pb2.WriteFilesResult(
        code=code_of(error).value[0], reason=error.reason, message=str(error), current_revision=current
    )
