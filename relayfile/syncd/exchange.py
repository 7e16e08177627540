"""The end of a pull: local edits go to the store, and what the store says of them is heard."""

import asyncio
from typing import Final

from relayfile.errors import CursorExpired
from relayfile.syncd.bring import bring_all
from relayfile.syncd.catch_up import catch_up
from relayfile.syncd.local import check_held
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.push import Pusher

_ROUNDS_MAX: Final = 5
"""A path over which both sides fight does not keep a pull from its end."""


async def exchange(mirror: OpenMirror, turn: asyncio.Lock, progress: Progress) -> None:
    """With ``turn``, the mirror's: a collision is settled by the event behind it. ``MassDelete`` while deletes wait."""
    check_held(mirror)
    for _ in range(_ROUNDS_MAX):
        try:
            sent = await Pusher(mirror, turn).drain()
        except CursorExpired:
            sent = True  # the store has another history since it was last heard: that is heard of now
        if sent:
            await catch_up(mirror, progress)
        else:
            await bring_all(mirror, progress)  # nothing to hear of, so no round trip for it
        if not mirror.journal.outbox.due(mirror.clock.now_us(), mirror.journal.cursor.revision, 1):
            return
