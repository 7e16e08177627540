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


async def follow_disk(
    mirror: OpenMirror,
    turn: asyncio.Lock,
    take: Callable[[OpenMirror, LocalChanges], Awaitable[object]],
    swept: Callable[[], None],
) -> None:
    """Hand every settled change to ``take``, with the turn; ``swept`` hears of each look at the whole directory.

    Ends only with an error: the disk's, the journal's, ``RootLost``, or what ``take`` raises. Where there are no
    watches, the directory is looked at every ``RELAYFILE_MOUNT_INTERVAL``.
    """
    interval_s = mirror.settings.mount_interval_s
    async with Watcher(mirror.root.fd, mirror.ignore, mirror.clock, interval_s) as watcher:
        while True:
            changes = await watcher.next()
            tell_exhausted(mirror, watcher.exhausted)
            async with aclosing(resolved(mirror, changes)) as news:
                async for each in news:
                    async with turn:
                        await take(mirror, each)
            if changes.gap:
                swept()


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
