"""Local changes: a look at each place that somebody told of, and what follows from it.

A hint is only where to look. Each file is observed through directory descriptors, held against what both sides agreed
on and what the store has, and then an edit is queued, or the store's side is fetched, or a problem is listed. Many
deletes at once are held until somebody decides (I4). Refuses to send and to fetch.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from relayfile.errors import InvalidArgument
from relayfile.paths import ancestors
from relayfile.syncd import descriptors, names, safety
from relayfile.syncd.bring import DeletePlan, MassDelete
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import observe
from relayfile.syncd.reconcile import Action, Local, LocalKind, Step, reconcile
from relayfile.syncd.rows import (
    DiskStat,
    Edit,
    Entry,
    EntryState,
    FileRow,
    FileState,
    Problem,
    Settled,
)
from relayfile.syncd.stage import reason_of

_PATHS: Final = 2_000
_HELD_SHOWN: Final = 100
_PLAN_HEX: Final = 32
_ROTTEN: Final = (
    "LOCAL_EDIT_KEPT",
    "The bytes on disk are not what was written, although nothing says that somebody changed them.",
)
_MESSAGES: Final = {
    "FILE_IS_DIRECTORY": "A directory stands where the file belongs; it was left alone.",
    "NOT_A_REGULAR_FILE": "Something that is no regular file has the name on disk; it was left alone.",
    "LOCAL_FILE_IN_THE_WAY": "Another file has the name on disk; it was left alone.",
    "NOT_PUSHED": "The mirror is read-only: the file is in no other place than here.",
}


@dataclass(frozen=True, slots=True)
class _Place:
    """A place to look at, and what is known of it."""

    path: str
    disk_path: str
    row: FileRow | None
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class _Look:
    """What was found: a kind, its stat, or why nobody could look."""

    local: Local
    stat: DiskStat | None = None
    problem: tuple[str, str] | None = None
    has_other_names: bool = False
    """An edited file that has more names than this one: they were edited too, and nobody tells of them."""


@dataclass(slots=True)
class Taken:
    """What local changes came to."""

    edits: list[Edit] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    """Paths of which `bring` has to look at the store's side."""
    settled: list[Settled] = field(default_factory=list)
    touched: list[tuple[str, DiskStat | None]] = field(default_factory=list)
    """As both sides know them; only the stat moved."""
    withdrawn: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notices: list[Problem] = field(default_factory=list)
    """Of files that only the disk has."""
    cleared: list[str] = field(default_factory=list)
    linked: set[tuple[int, int]] = field(default_factory=set)
    """(device, inode) of edited files with several names."""


async def take_local(mirror: OpenMirror, changes: LocalChanges, *, verify: bool = False) -> bool:
    """Look at every place that ``changes`` names, with the mirror's turn; whether `bring` has something to do now.

    ``verify``: do not believe a stat, read. ``check_held`` has to be run afterwards: too many files that are gone are
    held. ``RootLost`` before anything is believed. A gap is for the scan, not for here.
    """
    mirror.root.check()
    paths = sorted({*changes.disk_paths, *(end for move in changes.moves for end in move)})
    pending = False
    linked: set[tuple[int, int]] = set()
    for start in range(0, len(paths), _PATHS):
        taken = await _take(mirror, paths[start : start + _PATHS], verify=verify)
        linked |= taken.linked
        pending = pending or bool(taken.pending)
    others = sorted(set(mirror.journal.places.of_files(linked)) - set(paths)) if linked else []
    for start in range(0, len(others), _PATHS):
        taken = await _take(mirror, others[start : start + _PATHS], verify=verify)
        pending = pending or bool(taken.pending)
    return pending


def check_held(mirror: OpenMirror) -> None:
    """``MassDelete`` while deletes wait for a decision."""
    plan = held_plan(mirror)
    if plan is not None:
        raise MassDelete(plan)


def decide_held(mirror: OpenMirror, plan_id: str, *, restore: bool) -> bool:
    """Send the deletes that wait as ``plan_id``, or (``restore``) have the files fetched again; False: none do."""
    held = held_plan(mirror)
    if held is not None and held.plan_id == plan_id:
        mirror.journal.outbox.release(approved=not restore)
        return True
    if restore:
        raise InvalidArgument.of("decision", "restores deletes from the directory, and none wait")
    return False


def held_plan(mirror: OpenMirror) -> DeletePlan | None:
    """The deletes that wait for a decision, also since before a restart. Made anew of all of them, however many."""
    journal = mirror.journal
    mark = hashlib.sha256()
    sample: list[str] = []
    below: Counter[str] = Counter()
    count = size = 0
    for path, base_hash, base_bytes in journal.outbox.held():
        count, size = count + 1, size + base_bytes
        mark.update(path.encode() + b"\0" + base_hash + b"\0")
        below.update(ancestors(path))
        if len(sample) < _HELD_SHOWN:
            sample.append(path)
    if not count:
        return None
    tracked = sum(total.file_count for total in journal.sums.values())
    emptied = (directory for directory in safety.crowded(below) if not journal.has_local_below(directory))
    rule = safety.refusal(count, tracked, mirror.settings.delete_files_max, emptied) or "OVER_COUNT"
    plan_id = f"missing-{mark.hexdigest()[:_PLAN_HEX]}"
    return DeletePlan(rule, count, size, tracked, tuple(sample), plan_id, from_directory=True)


async def _take(mirror: OpenMirror, disk_paths: Sequence[str], *, verify: bool) -> Taken:
    places = _places(mirror, disk_paths)
    looks = await mirror.writer.run(_look_at, mirror.root.fd, places, verify, mirror.settings.content_bytes_max)
    taken = Taken()
    for place, look in zip(places, looks, strict=True):
        _decide(mirror, place, look, taken)
        if look.has_other_names and look.stat is not None:
            taken.linked.add((look.stat.device, look.stat.inode))
    journal = mirror.journal
    now_us = mirror.clock.now_us()
    with journal.together():
        journal.settle(taken.settled)
        journal.touch(taken.touched)
        journal.outbox.withdraw(taken.withdrawn)
        journal.list_problems(taken.problems)
        journal.problems.add(taken.notices)
        journal.problems.drop(taken.cleared)
        journal.look_again(taken.pending)
        before = journal.outbox.last_sequence()
        journal.outbox.queue(taken.edits, now_us)
        if any(each.content_hash is None for each in taken.edits):
            _hold(mirror, before)
    if taken.edits:
        mirror.rights.edited.set()
    return taken


def _places(mirror: OpenMirror, disk_paths: Iterable[str]) -> list[_Place]:
    wanted = [each for each in disk_paths if not mirror.ignore.covers("/" + each)]
    rows = mirror.journal.places.rows(wanted)
    remote = {disk: rows[disk].path if disk in rows else mirror.journal.places.remote_path(disk) for disk in wanted}
    entries = mirror.journal.outbox.load(remote.values())
    places = []
    for disk, path in remote.items():
        row, entry = rows.get(disk), entries.get(path)
        if row is not None and row.state is FileState.IGNORED:
            continue
        if entry is not None and entry.state is EntryState.SENT:
            continue  # looked at again when its answer is there
        places.append(_Place(path, disk, row, entry))
    return places


def _decide(mirror: OpenMirror, place: _Place, look: _Look, taken: Taken) -> None:
    row, entry = place.row, place.entry
    if look.problem is not None:
        _list(mirror, place, *look.problem, taken)
        return
    if entry is not None and _is_queued(entry, look):
        return
    base = row.disk_hash if row is not None else None
    remote = row.remote_hash if row is not None else None
    ahead = entry is not None and (row is None or entry.known_revision > row.revision)
    if ahead or (entry is not None and entry.state is EntryState.ACKNOWLEDGED):
        remote = base  # the store has what it acknowledged, whatever the events have told so far
    action = reconcile(base, look.local, remote, mirror.rights.mode)
    match action.step:
        case Step.NOTHING:
            if entry is not None or (row is not None and row.disk_stat != look.stat):
                taken.touched.append((place.path, look.stat))
                taken.withdrawn.append(place.path)
        case Step.ADOPT:
            taken.settled.append(Settled(place.path, remote, look.stat))
        case Step.FORGET:
            _forget(place, taken)
        case Step.PUSH if action.conflict is None:
            _push(mirror, place, look, taken)
        case Step.PUSH_DELETE:
            taken.edits.append(Edit(place.path, place.disk_path, None))
        case Step.LIST:
            _list(mirror, place, action.reason, _MESSAGES[action.reason], taken)
        case _:
            _fetch(place, action, taken)


def _is_queued(entry: Entry, look: _Look) -> bool:
    """The outbox knows exactly this."""
    if entry.state is EntryState.ACKNOWLEDGED:
        return False
    if entry.content_hash is None:
        return look.local.kind is LocalKind.ABSENT
    same = entry.disk_stat is not None and entry.disk_stat == look.stat
    # Two writes within one tick of the file system's clock leave the same stat.
    return same and look.local.content_hash in (None, entry.content_hash)


def _push(mirror: OpenMirror, place: _Place, look: _Look, taken: Taken) -> None:
    assert look.stat is not None, place
    why = names.refusal(place.path)
    if why is not None:
        _list(mirror, place, "PUSH_REFUSED", f"The name {why}; rename the file.", taken)
    elif mirror.journal.root_of(place.path) is None:
        _list(mirror, place, "NOT_PUSHED", "The file lies in no part of the workspace that is mirrored.", taken)
    elif look.stat.size > mirror.settings.content_bytes_max:
        limit = mirror.settings.content_bytes_max
        _list(mirror, place, "PUSH_REFUSED", f"TOO_LARGE: it has {look.stat.size} bytes, of at most {limit}.", taken)
    else:
        taken.edits.append(Edit(place.path, place.disk_path, look.local.content_hash, look.stat))


def _forget(place: _Place, taken: Taken) -> None:
    if place.row is not None and place.row.disk_hash is not None:
        taken.settled.append(Settled(place.path, None))
    elif place.entry is not None:
        taken.withdrawn.append(place.path)
    elif place.row is None:
        taken.cleared.append(place.disk_path)


def _fetch(place: _Place, action: Action, taken: Taken) -> None:
    assert place.row is not None, f"{action} of a file that nobody knows: {place}"
    if names.refusal(place.path) is None:
        taken.pending.append(place.path)


def _list(mirror: OpenMirror, place: _Place, reason: str, message: str, taken: Taken) -> None:
    path = place.path if place.row is not None else place.disk_path  # what only the disk has, has no remote path
    problem = Problem(path, reason, message, place.row.revision if place.row else 0, mirror.clock.now_us())
    if place.row is None:
        taken.notices.append(problem)
    else:
        taken.withdrawn.append(place.path)
        taken.problems.append(problem)


def _hold(mirror: OpenMirror, before: int) -> None:
    """Hold the deletes that are not sent yet, when they are too many to be believed; ``before``: the newest ones.

    What comes while others are held joins them, uncounted: of a large tree each batch would count all before it.
    """
    outbox = mirror.journal.outbox
    if outbox.holds():
        outbox.hold(each.path for each in outbox.unsent_deletes(before))
        return
    deletes = outbox.unsent_deletes()
    if not deletes:
        return
    journal = mirror.journal
    tracked = sum(total.file_count for total in journal.sums.values())
    asked = safety.directories_to_ask(each.path for each in deletes)
    emptied = (directory for directory in asked if not journal.has_local_below(directory))
    if safety.refusal(len(deletes), tracked, mirror.settings.delete_files_max, emptied) is not None:
        outbox.hold(each.path for each in deletes)


def _look_at(root_fd: int, places: Sequence[_Place], verify: bool, bytes_max: int) -> list[_Look]:
    with Directories(root_fd) as directories:
        return [_look(directories, place, bytes_max, verify=verify) for place in places]


def _look(directories: Directories, place: _Place, bytes_max: int, *, verify: bool) -> _Look:
    parent, name = split(place.disk_path)
    row = place.row
    try:
        directory = directories.get(parent)
    except (FileNotFoundError, NotADirectoryError):
        return _Look(Local(LocalKind.ABSENT))
    except OSError as error:
        return _Look(Local(LocalKind.SPECIAL), problem=reason_of(error))
    try:
        written = row.disk_stat if row is not None and not verify else None
        local, stat = observe(directory, name, written, row.disk_hash if row is not None else None, bytes_max)
        if verify and row is not None and stat == row.disk_stat and local.content_hash != row.disk_hash:
            return _Look(local, stat, _ROTTEN)
        has_other_names = local.kind is LocalKind.FILE and descriptors.names_count(directory, name) > 1
    except FileNotFoundError:
        return _Look(Local(LocalKind.ABSENT))  # it went between two looks
    except OSError as error:
        return _Look(Local(LocalKind.SPECIAL), problem=reason_of(error))
    return _Look(local, stat, has_other_names=has_other_names)
