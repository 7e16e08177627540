"""Files with their content, packed into messages of about 1 MiB.

Owns what goes into one message: as many files as fit, a large one last with its content announced, then its chunks.
Reads whole contents inside of the snapshot that listed them; the chunks of a large content are read one by one outside
of any snapshot, by the key of the content, so that all are of one revision. Replaced content stays readable for a
minute; a reader slower than that gets `RevisionConflict`.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from relayfile.errors import DataCorrupted, RevisionConflict
from relayfile.store.engine import Engine, TreeView, WorkspaceKey
from relayfile.store.plan.rows import FileRow
from relayfile.store.servicers.wire import fill_file
from relayfile.v1 import file_pb2, types_pb2

CHUNK_BYTES_MAX = 1 << 20
INLINE_BYTES_MAX = 512 << 10
"""A larger content follows in chunks."""
ROWS_MIN = 16
ROWS_MAX = 1_024
_FILE_BYTES = 150
"""A file's metadata without its path and semantics, generously."""

Files = Sequence[FileRow | None]


class Known(Protocol):
    """Hashes of contents that need not be sent."""

    def __contains__(self, content_sha256: bytes, /) -> bool: ...


@dataclass(slots=True)
class Packed:
    """What one message will carry. `rows` are the first of the rows that were offered."""

    rows: list[FileRow | None]
    contents: dict[int, bytes]
    large: FileRow | None
    """The last row, when its content follows in chunks."""


class RowsPerMessage:
    """How many rows to look up for the next message: learned from the one before, so that few are read twice."""

    def __init__(self) -> None:
        self.limit = ROWS_MIN * 4

    def learn(self, packed: int) -> None:
        """`packed` rows fitted."""
        self.limit = max(ROWS_MIN, min(ROWS_MAX, packed * 2))


async def pack(view: TreeView, rows: Files, known: Known, bytes_target: int) -> Packed:
    """The first of `rows` that fill a message, with their contents, except of those whose hash is `known`."""
    total = 0
    wanted: list[int] = []
    large = None
    count = 0
    for row in rows:
        if total >= bytes_target or large is not None:
            break
        count += 1
        if row is None:
            total += _FILE_BYTES
            continue
        total += len(row.path) + _FILE_BYTES
        if row.content_sha256 in known:
            continue
        if row.size_bytes > INLINE_BYTES_MAX:
            large = row
        elif row.size_bytes:
            total += row.size_bytes
            wanted.append(row.content_id)
    contents = await view.contents(wanted) if wanted else {}
    return Packed(list(rows[:count]), contents, large)


def fill_packed(into: file_pb2.FileWithContent, row: FileRow, packed: Packed, known: Known) -> None:
    """One file of `packed`."""
    fill_file(into.file, row)
    if row.content_sha256 in known:
        into.content_known = True
    elif row is packed.large:
        into.content_follows_bytes = row.size_bytes
    elif row.size_bytes:
        into.content = content_of(row, packed)


def content_of(row: FileRow, packed: Packed) -> bytes:
    """The bytes of one file of `packed` that is not large."""
    if not row.size_bytes:
        return b""
    content = packed.contents.get(row.content_id)
    if content is None or len(content) != row.size_bytes:
        raise DataCorrupted(what=f"the content of {row.path!r}")
    return content


async def chunks(
    engine: Engine, key: WorkspaceKey, row: FileRow, start: int = 0, end: int | None = None
) -> AsyncIterator[types_pb2.ContentChunk]:
    """The bytes `start` to `end` of a content; nothing for an empty range."""
    stop = row.size_bytes if end is None else min(end, row.size_bytes)
    offset = start
    while offset < stop:
        data = await engine.content_chunk(key, row.content_id, offset, min(CHUNK_BYTES_MAX, stop - offset))
        if data is None:
            raise RevisionConflict(expected=row.revision, current=await _revision_now(engine, key, row.path))
        if not data:
            raise DataCorrupted(what=f"the content of {row.path!r}")
        offset += len(data)
        yield types_pb2.ContentChunk(data=data, last=offset >= stop)


async def _revision_now(engine: Engine, key: WorkspaceKey, path: str) -> int:
    async with engine.view(key) as view:
        row = await view.file(path)
    return 0 if row is None else row.revision
