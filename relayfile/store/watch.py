"""Wakes whoever waits for a workspace's next revision.

Owns no data: readers read the log, this only tells them when. Refuses to queue anything, so that a slow reader costs
nothing: it is woken once and finds all that happened meanwhile in the log.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from relayfile.store.engine import PlannedEntry

REMEMBERED_MAX: Final = 100_000
"""Workspaces whose newest revision is remembered: those that moved last. Who waits reads the log first and needs only
what was told since; in between no more than these can have moved."""


class RevisionFeed:
    """The newest committed revisions of the workspaces that moved last. Of one event loop."""

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        self.on_operations: Callable[[str], None] = lambda _workspace_id: None
        """Told each workspace whose operations were written; they take no revision of their own."""
        self.on_commit: Callable[[PlannedEntry, int, int], None] = lambda _entry, _changes, _bytes: None
        """Told each committed entry with the changes and the bytes that came for it."""
        self._remembered_max = remembered_max
        self._newest: OrderedDict[str, int] = OrderedDict()
        self._waiting: dict[str, dict[asyncio.Future[int], int]] = {}
        """Who waits, and after which revision."""

    def newest(self, workspace_id: str) -> int:
        """The newest revision told; 0 when none was of late."""
        return self._newest.get(workspace_id, 0)

    def tell(self, workspace_id: str, revision: int) -> None:
        """`revision` is durable and visible. Wakes all who wait for a later one than theirs."""
        newest = self._newest
        newest[workspace_id] = revision
        newest.move_to_end(workspace_id)
        if len(newest) > self._remembered_max:
            newest.popitem(last=False)
        waiting = self._waiting.pop(workspace_id, None)
        if waiting is None:
            return
        patient: dict[asyncio.Future[int], int] = {}
        for future, after in waiting.items():
            if after >= revision:
                patient[future] = after
            elif not future.done():
                future.set_result(revision)
        if patient:
            self._waiting[workspace_id] = patient

    def forget(self, workspace_id: str) -> None:
        """The workspace is deleted: all who wait for it look again, and its name may be used anew one day."""
        newest = self._newest.pop(workspace_id, 0)
        for future in self._waiting.pop(workspace_id, ()):
            if not future.done():
                future.set_result(newest)

    async def wait(self, workspace_id: str, after_revision: int) -> int:
        """Return the newest revision as soon as it is greater than `after_revision`. Cancel it to give up."""
        newest = self._newest.get(workspace_id, 0)
        if newest > after_revision:
            return newest
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(workspace_id, {})[future] = after_revision
        try:
            return await future
        finally:
            if not future.done() or future.cancelled():
                self._forget(workspace_id, future)

    def _forget(self, workspace_id: str, future: asyncio.Future[int]) -> None:
        waiting = self._waiting.get(workspace_id)
        if waiting is not None and waiting.pop(future, None) is not None and not waiting:
            del self._waiting[workspace_id]
