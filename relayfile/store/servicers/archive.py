"""Exports as one stream of bytes: a POSIX tar, or a JSON object per line. Pure.

Owns how a file becomes bytes of the stream; what comes when is the export's business. A name in a tar is the path
without its leading slash: a stored path has no `..`, no empty segment and no control character, so that whoever
extracts it stays below the directory it is extracted to. Content that follows in pieces passes through in pieces.
"""

import base64
import tarfile
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec

from relayfile.store.plan.rows import FileRow
from relayfile.v1 import file_pb2

_BLOCK: Final = tarfile.BLOCKSIZE
_MODE: Final = 0o644
_US: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_encode = msgspec.json.Encoder(order="deterministic").encode


class Archive(Protocol):
    """A format."""

    def head(self, row: FileRow) -> bytes:
        """What comes before the content of a file."""
        ...

    def piece(self, data: bytes) -> bytes:
        """A piece of its content, as it stands in the stream."""
        ...

    def tail(self, row: FileRow) -> bytes:
        """What comes after the content."""
        ...

    def end(self) -> bytes:
        """What comes after the last file."""
        ...


class TarArchive:
    """A POSIX (pax) tar."""

    def head(self, row: FileRow) -> bytes:
        info = tarfile.TarInfo(row.path[1:])
        info.size = row.size_bytes
        info.mtime = row.modified_us // _US
        info.mode = _MODE
        return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")

    def piece(self, data: bytes) -> bytes:
        return data

    def tail(self, row: FileRow) -> bytes:
        return bytes(-row.size_bytes % _BLOCK)

    def end(self) -> bytes:
        return bytes(2 * _BLOCK)


class JsonLines:
    """An object per file, its content last, in base64."""

    def __init__(self) -> None:
        self._rest = b""
        """Bytes that wait for a group of three."""

    def head(self, row: FileRow) -> bytes:
        fields: dict[str, object] = {
            "path": row.path,
            "revision": row.revision,
            "content_sha256": row.content_sha256.hex(),
            "size_bytes": row.size_bytes,
            "content_type": row.content_type,
            "provider": row.provider,
            "provider_object_id": row.object_key.removeprefix("o:") if row.object_key.startswith("o:") else "",
            "modify_time": _time(row.modified_us),
            "stale_since": None if row.stale_since_us is None else _time(row.stale_since_us),
            "origin": row.origin.name.lower(),
            "semantics": row.semantics,
        }
        return _encode(fields)[:-1] + b',"content":"'

    def piece(self, data: bytes) -> bytes:
        data = self._rest + data
        whole = len(data) - len(data) % 3
        self._rest = data[whole:]
        return base64.b64encode(data[:whole])

    def tail(self, row: FileRow) -> bytes:
        rest, self._rest = base64.b64encode(self._rest), b""
        return rest + b'"}\n'

    def end(self) -> bytes:
        return b""


def _time(us: int) -> str:
    return (_EPOCH + timedelta(microseconds=us)).isoformat().replace("+00:00", "Z")


def archive_of(format_number: int) -> Archive | None:
    """The archive that an `ExportFormat` names; None for messages of files. `ValueError` for any other number."""
    match format_number:
        case file_pb2.EXPORT_FORMAT_UNSPECIFIED:
            return None
        case file_pb2.EXPORT_FORMAT_TAR:
            return TarArchive()
        case file_pb2.EXPORT_FORMAT_JSON_LINES:
            return JsonLines()
    raise ValueError(format_number)
