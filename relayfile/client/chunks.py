"""Content that came in chunks, put back behind its file."""

from collections.abc import Iterator, Sequence

from relayfile.client.values import Content
from relayfile.client.wire import file_of
from relayfile.errors import DataCorrupted
from relayfile.v1 import file_pb2, types_pb2

CHUNK_BYTES = 1 << 20


class Joiner:
    """Of one stream. Holds at most one file's content."""

    def __init__(self) -> None:
        self._head: types_pb2.FileMeta | None = None
        self._size = 0
        self._pieces = bytearray()

    def take(
        self, files: Sequence[file_pb2.FileWithContent], chunk: types_pb2.ContentChunk | None
    ) -> Iterator[Content]:
        """The files that are complete with this message."""
        if chunk is not None:
            if self._head is None:
                raise DataCorrupted(what="the store sent content that belongs to no file")
            self._pieces += chunk.data
            if len(self._pieces) > self._size or (chunk.last and len(self._pieces) != self._size):
                raise DataCorrupted(what=f"the store sent another length of {self._head.path!r} than it said")
            if chunk.last:
                yield Content(file_of(self._head), bytes(self._pieces))
                self._head, self._pieces = None, bytearray()
        for each in files:
            if self._head is not None:
                raise DataCorrupted(what=f"the store sent only a part of {self._head.path!r}")
            if each.content_follows_bytes:
                self._head, self._size = each.file, each.content_follows_bytes
            else:
                yield Content(file_of(each.file), each.content)


def pieces(content: bytes) -> Iterator[types_pb2.ContentChunk]:
    """`content` in chunks, the last one marked; one empty chunk for no content."""
    last = max(0, (len(content) - 1) // CHUNK_BYTES * CHUNK_BYTES)
    for start in range(0, last + 1, CHUNK_BYTES):
        yield types_pb2.ContentChunk(data=content[start : start + CHUNK_BYTES], last=start == last)
