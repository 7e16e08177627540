"""Whether the spool takes more (D4, D14): the one place that refuses because of room. Pure.

Today one bound for the whole spool. Every caller names its workspace already, which is what fair shares need.
"""

from relayfile.errors import Unavailable

RETRY_AFTER_S = 5.0


class Admission:
    """Bytes that are in the spool or on their way into it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.stored_bytes = 0
        """Payloads of the rows that are not finished."""
        self._entering_bytes = 0

    def enter(self, workspace_id: str, size_bytes: int) -> None:
        """Reserve room, until `leave` with the same figures. `Unavailable` when the spool is full."""
        del workspace_id  # shares are not bounded yet
        if self.stored_bytes + self._entering_bytes + size_bytes > self.bytes_max:
            raise Unavailable(what="spool (it is full)", retry_after_s=RETRY_AFTER_S)
        self._entering_bytes += size_bytes

    def leave(self, workspace_id: str, size_bytes: int) -> None:
        """The bytes were stored, and are counted as such, or were refused."""
        del workspace_id
        self._entering_bytes -= size_bytes
