"""What happens in a mirror's directory, for ever: the watcher's news resolved and handed on, gaps scanned.

The counterpart of `follow.py`. Lists as a problem that the kernel has no watches left, until they are back.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.rows import Problem
from relayfile.syncd.scan import resolved
from relayfile.syncd.watch import Watcher

WATCHES_EXHAUSTED = "WATCHES_EXHAUSTED"


class DiskFeed:
    """The watcher of one mirror, kept while the store comes and goes: what happens meanwhile is told afterwards.

    ``close`` it before the mirror's directory is let go.
    """

    def __init__(self) -> None:
        self._watcher: Watcher | None = None
        self._mirror: OpenMirror | None = None

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None

    async def follow(
        self,
        mirror: OpenMirror,
        turn: asyncio.Lock,
        take: Callable[[OpenMirror, LocalChanges], Awaitable[object]],
        swept: Callable[[], None],
    ) -> None:
        """Hand every settled change to ``take``, with the turn; ``swept`` hears of each look at the whole directory.

        Ends only with an error: the disk's, the journal's, ``RootLost``, or what ``take`` raises; what was under way
        then is told again by a gap. Where there are no watches, the directory is looked at every
        ``RELAYFILE_MOUNT_INTERVAL``.
        """
        watcher = self._watching(mirror)
        while True:
            changes = await watcher.next()
            try:
                tell_exhausted(mirror, watcher.exhausted)
                async with aclosing(resolved(mirror, changes)) as news:
                    async for each in news:
                        async with turn:
                            await take(mirror, each)
            except BaseException:
                watcher.lost()
                raise
            if changes.gap:
                swept()

    def _watching(self, mirror: OpenMirror) -> Watcher:
        if self._watcher is None or self._mirror is not mirror:
            self.close()
            self._mirror = mirror
            self._watcher = Watcher(mirror.root.fd, mirror.ignore, mirror.clock, mirror.settings.mount_interval_s)
        return self._watcher


def tell_exhausted(mirror: OpenMirror, why: str) -> None:
    """List that there are not enough watches, or (empty) take it off the list."""
    problems = mirror.journal.problems
    (first,) = problems.listed(1) or [Problem("", "", "")]
    listed = first.path == "" and first.reason == WATCHES_EXHAUSTED
    if why and not listed:
        message = (
            f"The system gives no more file watches ({why}): the directory is looked at now and then instead, and "
            "edits are seen later. Raise fs.inotify.max_user_watches and max_user_instances, or ignore directories."
        )
        mirror.journal.list_problems([Problem("", WATCHES_EXHAUSTED, message, 0, mirror.clock.now_us())])
    elif listed and not why:
        problems.gone([""])
