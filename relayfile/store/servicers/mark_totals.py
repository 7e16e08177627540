"""What the roots of a watch stream hold, found out beside the stream: events never wait for it.

Owns the one task of a stream that gathers totals of what the caller may read in part, and when a snapshot of the stream
finds out the rest itself.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from relayfile.paths import TreePath
from relayfile.store.access import ReadAccess, Sight, Tree
from relayfile.store.engine import WorkspaceKey
from relayfile.store.servicers.reading import GATHERINGS_MAX, Reading


class MarkTotals:
    """Of one stream; `close` it with the stream."""

    def __init__(
        self, reading: Reading, key: WorkspaceKey, access: ReadAccess, roots: Sequence[TreePath], *, partial: bool
    ) -> None:
        """`partial`: a root that the caller may read in part is described as far as it may."""
        self._reading = reading
        self._key = key
        self._access = access
        self._roots = roots
        self._partial = partial
        self._gathering: asyncio.Task[None] | None = None
        self._gathered_count = 0
        """Since all totals were known."""

    @property
    def is_gathering(self) -> bool:
        """What it gathers will be known soon; `interrupting` tells when."""
        return self._gathering is not None

    async def of(self, sight: Sight, *, has_events: bool) -> Sequence[Tree | None] | None:
        """What each root holds in this snapshot; None in a place: the caller may not read all of it. None instead of
        all: that is being gathered. `has_events`: others of the snapshot wait to be sent."""
        if not self._partial:
            return [await sight.whole_tree(root) for root in self._roots]
        if self._gathering is not None:
            if not self._gathering.done():
                return None
            ended, self._gathering = self._gathering, None
            ended.result()
        totals, turns = self._reading.totals, self._reading.turns
        trees = [await totals.remembered(sight, root) for root in self._roots]
        if None not in trees:
            self._gathered_count = 0
            return trees
        # Commits keep coming in between: what they changed is listed here, at best while no event waits for it.
        if self._gathered_count >= (2 * GATHERINGS_MAX if has_events else GATHERINGS_MAX):
            self._gathered_count = 0
            return [await totals.tree(sight, root, turns) for root in self._roots]
        self._gathered_count += 1
        gathering = self._reading.gather(self._key, self._access, self._roots)
        self._gathering = asyncio.create_task(gathering, name="store-mark-totals")
        return None

    @contextmanager
    def interrupting(self, patience: asyncio.Timeout) -> Iterator[None]:
        """Inside, `patience` ends with what is being gathered."""
        gathering, is_over = self._gathering, False

        def end(_: object) -> None:
            if not is_over and not patience.expired():
                patience.reschedule(0)

        if gathering is not None:
            gathering.add_done_callback(end)
        try:
            yield
        finally:
            is_over = True
            if gathering is not None:
                gathering.remove_done_callback(end)

    async def close(self) -> None:
        """End what is being gathered. What failed in it nobody asks for any more: the stream has its own end."""
        gathering, self._gathering = self._gathering, None
        if gathering is not None:
            gathering.cancel()
            await asyncio.wait((gathering,))
            if not gathering.cancelled():
                gathering.exception()
