"""UploadFile: a head, then chunks, into one write.

A stream that ends early, or brings more or less than it said, changes nothing.
"""

import hashlib
from collections.abc import AsyncIterator
from typing import Protocol

from relayfile.errors import InvalidArgument, TooLarge
from relayfile.model import Semantics
from relayfile.store.once import RequestMark
from relayfile.store.plan.file_write import FileResult
from relayfile.store.plan.rows import RequestKey
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.incoming import Incoming, check_chunk
from relayfile.store.servicers.wire import fill_file
from relayfile.v1 import file_pb2

_METHOD = "relayfile.v1.FileService/UploadFile"


class Writing(Protocol):
    """The part of a write that an upload shares with `WriteFile`: see `FileWriting`."""

    @property
    def content_bytes_max(self) -> int:
        """Of one file."""
        ...

    def checked_head(
        self, checks: Checks, request: file_pb2.WriteFileRequest, prefix: str = ""
    ) -> tuple[str, Semantics | None]:
        """(normalised path, given semantics); violations are noted, of fields below ``prefix``."""
        ...

    async def put(
        self,
        request: file_pb2.WriteFileRequest,
        path: str,
        semantics: Semantics | None,
        content: bytes,
        content_sha256: bytes,
        mark: RequestMark | None,
    ) -> FileResult:
        """Write the file, durably."""
        ...


class FileUpload:
    """Uploads of one node."""

    def __init__(self, writing: Writing, bytes_max: int, idle_s: float) -> None:
        """`bytes_max`: of all at once; `idle_s`: longest wait for the next chunk."""
        self._writing = writing
        self._incoming = Incoming("uploads", max(bytes_max, writing.content_bytes_max), idle_s)

    async def upload(self, requests: AsyncIterator[file_pb2.UploadFileRequest]) -> file_pb2.UploadFileResponse:
        """One call. `InvalidArgument`, `TooLarge`, `Overloaded`, and whatever a write is refused with."""
        first = await self._incoming.next(requests)
        checks = Checks()
        if first is None or not first.HasField("head"):
            raise InvalidArgument.of("head", "is required in the first message")
        head, size = first.head, first.size_bytes
        path, semantics = self._writing.checked_head(checks, head, "head.")
        checks.require(not head.content, "head.content", "must be empty: the content comes in chunks")
        checks.not_negative(size, "size_bytes")
        checks.done()
        if size > self._writing.content_bytes_max:
            raise TooLarge(what="content", size=size, limit=self._writing.content_bytes_max)
        with self._incoming.reserved(size):
            content, digest = await self._content(first, requests, size)
            result = await self._writing.put(head, path, semantics, content, digest, _mark(head, size, digest))
        answer = file_pb2.UploadFileResponse(changed=result.changed, operation_id=result.operation_id)
        assert result.file is not None, "it was written"
        fill_file(answer.file, result.file)
        return answer

    async def _content(
        self, first: file_pb2.UploadFileRequest, requests: AsyncIterator[file_pb2.UploadFileRequest], size: int
    ) -> tuple[bytes, bytes]:
        """(content, its SHA-256), exactly `size` bytes."""
        content = bytearray()
        digest = hashlib.sha256()
        message: file_pb2.UploadFileRequest | None = first
        is_last = False
        while message is not None:
            if message is not first and message.HasField("head"):
                raise InvalidArgument.of("head", "comes only in the first message")
            if message.HasField("chunk"):
                if is_last:
                    raise InvalidArgument.of("chunk", "comes after the last one")
                data = message.chunk.data
                check_chunk(data)
                if len(content) + len(data) > size:
                    raise InvalidArgument.of("size_bytes", f"is {size}, and more bytes than that came")
                content += data
                digest.update(data)
                is_last = message.chunk.last
            message = await self._incoming.next(requests)
        if len(content) != size:
            raise InvalidArgument.of("size_bytes", f"is {size}, and {len(content)} bytes came")
        return bytes(content), digest.digest()


def _mark(head: file_pb2.WriteFileRequest, size: int, content_sha256: bytes) -> RequestMark | None:
    """Of the whole upload, however it was cut into chunks."""
    if not head.request_id:
        return None
    fingerprint = hashlib.sha256(head.SerializeToString(deterministic=True))
    fingerprint.update(b"%d:" % size + content_sha256)
    return RequestMark(RequestKey(_METHOD, head.request_id), fingerprint.digest())
