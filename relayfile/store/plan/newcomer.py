"""An upsert of an object that nobody knows, at a path where nothing is: most of what arrives, planned in one pass.

Owns no rule: it does what `relayfile.store.plan.change` does for such a member, without asking what cannot be, at half
the cost. A property test holds it to that. Whatever else a member is goes the usual way.
"""

from hashlib import sha256

from relayfile import paths
from relayfile.model import NO_SEMANTICS, MemberKind, Origin
from relayfile.store.plan.entry import Member
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.rows import NO_PATCH_MARKS, FileRow, ObjectKey, Watermark, made
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.watermark import provider_time

_UPSERT = MemberKind.UPSERT
_BY_PROVIDER = Origin.PROVIDER


def is_candidate(member: Member) -> bool:
    """Whether a member by itself may be one."""
    return (
        member.kind is _UPSERT
        and member.content is not None
        and bool(member.path and member.content_type)
        and not member.operation_id
    )


def place_newcomer(tree: WorkingTree, key: ObjectKey, verdict: Verdict, ingest_id: str) -> bool:
    """Plan the upsert of a candidate whose delivery is not known. False: it is no newcomer, and nothing happened."""
    member = verdict.member
    path, content, loaded, directories = member.path, member.content, tree.loaded, tree.directories
    if key in loaded.objects or path in loaded.files or key in tree.objects or path in tree.files:
        return False
    if content is None or len(content) > tree.limits.content_bytes_max:
        return False
    if paths.check_write_path(path) is not None or path.endswith(paths.ACCESS_MARKER) or directories.is_directory(path):
        return False
    holder = directories.holding(path)
    if not holder.files:
        return False  # nothing lives beside it: what is above may be a file
    room = tree.room
    if room.lacks(1, len(content)) is not None:
        return False
    subject = tree.objects[key] = ObjectDraft(key, None)
    time_us = provider_time(member.occurred_us, member.received_us)
    if time_us is not None:
        subject.provider = made(Watermark, (time_us, time_us, None, NO_PATCH_MARKS))
    else:
        time_us = member.received_us
        subject.received = made(Watermark, (time_us, time_us, None, NO_PATCH_MARKS))
        subject.received_by = ingest_id
    subject.path = path
    subject.changed = True
    subject.effects.append(verdict)
    semantics = member.semantics
    if semantics is not NO_SEMANTICS and not semantics:
        semantics = NO_SEMANTICS
    content_id = tree.add_content(content)
    provider, object_key = key
    tree.files[path] = made(FileRow, (
        path, 0, content_id, sha256(content).digest(), len(content), member.content_type,
        provider, object_key, 0, _BY_PROVIDER, semantics, None,
    ))  # fmt: skip
    tree.touched[path] = verdict
    directories.count(holder, 1)
    room.files += 1
    room.bytes += len(content)
    return True
