"""Wakes whoever waits for operations: workers for something to claim, watchers for changes, the keeper for times.

Owns no data: who is woken reads the rows. Told after every commit that wrote operations.
"""

from collections.abc import Callable
from itertools import count

from relayfile.store.watch import RevisionFeed

ANYWHERE = ""
"""Waits for any workspace of the node."""


class OperationFeed:
    """Ticks of the workspaces whose operations changed last. Of one event loop."""

    def __init__(self) -> None:
        self.on_change: Callable[[str], None] = lambda _workspace_id: None
        """Told each workspace whose operations were written."""
        self._ticks = count(1)
        self._feed = RevisionFeed()

    def now(self, workspace_id: str) -> int:
        """The latest tick; take it before reading the rows."""
        return self._feed.newest(workspace_id)

    def tell(self, workspace_id: str) -> None:
        """Operations of the workspace were written."""
        tick = next(self._ticks)
        self._feed.tell(workspace_id, tick)
        self._feed.tell(ANYWHERE, tick)
        self.on_change(workspace_id)

    async def wait(self, workspace_id: str, after_tick: int) -> None:
        """Return when there was a tick after `after_tick`; at once when there has been."""
        await self._feed.wait(workspace_id, after_tick)
