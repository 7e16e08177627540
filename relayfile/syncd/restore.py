"""Putting files from the trash back where people want them.

What stands in the way stays, unless it is told to go: then it goes to the trash itself, listed there before it moves.
A restored file is an edit like any other. Nothing is replaced, nothing is followed, nothing leaves the root (I2).
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from relayfile.paths import check_write_path
from relayfile.syncd import descriptors, names
from relayfile.syncd.apply import Trashed
from relayfile.syncd.descriptors import Directories, split
from relayfile.syncd.names import suffixed
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.place import observe
from relayfile.syncd.reconcile import LocalKind
from relayfile.syncd.root import Root
from relayfile.syncd.rows import DiskStat, TrashReason
from relayfile.syncd.stage import reason_of
from relayfile.syncd.strays import take_in_trash
from relayfile.syncd.trash import TrashEntry


@dataclass(frozen=True, slots=True)
class Restored:
    """How one entry ended: where it is, or why it is still in the trash."""

    trash_id: str
    disk_path: str = ""
    failure: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _InTheWay:
    """A regular file that has the name."""

    trashed: Trashed
    stat: DiskStat


async def restore(mirror: OpenMirror, trash_ids: Sequence[str], directory: str, *, overwrite: bool) -> list[Restored]:
    """With the mirror's turn. ``directory`` is relative to the root; empty: where each was."""
    mirror.root.check()
    entries = mirror.journal.trash.load(trash_ids)
    targets = {each.trash_id: _target(each, directory) for each in entries.values()}
    in_the_way: dict[str, _InTheWay] = {}
    if overwrite:
        in_the_way = await _make_way(mirror, targets.values())
    ended = await mirror.writer.run(_put_back, mirror.root, entries, targets, in_the_way)
    done = [each.trash_id for each in ended.values() if each.failure is None]
    mirror.journal.trash.forget(done)
    if in_the_way:  # listed, and moved or not: the list agrees with the directory again
        await take_in_trash(mirror)
    missing = ("TRASH_NOT_FOUND", "There is no such entry in the trash, or no longer.")
    return [ended.get(each, Restored(each, failure=missing)) for each in trash_ids]


def _target(entry: TrashEntry, directory: str) -> str:
    was = entry.disk_path or entry.name
    return f"{directory}/{was}" if directory else was


async def _make_way(mirror: OpenMirror, targets: Iterable[str]) -> dict[str, _InTheWay]:
    """Regular files at the targets, listed in the trash before they move there: a kill between loses nobody's bytes."""
    rows = mirror.journal.load([f"/{target}" for target in targets])
    known = {path[1:]: row.disk_hash for path, row in rows.items() if row.disk_hash is not None}
    found = await mirror.writer.run(_look, mirror.root, sorted(set(targets)), known)
    in_the_way = {
        target: replace(each, trashed=_named(each.trashed, mirror.ids.new_id())) for target, each in found.items()
    }
    mirror.journal.trash.add([each.trashed for each in in_the_way.values()], mirror.clock.now_us())
    return in_the_way


def _named(trashed: Trashed, trash_id: str) -> Trashed:
    return replace(trashed, trash_id=trash_id, name=suffixed(split(trashed.disk_path)[1], trash_id))


def _look(root: Root, targets: Sequence[str], known: Mapping[str, bytes]) -> dict[str, _InTheWay]:
    found: dict[str, _InTheWay] = {}
    with Directories(root.fd) as directories:
        for target in targets:
            parent, name = split(target)
            try:
                local, seen = observe(directories.get(parent), name, None, None)
            except OSError:
                continue  # told when it is tried
            if local.kind is LocalKind.FILE and seen is not None and local.content_hash is not None:
                acknowledged = known.get(target) == local.content_hash
                trashed = Trashed(
                    "",
                    "",
                    f"/{target}",
                    target,
                    local.content_hash,
                    seen.size,
                    0,
                    TrashReason.OVERWRITTEN,
                    acknowledged,
                )
                found[target] = _InTheWay(trashed, seen)
    return found


def _put_back(
    root: Root, entries: Mapping[str, TrashEntry], targets: Mapping[str, str], in_the_way: Mapping[str, _InTheWay]
) -> dict[str, Restored]:
    ended: dict[str, Restored] = {}
    touched: set[str] = set()
    with Directories(root.fd) as directories:
        for trash_id, entry in entries.items():
            target = targets[trash_id]
            failure = _refusal(target)
            if failure is None:
                try:
                    failure = _move(root, directories, entry, target, in_the_way.get(target))
                except OSError as error:
                    failure = reason_of(error)
            ended[trash_id] = Restored(trash_id, "" if failure else target, failure)
            if failure is None:
                touched.add(split(target)[0])
        for parent in sorted(touched):
            os.fsync(directories.get(parent))
    os.fsync(root.trash_fd)
    return ended


def _refusal(target: str) -> tuple[str, str] | None:
    why = check_write_path("/" + target)
    if why is not None:
        return "NAME_REFUSED", f"The name {why}."
    if names.is_ignored("/" + target):
        return "NAME_REFUSED", "A mirror keeps out of that directory."
    return None


def _move(
    root: Root, directories: Directories, entry: TrashEntry, target: str, in_the_way: _InTheWay | None
) -> tuple[str, str] | None:
    parent, name = split(target)
    directory = directories.make(parent)
    if in_the_way is not None:
        kept = in_the_way.trashed.name
        descriptors.move_if_absent(directory, name, root.trash_fd, kept)
        out = descriptors.look(root.trash_fd, kept)
        if out is None or not descriptors.stat_of(out).same_file(in_the_way.stat):
            descriptors.move_if_absent(root.trash_fd, kept, directory, name)
            return "FILE_IN_THE_WAY", "A file that is being changed has the name; try again."
    try:
        descriptors.move_if_absent(root.trash_fd, entry.name, directory, name)
    except FileExistsError:
        return "FILE_IN_THE_WAY", "Something has the name; overwrite it, or restore into another directory."
    except FileNotFoundError:
        return "TRASH_NOT_FOUND", "The file is no longer in the trash."
    return None
