"""Bringing a mirror to the store's present revision and proving it: the part of a pull after the first one.

Events from the cursor, a listing when the cursor is of no use, and the digest at the end. Each step can be repeated.
"""

from typing import Final

from relayfile.errors import CursorExpired, Unavailable
from relayfile.syncd.audit import AuditResult, ask, compare
from relayfile.syncd.bring import bring_all
from relayfile.syncd.follow import changes_of
from relayfile.syncd.listing import learn_all
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Phase, Progress

_ROUNDS_MAX: Final = 20


async def catch_up(mirror: OpenMirror, progress: Progress, *, bring: bool = True) -> None:
    """Learn every event after the cursor and (``bring``) put what they tell on disk."""
    progress.phase = Phase.CATCHING_UP
    try:
        async for events, cursor in mirror.feed.events(mirror.journal.cursor):
            changes = changes_of(events, mirror.remote_paths)
            mirror.journal.learn(changes, cursor)
            if bring and changes:
                await bring_all(mirror, progress, {change.path: change for change in changes})
    except CursorExpired:
        await relearn(mirror, progress, bring=bring)
    if bring:
        await bring_all(mirror, progress)


async def relearn(mirror: OpenMirror, progress: Progress, *, bring: bool = True) -> None:
    """List everything, and fetch what differs."""
    progress.phase = Phase.COMPARING
    await learn_all(mirror, progress)
    progress.phase = Phase.FETCHING
    if bring:
        await bring_all(mirror, progress)


async def prove(mirror: OpenMirror, progress: Progress, *, repair: bool) -> AuditResult:
    """Compare with the store at one revision, catching up with it as often as it moves.

    With ``repair`` a difference is listed and fetched, once; without, nothing on disk is touched.
    """
    repaired = False
    for _ in range(_ROUNDS_MAX):
        progress.phase = Phase.AUDITING
        try:
            asked = await ask(mirror)
        except CursorExpired:
            if not repair or repaired:
                raise
            await relearn(mirror, progress)
            repaired = True
            continue
        if asked is None:
            continue
        remote, at = asked
        if at.revision > mirror.journal.cursor.revision:
            await catch_up(mirror, progress, bring=repair)
            continue
        if at.revision < mirror.journal.cursor.revision:
            continue  # told by a node that is behind; it moves on
        result = compare(mirror, remote, at)
        if result.equal or not repair or repaired:
            return result
        await relearn(mirror, progress)
        repaired = True
    raise Unavailable(what="store (it never stood still at one revision)")
