"""What one change does to its object and to the working tree.

Owns the rules for a single member that is new to the shard. Each ends in one of three ways: an outcome is set on its
verdict, a failure is set on it (a dead letter), or it is added to its object's effects, whose outcomes are known when
the whole entry is.
"""

from hashlib import sha256
from typing import NamedTuple

from relayfile import pinned_json
from relayfile.model import NO_SEMANTICS, Failure, MemberKind, Origin, Outcome
from relayfile.pinned_json import JsonValue, NotJson, TooLong
from relayfile.store.plan.entry import Member
from relayfile.store.plan.identity import ObjectDraft, default_path
from relayfile.store.plan.patch import patched
from relayfile.store.plan.rows import NO_WATERMARK, FileRow, ObjectKey, Watermark, made
from relayfile.store.plan.rules import is_marker
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.watermark import advanced, fresh_part, is_stale, with_patch_marks
from relayfile.store.plan.working_tree import ELIDED, WorkingTree
from relayfile.watermark import provider_time

JSON_TYPE = "application/json"
_MERGE_PATCH_TYPE = "application/merge-patch+json"
_UNKNOWN_TYPE = "application/octet-stream"
# Read for every member; a name of the module costs half of an attribute of the enum.
_UPSERT, _DELETE, _PATCH = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH
_BY_PROVIDER = Origin.PROVIDER
_JSON_SPACE = b" \t\r\n"
_JSON_STARTS = frozenset(bytes([start]) for start in b'{["-0123456789tfn')


class Age(NamedTuple):
    """When a change happened, on the clock that counts for it."""

    time_us: int
    by_provider: bool
    mark: Watermark
    """Of its object, on the same clock."""
    slack_us: int
    ingest_id: str


class NewFile(NamedTuple):
    """What a change wants its object's file to be."""

    content: bytes | None
    """None: it was elided."""
    content_type: str
    stale_since_us: int | None


def apply_member(
    tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, ingest_id: str, *, replay: bool = False
) -> None:
    """Plan one upsert, delete, patch or signal of `subject`. A `replay` came long ago, whatever came in between."""
    member = verdict.member
    age = age_of(tree, subject, member, ingest_id, replay=replay)
    if is_refused(subject, verdict, age):
        return
    if member.kind is _UPSERT:
        _upsert(tree, subject, verdict, age)
    elif member.kind is _DELETE:
        delete_file(tree, subject, verdict, age)
    elif member.kind is _PATCH:
        _patch(tree, subject, verdict, age)
    else:
        _signal(tree, subject, verdict, age)


def is_refused(subject: ObjectDraft, verdict: Verdict, age: Age) -> bool:
    """Whether the member is stale or at a path that no provider writes; then its verdict says so."""
    member = verdict.member
    if age.mark is not NO_WATERMARK and is_stale(age.mark, member.kind, age.time_us, age.slack_us):
        verdict.outcome = Outcome.STALE
        return True
    return is_refused_there(subject, verdict)


def is_refused_there(subject: ObjectDraft, verdict: Verdict) -> bool:
    """Whether the member is at a path that no provider writes, also where an agent moved the object's file there; then
    its verdict says so."""
    if is_marker(verdict.member.path) or (subject.path is not None and is_marker(subject.path)):
        verdict.failure = Failure("ACL_PATH_REFUSED", "Access rules are set through the file API, not by a provider.")
        return True
    return False


def age_of(tree: WorkingTree, subject: ObjectDraft, member: Member, ingest_id: str, *, replay: bool) -> Age:
    time_us = provider_time(member.occurred_us, member.received_us)
    if time_us is not None:
        return made(Age, (time_us, True, subject.provider, 0, ingest_id))
    slack_us = 0 if replay or ingest_id == subject.received_by else tree.limits.clock_skew_max_us
    return made(Age, (member.received_us, False, subject.received, slack_us, ingest_id))


def advance(subject: ObjectDraft, age: Age, mark: Watermark) -> None:
    if mark == age.mark:
        return
    subject.changed = True
    if age.by_provider:
        subject.provider = mark
    else:
        if mark.newest_us != age.mark.newest_us:
            subject.received_by = age.ingest_id
        subject.received = mark


def _upsert(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age) -> None:
    member = verdict.member
    new = made(NewFile, (member.content, member.content_type or media_type(member.content), None))
    if put_file(tree, subject, verdict, age, new):
        subject.signalled, subject.answered = False, True
        advance(subject, age, advanced(age.mark, _UPSERT, age.time_us))


def delete_file(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age) -> None:
    file = tree.own_file(subject)
    if file is None:
        verdict.outcome = Outcome.UNCHANGED
    else:
        tree.set_file(file.path, None, verdict)
        subject.effects.append(verdict)
    if not subject.deleted or subject.path is not None:
        subject.path, subject.deleted, subject.changed = None, True, True
    subject.signalled, subject.answered = False, True
    advance(subject, age, advanced(age.mark, _DELETE, age.time_us, deletes_beat=age.by_provider))


def _signal(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age) -> None:
    file = tree.own_file(subject)
    if file is not None and file.stale_since_us is None:
        tree.set_file(file.path, file._replace(stale_since_us=verdict.member.received_us), verdict)
    # The operation of kind `fetch` is made, or folded into, where settling sees an object that is still signalled.
    subject.signalled = tree.is_signalled = True
    subject.effects.append(verdict)
    advance(subject, age, advanced(age.mark, MemberKind.SIGNAL, age.time_us))


def _patch(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age) -> None:
    member = verdict.member
    base = _patch_base(tree, subject, member)
    if member.content is None or (base is not None and base.content_id == ELIDED):
        # Whether it can be merged, and so whether it moves its object, only the contents tell.
        subject.undecided = True
        return
    try:
        patch = pinned_json.read(member.content)
    except NotJson as error:
        verdict.failure = not_json("The patch", error)
        return
    if not isinstance(patch, dict):
        _replace_whole(tree, subject, verdict, age, patch)
        return
    fresh = fresh_part(age.mark, patch, age.time_us, age.slack_us)
    if patch and not fresh:
        verdict.outcome = Outcome.STALE
        return
    try:
        new = _patched_file(tree, base, member, fresh)
    except NotJson as error:
        verdict.failure = not_json("The file's content", error)
        return
    if put_file(tree, subject, verdict, age, new):
        mark = advanced(age.mark, _PATCH, age.time_us)
        advance(subject, age, with_patch_marks(mark, fresh, age.time_us))


def _replace_whole(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age, value: JsonValue) -> None:
    """A patch that is no object replaces everything (RFC 7386), and so is as old or new as an upsert."""
    if is_stale(age.mark, _UPSERT, age.time_us, age.slack_us):
        verdict.outcome = Outcome.STALE
        return
    try:
        content = pinned_json.write(value, tree.limits.content_bytes_max)
    except NotJson as error:
        verdict.failure = not_json("The patch", error)
        return
    if put_file(tree, subject, verdict, age, NewFile(content, JSON_TYPE, None)):
        advance(subject, age, advanced(age.mark, _UPSERT, age.time_us))


def media_type(content: bytes | None) -> str:
    """Of a content that came without: JSON when it is, else nothing is known of it."""
    if not content or content.lstrip(_JSON_SPACE)[:1] not in _JSON_STARTS:
        return _UNKNOWN_TYPE
    try:
        pinned_json.read(content)
    except NotJson:
        return _UNKNOWN_TYPE
    return JSON_TYPE


def too_large(tree: WorkingTree, size_bytes: int) -> Failure:
    """The content of one file is over the limit."""
    return Failure("TOO_LARGE", f"The content has {size_bytes} bytes; {tree.limits.content_bytes_max} are allowed.")


def not_json(what: str, error: NotJson) -> Failure:
    return Failure("TOO_LARGE" if isinstance(error, TooLong) else "NOT_JSON", f"{what} {error}"[:500])


def _patch_base(tree: WorkingTree, subject: ObjectDraft, member: Member) -> FileRow | None:
    """The file that a patch is merged into: the object's, else one without an object at its path."""
    own = tree.own_file(subject)
    if own is not None:
        return own
    there = tree.file(target_path(subject, member))
    return there if there is not None and not there.object_key else None


def _patched_file(tree: WorkingTree, base: FileRow | None, member: Member, patch: dict[str, JsonValue]) -> NewFile:
    most = tree.limits.content_bytes_max
    if base is not None:
        return NewFile(patched(tree.content(base.content_id), patch, most), base.content_type, base.stale_since_us)
    return NewFile(patched(None, patch, most), patched_type(member), None)


def patched_type(member: Member) -> str:
    """The media type of a file that a patch makes out of nothing."""
    given = member.content_type
    return JSON_TYPE if not given or given == _MERGE_PATCH_TYPE else given


def target_path(subject: ObjectDraft, member: Member) -> str:
    """Where `member` wants the object's file to be."""
    if member.path:
        return member.path
    return subject.path or default_path(subject.key.provider, member.provider_object_id or subject.key.key[2:])


def put_file(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age, new: NewFile) -> bool:
    """Make `new` the object's file at the member's path; False: it was refused, and the verdict says how."""
    member = verdict.member
    own = tree.own_file(subject)
    path = target_path(subject, member)
    holder: ObjectDraft | None = None
    if own is not None and own.path == path:
        there: FileRow | None = own
    else:
        failure = tree.obstacle(path, None if own is None else own.path)
        if failure is not None:
            verdict.failure = failure
            return False
        there = tree.file(path)
        if there is not None and there.object_key and not subject.owns(there):
            holder = tree.object(ObjectKey(there.provider, there.object_key))
            if subject.displaced_from == path and not _newer_than_holder(age, holder):
                verdict.outcome = Outcome.STALE
                return False
    size_bytes = 0 if new.content is None else len(new.content)
    if size_bytes > tree.limits.content_bytes_max:
        verdict.failure = too_large(tree, size_bytes)
        return False
    if (full := _full(tree, size_bytes, own, there)) is not None:
        verdict.failure = full
        return False
    _place(tree, subject, verdict, new, made(Site, (path, own, there, holder)))
    return True


def _full(tree: WorkingTree, size_bytes: int, own: FileRow | None, there: FileRow | None) -> Failure | None:
    """Why the workspace has no room for the object's file where `there` stands now, or None."""
    replaced = {id(row): row for row in (own, there) if row is not None}
    growth = size_bytes - sum(row.size_bytes for row in replaced.values())
    lacks = tree.room.lacks(1 - len(replaced), growth)
    return None if lacks is None else Failure(lacks.reason, str(lacks))


class Site(NamedTuple):
    """A path that an object's file may take, and what stands there."""

    path: str
    own: FileRow | None
    """The object's file, there or elsewhere."""
    there: FileRow | None
    holder: ObjectDraft | None
    """Another object that the path is bound to."""


def _newer_than_holder(age: Age, holder: ObjectDraft) -> bool:
    seen = holder.provider.newest_us
    return age.by_provider and seen is not None and age.time_us > seen


def _place(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, new: NewFile, site: Site) -> None:
    path, own, there, holder = site
    base = there if own is None else own
    content = new.content
    content_sha256 = b"" if content is None else sha256(content).digest()
    semantics = verdict.member.semantics
    if semantics is NO_SEMANTICS or not semantics:
        semantics = NO_SEMANTICS if base is None else base.semantics
    same = (
        there is not None
        and there.content_sha256 == content_sha256
        and content is not None
        and there.content_type == new.content_type
        and (there.semantics is semantics or there.semantics == semantics)
    )
    moved = own is not None and own.path != path
    if same and not moved:
        verdict.outcome = Outcome.UNCHANGED
    else:
        subject.effects.append(verdict)
    if same and there is own and own is not None and own.stale_since_us == new.stale_since_us:
        return
    if content is None:
        content_id = ELIDED
    elif base is not None and base.content_sha256 == content_sha256:
        content_id = base.content_id
        tree.know_content(content_id, content)
    else:
        content_id = tree.add_content(content)
    if holder is not None:
        tree.displace(holder)
    if own is not None and moved:
        tree.set_file(own.path, None, verdict)
    provider, object_key = subject.key
    row = made(FileRow, (
        path, 0, content_id, content_sha256, 0 if content is None else len(content), new.content_type,
        provider, object_key, 0, _BY_PROVIDER, semantics, new.stale_since_us,
    ))  # fmt: skip
    tree.set_file(path, row, verdict)
    if subject.path != path or subject.deleted or subject.displaced_from is not None:
        subject.path, subject.deleted, subject.displaced_from, subject.changed = path, False, None, True
