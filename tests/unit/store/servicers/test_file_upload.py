"""What uploads hold in memory, and how long: a reservation each, given back however the upload ends."""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from relayfile.errors import DeadlineExpired, InvalidArgument, Overloaded, TooLarge
from relayfile.model import NO_SEMANTICS, Origin, Semantics
from relayfile.store.once import RequestMark
from relayfile.store.plan.file_write import FileResult
from relayfile.store.plan.rows import FileRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.file_upload import FileUpload
from relayfile.v1 import file_pb2, types_pb2

CONTENT_MAX = 100


class Put(NamedTuple):
    content: bytes
    mark: RequestMark | None


class Writing:
    """Stands in for the rest of a write: keeps what comes, when it is let go."""

    content_bytes_max = CONTENT_MAX

    def __init__(self) -> None:
        self.puts: list[Put] = []
        self.go = asyncio.Event()
        self.go.set()

    def checked_head(
        self, checks: Checks, request: file_pb2.WriteFileRequest, prefix: str = ""
    ) -> tuple[str, Semantics | None]:
        return checks.file_path(request.path), None

    async def put(
        self,
        request: file_pb2.WriteFileRequest,
        path: str,
        semantics: Semantics | None,
        content: bytes,
        content_sha256: bytes,
        mark: RequestMark | None,
    ) -> FileResult:
        await self.go.wait()
        self.puts.append(Put(content, mark))
        row = FileRow(path, 1, 1, content_sha256, len(content), "", "", "", 0, Origin.AGENT, NO_SEMANTICS)
        return FileResult(row, 1)


async def messages(
    *chunks: bytes, size: int | None = None, request_id: str = "", silent: bool = False
) -> AsyncIterator[file_pb2.UploadFileRequest]:
    total = sum(map(len, chunks)) if size is None else size
    head = file_pb2.WriteFileRequest(path="/a", request_id=request_id)
    yield file_pb2.UploadFileRequest(head=head, size_bytes=total)
    for chunk in chunks:
        yield file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=chunk))
    if silent:
        await asyncio.Event().wait()


async def test_all_uploads_together_stay_within_the_bound() -> None:
    writing = Writing()
    uploads = FileUpload(writing, bytes_max=150, idle_s=5)
    writing.go.clear()
    first = asyncio.ensure_future(uploads.upload(messages(b"x" * 100)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await uploads.upload(messages(b"y" * 51))
    small = asyncio.ensure_future(uploads.upload(messages(b"y" * 50)))
    await asyncio.sleep(0)
    writing.go.set()
    await asyncio.gather(first, small)
    assert (await uploads.upload(messages(b"z" * 100))).changed


@pytest.mark.parametrize("ending", ["cancelled", "silent", "short"])
async def test_the_room_is_given_back_however_an_upload_ends(ending: str) -> None:
    writing = Writing()
    uploads = FileUpload(writing, bytes_max=100, idle_s=0.001 if ending == "silent" else 5)
    for _ in range(3):
        if ending == "short":
            with pytest.raises(InvalidArgument):
                await uploads.upload(messages(b"x", size=100))
            continue
        upload = asyncio.ensure_future(uploads.upload(messages(b"x", size=100, silent=True)))
        await asyncio.sleep(0)
        if ending == "cancelled":
            upload.cancel()
        with pytest.raises(asyncio.CancelledError if ending == "cancelled" else DeadlineExpired):
            await upload
    assert not writing.puts
    await uploads.upload(messages(b"y" * 100))
    assert [put.content for put in writing.puts] == [b"y" * 100]


async def test_what_is_too_large_reserves_nothing() -> None:
    uploads = FileUpload(Writing(), bytes_max=1, idle_s=5)
    with pytest.raises(TooLarge):
        await uploads.upload(messages(size=CONTENT_MAX + 1))
    await uploads.upload(messages(b"x" * CONTENT_MAX))  # one file always has room


async def test_a_repeat_is_known_however_it_is_cut() -> None:
    writing = Writing()
    uploads = FileUpload(writing, bytes_max=100, idle_s=5)
    for chunks in ((b"12", b"34"), (b"1234",), (b"1", b"", b"234"), (b"1235",)):
        await uploads.upload(messages(*chunks, request_id="r"))
    first, *others = (put.mark for put in writing.puts)
    assert [mark == first for mark in others] == [True, True, False]
