"""Which rows an entry needs, in rounds: what a round asks for follows from the entry and the rounds before.

Owns the promise to the planner: whatever path or object its members can touch, in whatever order, is in the slice. An
engine answers `first_needs`, then `more_needs` until it is empty, all in one snapshot; three rounds are the most, and
an entry that only edits files with known objects is served by one.
"""

from relayfile.model import MemberKind, Outcome
from relayfile.paths import ROOT, ancestors
from relayfile.store.plan.change import target_path
from relayfile.store.plan.entry import WITHOUT_OBJECT, Entry, Fold, Member
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.rows import DeliveryKey, DuplicateKey, ObjectKey, duplicate_key, made
from relayfile.store.plan.slice import Needs, Slice


def first_needs(entry: Entry) -> Needs:
    """What the entry itself names."""
    needs = Needs()
    deliveries, files, directories = needs.deliveries, needs.files, needs.directories
    for provider, change_key, members, _, _ in entry.folds:
        for member in members:
            deliveries.add(made(DeliveryKey, (provider, member.delivery_id, change_key)))
            path = member.path
            if path:
                files.add(path)
                if (path[: path.rfind("/")] or ROOT) not in directories:
                    directories.update(ancestors(path))
        if not change_key.startswith(WITHOUT_OBJECT):
            needs.objects.add(made(ObjectKey, (provider, change_key)))
    return needs


def more_needs(entry: Entry, loaded: Slice) -> Needs:
    """What follows from what was loaded; empty when everything is there. Never asks for the same key twice."""
    wanted = Needs()
    if loaded.complete:
        return wanted
    if loaded.workspace is not None and loaded.workspace.deleted_us is None:
        for fold in entry.folds:
            if not fold.change_key.startswith(WITHOUT_OBJECT):
                _object_needs(fold, loaded, wanted)
    if loaded.deliveries:
        for fold in entry.folds:
            _duplicate_needs(fold, loaded, wanted)
    asked = loaded.asked
    for name in ("duplicates", "objects", "files", "directories", "contents"):
        new: set[object] = getattr(wanted, name)
        old: set[object] = getattr(asked, name)
        new -= old
        old |= new
    # Nothing follows from the rest: only a path that was told just now has a file whose directories are not known.
    loaded.complete = not wanted.files
    return wanted


def _duplicate_needs(fold: Fold, loaded: Slice, wanted: Needs) -> None:
    for member in fold.members:
        key = DeliveryKey(fold.provider, member.delivery_id, fold.change_key)
        known = loaded.deliveries.get(key)
        if known is not None and known[0] != member.envelope_id:
            wanted.duplicates.add(duplicate_key(member.envelope_id, key))
            wanted.duplicates.add(DuplicateKey(member.envelope_id, member.change_index))


def _object_needs(fold: Fold, loaded: Slice, wanted: Needs) -> None:
    key = made(ObjectKey, fold[:2])
    row = loaded.objects.get(key)
    own = None if row is None else row.path
    patches = False
    for member in fold.members:
        if member.kind is MemberKind.PATCH and not _is_final(fold, member, loaded):
            patches = True
        if member.path:
            _site_needs(key, member.path, loaded, wanted)
        else:
            # An earlier change of the entry may leave the object without its path.
            _named_later(target_path(ObjectDraft(key, None), member), key, loaded, wanted)
    if own is not None:
        _named_later(own, key, loaded, wanted)
    if patches:
        unknown = ObjectDraft(key, None)
        for path in {own, *(target_path(unknown, member) for member in fold.members)}:
            file = None if path is None else loaded.files.get(path)
            if file is not None and (not file.object_key or (file.provider, file.object_key) == key):
                wanted.contents.add(file.content_id)


def _is_final(fold: Fold, member: Member, loaded: Slice) -> bool:
    known = loaded.deliveries.get(DeliveryKey(fold.provider, member.delivery_id, fold.change_key))
    return known is not None and known[1] is not Outcome.DEAD_LETTERED


def _named_later(path: str, key: ObjectKey, loaded: Slice, wanted: Needs) -> None:
    """A path that only the first round told."""
    if path in loaded.files or path in loaded.asked.files:
        _site_needs(key, path, loaded, wanted)
    else:
        wanted.files.add(path)
        wanted.directories.update(ancestors(path))


def _site_needs(key: ObjectKey, path: str, loaded: Slice, wanted: Needs) -> None:
    """What may be in the way of a file at `path`, whose row (or its absence) and directories are known."""
    file = loaded.files.get(path)
    if file is not None:
        if file.object_key and (file.object_key != key.key or file.provider != key.provider):
            wanted.objects.add(ObjectKey(file.provider, file.object_key))
        return
    wanted.directories.add(path)
    directories = loaded.directories
    above = path[: path.rfind("/")]
    while above and above not in directories:
        wanted.files.add(above)
        above = above[: above.rfind("/")]
