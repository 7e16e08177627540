"""The media type of a file that came without one, by the end of its name.

One small table, the same on every machine; the system's own tables differ.
"""

from collections.abc import Mapping
from typing import Final

UNKNOWN: Final = "application/octet-stream"

_BY_ENDING: Final[Mapping[str, str]] = {
    "avif": "image/avif",
    "bmp": "image/bmp",
    "css": "text/css",
    "csv": "text/csv",
    "diff": "text/x-diff",
    "gif": "image/gif",
    "gz": "application/gzip",
    "htm": "text/html",
    "html": "text/html",
    "ico": "image/vnd.microsoft.icon",
    "ics": "text/calendar",
    "jpeg": "image/jpeg",
    "jpg": "image/jpeg",
    "js": "text/javascript",
    "json": "application/json",
    "jsonl": "application/x-ndjson",
    "log": "text/plain",
    "md": "text/markdown",
    "mp3": "audio/mpeg",
    "mp4": "video/mp4",
    "ndjson": "application/x-ndjson",
    "patch": "text/x-diff",
    "pdf": "application/pdf",
    "png": "image/png",
    "py": "text/x-python",
    "svg": "image/svg+xml",
    "tar": "application/x-tar",
    "toml": "application/toml",
    "tsv": "text/tab-separated-values",
    "txt": "text/plain",
    "wasm": "application/wasm",
    "webp": "image/webp",
    "xml": "application/xml",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "zip": "application/zip",
}


def of_path(path: str) -> str:
    """The media type by the ending of the last segment, whatever its case."""
    name = path[path.rfind("/") + 1 :]
    _, dot, ending = name.rpartition(".")
    return _BY_ENDING.get(ending.lower(), UNKNOWN) if dot else UNKNOWN
