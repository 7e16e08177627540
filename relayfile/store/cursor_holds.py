"""Which events readers still need (D16): cursors of open streams, and of streams that closed less than an hour ago.

Owns cursors in memory only: after a restart of the node readers are back before anything expires. Bounded: of closed
streams only as many as matter, which is few, since one that closed later at an older cursor stands for all before it.
"""

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from relayfile.clock import Clock
from relayfile.store.engine import WorkspaceKey

CLOSED_S: Final = 3_600.0
CLOSED_PER_WORKSPACE_MAX: Final = 16
"""More are taken together: the newer time with the older cursor."""


class Hold:
    """One open stream. Its reader moves the cursor on."""

    __slots__ = ("cursor", "key")

    def __init__(self, key: WorkspaceKey, cursor: int) -> None:
        self.key = key
        self.cursor = cursor


class _Closed(NamedTuple):
    closed_at: float
    cursor: int


class CursorHolds:
    """The cursors of one node's streams."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._open: set[Hold] = set()
        self._closed: dict[WorkspaceKey, deque[_Closed]] = {}

    def open(self, key: WorkspaceKey, cursor: int) -> Hold:
        """A stream begins at `cursor`."""
        hold = Hold(key, cursor)
        self._open.add(hold)
        return hold

    def close(self, hold: Hold) -> None:
        """The stream ended; its reader may come back."""
        self._open.discard(hold)
        closed = self._closed.setdefault(hold.key, deque())
        cursor = hold.cursor
        # Sooner closed and not further back: nothing that this one does not keep for longer.
        while closed and (closed[-1].cursor >= cursor or len(closed) >= CLOSED_PER_WORKSPACE_MAX):
            cursor = min(cursor, closed.pop().cursor)
        closed.append(_Closed(self._clock.monotonic(), cursor))

    def open_counts(self) -> Counter[WorkspaceKey]:
        """How many streams of each workspace are open."""
        return Counter(hold.key for hold in self._open)

    def oldest(self) -> Mapping[WorkspaceKey, int]:
        """The oldest cursor of each workspace that has any. Forgets what closed too long ago."""
        found: dict[WorkspaceKey, int] = {}
        long_ago = self._clock.monotonic() - CLOSED_S
        for key, closed in list(self._closed.items()):
            while closed and closed[0].closed_at <= long_ago:
                closed.popleft()
            if closed:
                found[key] = closed[0].cursor  # cursors ascend: an older one behind it would have taken its place
            else:
                del self._closed[key]
        for hold in self._open:
            found[hold.key] = min(hold.cursor, found.get(hold.key, hold.cursor))
        return found
