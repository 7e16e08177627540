"""Whether the spool takes more (D4, D14): the one place that refuses because of room. Pure.

Today one bound for the whole spool. Every caller names its workspace already, which is what fair shares need.
"""

from collections.abc import Callable

from relayfile.errors import Unavailable

RETRY_AFTER_S = 5.0


class Admission:
    """Bytes that are in the spool or on their way into it."""

    def __init__(self, bytes_max: int, waiting_bytes_max: int, waiting_bytes: Callable[[], int]) -> None:
        """`waiting_bytes` tells what waits in memory for the spool's disk, of callers that gave up waiting too."""
        self.bytes_max = bytes_max
        self.stored_bytes = 0
        """Payloads of the rows that are not finished."""
        self._waiting_bytes_max = waiting_bytes_max
        self._waiting_bytes = waiting_bytes

    def check(self, workspace_id: str, size_bytes: int) -> None:
        """`Unavailable` when so many more bytes are too many. What is taken must wait for the disk at once."""
        del workspace_id  # shares are not bounded yet
        waiting_bytes = self._waiting_bytes()
        if self.stored_bytes + waiting_bytes + size_bytes > self.bytes_max:
            raise Unavailable(what="spool (it is full)", retry_after_s=RETRY_AFTER_S)
        if waiting_bytes and waiting_bytes + size_bytes > self._waiting_bytes_max:
            raise Unavailable(what="spool (its disk is slow)", retry_after_s=RETRY_AFTER_S)
