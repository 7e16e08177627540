"""Where the node's own scrub is, over restarts: a small file beside the database.

Owns the file. It outlives the process. After a power cut it may be an older one, or cannot be read: then it is none and
the scrub begins anew. So it needs no fsync, which would keep the loop.
"""

from pathlib import Path
from typing import Final

import msgspec

FILE_NAME: Final = "scrub.json"


class ScrubPlace(msgspec.Struct, frozen=True):
    """The file up to which contents were looked at, and what was counted until then."""

    shard_id: int
    workspace_id: str
    path: str
    started_us: int
    content_count: int
    content_bytes: int
    finding_count: int


class PlaceFile:
    """Of one node."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME

    def read(self) -> ScrubPlace | None:
        """What was kept last; None: nothing, or nothing that can be read."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=ScrubPlace)
        except (FileNotFoundError, msgspec.DecodeError):
            return None

    def keep(self, place: ScrubPlace) -> None:
        """In the place of what was kept before. `OSError`."""
        written = self._path.with_suffix(".new")
        written.write_bytes(msgspec.json.encode(place))
        written.replace(self._path)

    def forget(self) -> None:
        """The scrub is through. `OSError`."""
        self._path.unlink(missing_ok=True)
