"""Bringing a mirror to the store's present revision and proving it: the part of a pull after the first one.

Events from the cursor, a listing when the cursor is of no use, and the digest at the end. Each step can be repeated.
"""

from typing import Final

from relayfile.errors import CursorExpired, PermissionDenied, ServedLater, Unavailable
from relayfile.syncd.audit import AuditResult, ask, compare
from relayfile.syncd.bring import bring_all
from relayfile.syncd.descent import Descent, TooDifferent
from relayfile.syncd.follow import changes_of, tells_of_access
from relayfile.syncd.listing import learn_all
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Phase, Progress
from relayfile.syncd.refused_writes import learn_refusals

_ROUNDS_MAX: Final = 20


async def catch_up(mirror: OpenMirror, progress: Progress, *, bring: bool = True) -> None:
    """Learn every event after the cursor and (``bring``) put what they tell on disk."""
    progress.phase = Phase.CATCHING_UP
    access_changed = False
    try:
        async for events, cursor in mirror.feed.events(mirror.journal.cursor):
            progress.wire_bytes += sum(event.ByteSize() for event in events)
            await learn_refusals(mirror, events)
            access_changed = access_changed or tells_of_access(events, mirror.remote_paths)
            changes = changes_of(events, mirror.remote_paths)
            mirror.journal.learn(changes, cursor)
            if bring and changes:
                await bring_all(mirror, progress, {change.path: change for change in changes})
    except CursorExpired as error:
        _heed(mirror, error)
        await relearn(mirror, progress, bring=bring, expired=True)
    if access_changed:
        await relearn(mirror, progress, bring=bring, access_changed=True)
    if bring:
        await bring_all(mirror, progress)


def _heed(mirror: OpenMirror, expired: CursorExpired) -> None:
    """Edits on their way to a store that has another history now are on their way to another store."""
    if expired.history_id != mirror.journal.cursor.history_id:
        mirror.journal.outbox.other_history()


async def relearn(
    mirror: OpenMirror,
    progress: Progress,
    *,
    bring: bool = True,
    expired: bool = False,
    everything: bool = False,
    access_changed: bool = False,
) -> None:
    """Find what differs, and (``bring``) fetch it: down the digests, or by a listing of ``everything``.

    ``expired``: the cursor is of no use; it then stands where the comparison began. ``access_changed``: what is gone is
    what may not be read any more.
    """
    progress.phase = Phase.COMPARING
    if everything or not await descend(mirror, progress, expired=expired, access_changed=access_changed):
        await learn_all(mirror, progress)
    progress.phase = Phase.FETCHING
    if bring:
        await bring_all(mirror, progress)


async def descend(
    mirror: OpenMirror, progress: Progress, *, expired: bool = False, access_changed: bool = False
) -> bool:
    """Learn what differs. False when digests do not lead there, or not with less trouble than a listing.

    Nor do they where the store has another history, of which every file's revision is to be learned.
    """
    descent = Descent(mirror, progress, access_changed=access_changed)
    try:
        await descent.run()
    except (TooDifferent, ServedLater, PermissionDenied):
        return False
    begun = descent.begun
    assert begun is not None, "a mirror has a remote path"
    if begun.history_id != mirror.journal.cursor.history_id:
        # Of equal files the numbers are the lost history's: one that the store gives anew would let an edit replace
        # what nobody here has seen. Only a listing tells them all.
        mirror.journal.outbox.other_history()
        return False
    if expired:
        mirror.journal.move_cursor(begun)  # the events since then are learned again
    return True


async def prove(mirror: OpenMirror, progress: Progress, *, repair: bool) -> AuditResult:
    """Compare with the store at one revision, catching up with it as often as it moves.

    With ``repair`` what differs is found and fetched, once; without, nothing on disk is touched.
    """
    repaired = False
    for _ in range(_ROUNDS_MAX):
        progress.phase = Phase.AUDITING
        try:
            asked = await ask(mirror, progress)
        except CursorExpired as error:
            if not repair or repaired:
                raise
            _heed(mirror, error)
            await relearn(mirror, progress, expired=True)
            repaired = True
            continue
        if asked is None:
            continue
        remote, at, partial = asked
        if at.revision > mirror.journal.cursor.revision:
            await catch_up(mirror, progress, bring=repair)
            continue
        if at.revision < mirror.journal.cursor.revision:
            continue  # told by a node that is behind; it moves on
        result = compare(mirror, remote, at, partial)
        if result.equal or not repair or repaired:
            return result
        await relearn(mirror, progress)
        repaired = True
    raise Unavailable(what="store (it never stood still at one revision)")
