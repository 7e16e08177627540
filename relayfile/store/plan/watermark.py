"""Whether a change is stale against the watermark of its clock, and what a change does to it.

Owns the rules of an object's two watermarks, for one clock at a time: the caller picks the clock (see
`relayfile.watermark.provider_time`), and `slack_us` is how far times of it may be apart before order of arrival stops
counting (0 except between receive times of different processes). Times are microseconds.
"""

from collections.abc import Collection

from relayfile.model import MemberKind
from relayfile.pinned_json import JsonValue
from relayfile.store.plan.rows import NO_PATCH_MARKS, Watermark, made

PATCH_MARKS_MAX = 256
# Compared for every member; a name of the module costs half of an attribute of the enum.
_UPSERT, _DELETE, _PATCH = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH


def is_stale(mark: Watermark, kind: MemberKind, time_us: int, slack_us: int) -> bool:
    """Whether a change of `kind` at `time_us` comes too late.

    A patch is compared with full changes only: for those of other patches see `fresh_part`. The time of a delete beats
    an equal one of an upsert, and of a patch, which would bring the file back as an upsert does.
    """
    seen = mark.full_us if kind is _PATCH else mark.newest_us
    if seen is None:
        return False
    if time_us < seen - slack_us:
        return True
    return time_us == mark.delete_us and (kind is _UPSERT or kind is _PATCH)


def fresh_part(mark: Watermark, patch: dict[str, JsonValue], time_us: int, slack_us: int) -> dict[str, JsonValue]:
    """What no newer patch of the same member has set. Beyond 256 marks the object's time counts."""
    marks = mark.patch_marks
    if not marks:
        return patch
    beyond = mark.newest_us if len(marks) >= PATCH_MARKS_MAX else None
    fresh: dict[str, JsonValue] = {}
    for name, value in patch.items():
        seen = marks.get(name, beyond)
        if seen is None or time_us >= seen - slack_us:
            fresh[name] = value
    return fresh


def advanced(mark: Watermark, kind: MemberKind, time_us: int, *, deletes_beat: bool = False) -> Watermark:
    """`mark` after a change of `kind` that was not stale. `deletes_beat`: remember the time of a delete."""
    newest, full, delete, marks = mark
    if newest is None or time_us > newest:
        newest = time_us
    if kind is _UPSERT or kind is _DELETE:
        if full is None or time_us > full:
            full = time_us
        if deletes_beat and kind is _DELETE and (delete is None or time_us > delete):
            delete = time_us
        if marks:
            # What is not newer than the full change says nothing that the full change does not.
            marks = {name: seen for name, seen in marks.items() if seen > full} or NO_PATCH_MARKS
    return made(Watermark, (newest, full, delete, marks))


def with_patch_marks(mark: Watermark, members: Collection[str], time_us: int) -> Watermark:
    """`mark` after a patch of `members`; those that do not fit are held to the object's time from then on."""
    marks = dict(mark.patch_marks)
    for name in members:
        if name in marks or len(marks) < PATCH_MARKS_MAX:
            marks[name] = max(time_us, marks.get(name, time_us))
    return mark._replace(patch_marks=marks)
