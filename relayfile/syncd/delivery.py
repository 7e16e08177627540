"""How edits are put to the store: batches, uploads, and the question what it has. The sending half of `feed`.

Owns the calls and what their answers mean for one edit each. Refuses to retry: its user keeps what is to be sent again.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

import grpc
import grpc.aio

from relayfile.errors import CursorExpired, DataCorrupted, FileNotFound, HistoryMismatch, RevisionConflict
from relayfile.status import code_of, from_rpc_error
from relayfile.syncd.rows import EditKind, Entry
from relayfile.v1 import file_pb2, types_pb2
from relayfile.v1.file_pb2_grpc import FileServiceStub

ITEMS_MAX: Final = 1_000
CONTENT_BYTES_MAX: Final = 1 << 20
"""Of all items of a request; a larger file is uploaded."""
_CHUNK_BYTES: Final = 1 << 20
_UPLOAD_BYTES_PER_S: Final = 256 * 1024
"""The slowest link on which an upload is still expected to end."""
_OK: Final = 0


class Outcome(Enum):
    """How the store took an edit."""

    TAKEN = auto()
    COLLIDED = auto()
    """The file is not at the revision that the edit changes."""
    REFUSED = auto()


@dataclass(frozen=True, slots=True)
class Answer:
    """To one edit."""

    outcome: Outcome
    revision: int
    """At which the store's events tell everything that the answer speaks of; of a file that was written, its own."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Edits that go out together, with the bytes of those that write."""

    request_id: str
    entries: Sequence[Entry]
    contents: Sequence[bytes]
    history_id: str
    """Of the revisions that the entries change."""

    @property
    def is_upload(self) -> bool:
        """One file that is too large for a message."""
        return len(self.contents[0]) > CONTENT_BYTES_MAX


_REFUSALS: Final = frozenset({grpc.StatusCode.INVALID_ARGUMENT})
"""Of an upload: what is said of the file, not of the call."""


class Delivery:
    """To one workspace, as one caller."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        workspace_id: str,
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        call_timeout_s: float,
    ) -> None:
        self._workspace_id = workspace_id
        self._files = FileServiceStub(channel)
        self._metadata = metadata
        self._timeout_s = call_timeout_s

    async def deliver(self, parcel: Parcel) -> list[Answer]:
        """An answer to each entry, in order. An error concerns all of them, and nothing is known of any.

        ``CursorExpired`` when the store has another history: then none of them was done.
        """
        try:
            return await (self._upload(parcel) if parcel.is_upload else self._write(parcel))
        except (grpc.aio.AioRpcError, HistoryMismatch) as raised:
            error = from_rpc_error(raised) if isinstance(raised, grpc.aio.AioRpcError) else raised
            if isinstance(error, HistoryMismatch):
                raise CursorExpired(history_id=error.current, oldest=0) from raised
            raise error from raised

    async def held(self, paths: Sequence[str], history_id: str) -> tuple[dict[str, types_pb2.FileMeta], int]:
        """What the store has at these paths, and at which revision of the workspace.

        ``CursorExpired`` when that is a revision of another history.
        """
        request = file_pb2.BatchGetFilesRequest(workspace_id=self._workspace_id, paths=paths)
        try:
            answer = await self._files.BatchGetFiles(request, metadata=self._metadata(), timeout=self._timeout_s)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        if answer.history_id != history_id:
            raise CursorExpired(history_id=answer.history_id, oldest=0)
        return {file.path: file for file in answer.files}, answer.revision

    async def _write(self, parcel: Parcel) -> list[Answer]:
        request = file_pb2.WriteFilesRequest(
            workspace_id=self._workspace_id, request_id=parcel.request_id, history_id=parcel.history_id
        )
        for entry, content in zip(parcel.entries, parcel.contents, strict=True):
            if entry.kind is EditKind.MOVED_AWAY:
                continue  # told by the move itself
            item = request.items.add(if_revision=entry.if_revision)
            if entry.kind is EditKind.WRITE:
                item.write.path = entry.path
                item.write.content = content
            elif entry.kind is EditKind.DELETE:
                item.delete.path = entry.path
            else:
                item.move.path, item.move.to_path = entry.from_path, entry.path
                item.if_revision = next(each.if_revision for each in parcel.entries if each.path == entry.from_path)
        response = await self._files.WriteFiles(request, metadata=self._metadata(), timeout=self._timeout_s)
        sent = [entry for entry in parcel.entries if entry.kind is not EditKind.MOVED_AWAY]
        if len(response.results) != len(sent):
            raise DataCorrupted(what="the store's answer to edits, which does not speak of each of them")
        answers = {
            entry.path: _answer(entry, result, response.revision)
            for entry, result in zip(sent, response.results, strict=True)
        }
        moved = {entry.from_path: answers[entry.path] for entry in sent if entry.kind is EditKind.MOVE}
        return [answers.get(entry.path) or moved[entry.path] for entry in parcel.entries]

    async def _upload(self, parcel: Parcel) -> list[Answer]:
        [entry], [content] = parcel.entries, parcel.contents
        head = file_pb2.WriteFileRequest(
            workspace_id=self._workspace_id,
            path=entry.path,
            if_revision=entry.if_revision,
            request_id=parcel.request_id,
            history_id=parcel.history_id,
        )
        timeout_s = self._timeout_s + len(content) / _UPLOAD_BYTES_PER_S
        try:
            answer = await self._files.UploadFile(_chunks(head, content), metadata=self._metadata(), timeout=timeout_s)
        except grpc.aio.AioRpcError as raised:
            error = from_rpc_error(raised)
            if isinstance(error, RevisionConflict | FileNotFound):
                current = error.current if isinstance(error, RevisionConflict) else 0
                return [Answer(Outcome.COLLIDED, current, error.reason, str(error))]
            if code_of(error) in _REFUSALS:
                return [Answer(Outcome.REFUSED, 0, error.reason, str(error))]
            raise error from raised
        return [Answer(Outcome.TAKEN, answer.file.revision)]


def _answer(entry: Entry, result: file_pb2.WriteFilesResult, revision: int) -> Answer:
    if result.code == _OK and entry.kind is EditKind.WRITE and result.file.content_sha256 != entry.content_hash:
        return Answer(Outcome.COLLIDED, max(revision, result.file.revision), RevisionConflict.reason, "it took others")
    if result.code == _OK:
        return Answer(Outcome.TAKEN, result.file.revision if result.HasField("file") else revision)
    if result.reason == FileNotFound.reason and entry.kind is EditKind.DELETE:
        return Answer(Outcome.TAKEN, revision)
    if result.reason in (FileNotFound.reason, RevisionConflict.reason):
        return Answer(Outcome.COLLIDED, max(revision, result.current_revision), result.reason, result.message)
    return Answer(Outcome.REFUSED, revision, result.reason, result.message)


async def _chunks(head: file_pb2.WriteFileRequest, content: bytes) -> AsyncIterator[file_pb2.UploadFileRequest]:
    for start in range(0, len(content), _CHUNK_BYTES):
        last = start + _CHUNK_BYTES >= len(content)
        chunk = types_pb2.ContentChunk(data=content[start : start + _CHUNK_BYTES], last=last)
        if start:
            yield file_pb2.UploadFileRequest(chunk=chunk)
        else:
            yield file_pb2.UploadFileRequest(head=head, size_bytes=len(content), chunk=chunk)
