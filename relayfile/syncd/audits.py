"""Audits of a mirror that follows: at marks, in cycles, and the full pull where those are of no use.

Decisions are `cadence`'s; this carries them out, with the mirror's turn, and tells what became of them.
"""

from relayfile.errors import CursorExpired, PermissionDenied, RelayfileError, ServedLater
from relayfile.settings import SyncdSettings
from relayfile.syncd.audit import AuditResult, retry
from relayfile.syncd.bring import bring_all
from relayfile.syncd.cadence import Cadence, Policy, Step, due
from relayfile.syncd.catch_up import descend, prove, relearn
from relayfile.syncd.display import Display
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.shown import Audited, Differing
from relayfile.telemetry import get_logger

_log = get_logger(__name__)


def policy_of(settings: SyncdSettings) -> Policy:
    """How often, by the settings."""
    return Policy(settings.mount_audit_every, settings.mount_full_pull_every, settings.mount_full_pull_max_files)


async def audit_if_due(mirror: OpenMirror, cadence: Cadence, progress: Progress) -> Audited | None:
    """A cycle has passed: what is due by now, and its result; None when nothing was, or no digest could be had."""
    cadence.cycle()
    tracked = sum(total.file_count for total in mirror.journal.sums.values())
    step = due(policy_of(mirror.settings), cadence, tracked)
    if step is Step.NOTHING:
        return None
    mirror.rights.refused = False  # the token may have been given what it lacked: the next edit asks
    started_us, started, sent_before = mirror.clock.now_us(), mirror.clock.monotonic(), progress.wire_bytes
    if step is Step.FULL_PULL:
        _log.warning("a full pull is due", mirror=mirror.root.marker.mirror_id, files=tracked)
        cadence.pulled_fully()
        await relearn(mirror, progress, everything=True)
        mirror.journal.pulled(now_us=mirror.clock.now_us(), full=True)
    try:
        result = await prove(mirror, progress, repair=True)
    except (ServedLater, PermissionDenied) as error:
        cadence.without_digest()
        _log.warning("the store gives no digest", mirror=mirror.root.marker.mirror_id, why=str(error))
        return None
    cadence.audited(equal=result.equal)
    _count(mirror, result)
    return Audited(result, started_us, mirror.clock.monotonic() - started, progress.wire_bytes - sent_before)


async def audit(
    mirror: OpenMirror, progress: Progress, *, repair: bool, paths_max: int
) -> tuple[AuditResult, Differing]:
    """Find what differs, and with ``repair`` bring it; the result is of afterwards. Else nothing on disk is touched."""
    try:
        result = await prove(mirror, progress, repair=False)
    except CursorExpired:
        if not repair:
            raise
        await relearn(mirror, progress, bring=False, expired=True)
        result = await prove(mirror, progress, repair=False)
    if not result.equal and repair:
        await relearn(mirror, progress, bring=False)
    elif not result.equal:
        await descend(mirror, progress)  # who only looks has nothing listed
    count, paths = mirror.journal.differing(paths_max)
    left = count
    if repair and (await retry(mirror) or count or not result.equal):
        await bring_all(mirror, progress)
        result = await prove(mirror, progress, repair=True)
        left, _ = mirror.journal.differing(0)
    return result, Differing(count, max(0, count - left), tuple(paths))


async def repair_at_mark(mirror: OpenMirror, cadence: Cadence, result: AuditResult) -> None:
    """A mark was compared: find and fetch what differs, unless that was just tried."""
    _count(mirror, result)
    now = mirror.clock.monotonic()
    if result.equal or now < cadence.repair_not_before:
        return
    cadence.repair_not_before = now + mirror.settings.mount_interval_s * mirror.settings.mount_audit_every
    _log.warning("digest differs at a mark", mirror=mirror.root.marker.mirror_id, revision=result.at.revision)
    await relearn(mirror, Progress(now))


async def judge(mirror: OpenMirror, display: Display, *, follows: bool) -> None:
    """After somebody's decision: what is shown is of afterwards, also where no mark will come to tell.

    Who follows hears the next mark. Else the store is asked when the journal has moved on since it last was; when it
    does not say, that is shown, and what was compared stays what is known of its revision.
    """
    display.rejudge(mirror, decided=True)
    if follows or display.compared_here(mirror):
        return
    started_us, progress = mirror.clock.now_us(), Progress(mirror.clock.monotonic())
    try:
        result = await prove(mirror, progress, repair=False)
    except RelayfileError as error:
        display.failed(error)
        return
    took_s = mirror.clock.monotonic() - progress.started
    display.audited(Audited(result, started_us, took_s, progress.wire_bytes))


def _count(mirror: OpenMirror, result: AuditResult) -> None:
    mirror.instruments.audits_total.labels(result="equal" if result.equal else "different").inc()
