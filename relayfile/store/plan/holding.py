"""A provider's change of an object whose edits are still on their way: echoes are suppressed, news is held.

Owns what is held: the provider's latest version, into which later changes fold as they would into a file. It is
counted `applied`, because it is durable, and becomes a revision when the object's edits have ended
(`relayfile.store.plan.release`). Of an object without edits a change is applied at once. Also what signals and
upserts mean for fetches.
"""

from collections.abc import Callable, Iterable
from hashlib import sha256

from relayfile import pinned_json
from relayfile.model import MemberKind, Outcome
from relayfile.pinned_json import NotJson
from relayfile.store.plan.change import (
    JSON_TYPE,
    Age,
    advance,
    age_of,
    apply_member,
    is_refused,
    media_type,
    not_json,
    patched_type,
    target_path,
    too_large,
)
from relayfile.store.plan.entry import Member
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.patch import patched
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import FileRow
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.watermark import advanced, fresh_part, is_stale, with_patch_marks
from relayfile.store.plan.working_tree import ELIDED, WorkingTree
from relayfile.store.plan.writeback.echo import is_echo
from relayfile.store.plan.writeback.edits import cancel_fetch, new_fetch, queue_fetch
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import HeldChange, OperationRow, OperationState

_UPSERT, _DELETE, _PATCH = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH
ON_THE_WAY = frozenset({OperationState.PENDING, OperationState.CLAIMED})


def is_awaited(rows: Iterable[OperationRow]) -> bool:
    """Whether one of an object's operations is an edit on its way: what its provider says meanwhile is held."""
    return any(is_edit(row) and row.state in ON_THE_WAY for row in rows)


def hold_or_apply(
    tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, ingest_id: str, *, replay: bool = False
) -> None:
    """Plan one upsert, delete, patch or signal of `subject`."""
    operations = tree.loaded.operations
    rows = operations.rows.get(subject.key, ()) if operations.rows or operations.held else ()
    held = held_of(tree, subject)
    if not rows and held is None:
        apply_member(tree, subject, verdict, ingest_id, replay=replay)
        return
    member = verdict.member
    if is_echo(member, rows, tree.now_us, tree.limits.writeback.suppression_us):
        verdict.outcome = Outcome.SUPPRESSED
        age = age_of(tree, subject, member, ingest_id, replay=replay)
        advance(subject, age, advanced(age.mark, member.kind, age.time_us, deletes_beat=age.by_provider))
    elif member.kind is not MemberKind.SIGNAL and (
        # An edit that was taken back or quarantined leaves what it held behind: newer news must not be before it.
        held is not None or is_awaited(rows)
    ):
        hold(tree, subject, verdict, ingest_id, replay=replay)
    else:
        apply_member(tree, subject, verdict, ingest_id, replay=replay)


def settle_operations(tree: WorkingTree, plan: Plan, new_id: Callable[[], str]) -> None:
    """What the entry's changes do to operations: fetches that signals make and upserts end, and what is held."""
    loaded = tree.loaded.operations
    rows = [row for rows in loaded.rows.values() for row in rows]
    queue = OperationQueue(rows, tree.limits.writeback, tree.now_us, new_id)
    for subject in tree.objects.values():
        if subject.held is not None:
            queue.hold(subject.held, loaded.held.get(subject.key))
        if subject.signalled:
            _fetch(tree, queue, subject)
        elif subject.answered:
            cancel_fetch(queue, subject.key)
    queue.settle(plan)


def _fetch(tree: WorkingTree, queue: OperationQueue, subject: ObjectDraft) -> None:
    member = subject.effects[-1].member
    file = tree.own_file(subject)
    row = new_fetch(
        queue.new_id(),
        subject.key,
        target_path(subject, member) if subject.path is None else subject.path,
        0 if file is None else file.revision,
        tree.now_us,
    )
    queue_fetch(queue, row._replace(correlation_id=member.correlation_id, traceparent=member.traceparent))


def held_of(tree: WorkingTree, subject: ObjectDraft) -> HeldChange | None:
    """What is held of an object now."""
    return subject.held or tree.loaded.operations.held.get(subject.key)


def hold(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, ingest_id: str, *, replay: bool = False) -> None:
    """Hold an upsert, delete or patch, unless it is stale or refused."""
    member = verdict.member
    age = age_of(tree, subject, member, ingest_id, replay=replay)
    if is_refused(subject, verdict, age):
        return
    if member.kind is _PATCH:
        _hold_patch(tree, subject, verdict, age)
    elif _keep(tree, subject, verdict, member, ingest_id):
        # What signals before it asked for is known now, and signals after it ask for more.
        subject.signalled, subject.answered = False, True
        mark = advanced(age.mark, member.kind, age.time_us, deletes_beat=age.by_provider and member.kind is _DELETE)
        advance(subject, age, mark)


def _keep(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, version: Member, ingest_id: str) -> bool:
    """Hold `version`, an upsert or a delete. False: it was refused, and the verdict says how."""
    file, before = tree.own_file(subject), held_of(tree, subject)
    if version.kind is _UPSERT and before is not None and before.member.kind is _UPSERT:
        # What it does not say stays as the one before has said it.
        earlier = before.member
        version = version._replace(path=version.path or earlier.path, semantics=version.semantics or earlier.semantics)
    if version.kind is _UPSERT:
        path = target_path(subject, version)
        failure = tree.obstacle(path, None if file is None else file.path) if path != subject.path else None
        if failure is None and len(version.content or b"") > tree.limits.content_bytes_max:
            failure = too_large(tree, len(version.content or b""))
        if failure is not None:
            verdict.failure = failure
            return False
    if before is None and _is_as_it_is(tree, file, version):
        verdict.outcome = Outcome.UNCHANGED
        return True
    since_us = tree.now_us if before is None else before.held_us
    subject.held = HeldChange(subject.key, version, since_us, ingest_id=ingest_id)
    subject.changed = True
    subject.effects.append(verdict)
    return True


def _is_as_it_is(tree: WorkingTree, file: FileRow | None, version: Member) -> bool:
    """Whether `version` says what the file is already. What is held would say so again when it is released."""
    if version.kind is _DELETE:
        return file is None
    return (
        file is not None
        and version.content is not None
        and file.content_id != ELIDED
        and version.path in ("", file.path)
        and not version.semantics
        and file.size_bytes == len(version.content)
        and file.content_sha256 == sha256(version.content).digest()
        and (version.content_type or media_type(version.content)) == file.content_type
    )


def _hold_patch(tree: WorkingTree, subject: ObjectDraft, verdict: Verdict, age: Age) -> None:
    """Merge a patch into what is held, else into the file."""
    member = verdict.member
    held, file = held_of(tree, subject), tree.own_file(subject)
    base, content_type = None, patched_type(member)
    is_elided = held is not None and held.member.kind is _UPSERT and held.member.content is None
    if member.content is None or is_elided or (held is None and file is not None and file.content_id == ELIDED):
        subject.undecided = True
        return
    if held is None and file is not None:
        base, content_type = tree.content(file.content_id), file.content_type
    elif held is not None and held.member.kind is _UPSERT:
        base, content_type = held.member.content, held.member.content_type or media_type(held.member.content)
    try:
        patch = pinned_json.read(member.content)
        if not isinstance(patch, dict):
            if is_stale(age.mark, _UPSERT, age.time_us, age.slack_us):
                verdict.outcome = Outcome.STALE
                return
            content, content_type = pinned_json.write(patch, tree.limits.content_bytes_max), JSON_TYPE
            mark = advanced(age.mark, _UPSERT, age.time_us)
        else:
            fresh = fresh_part(age.mark, patch, age.time_us, age.slack_us)
            if patch and not fresh:
                verdict.outcome = Outcome.STALE
                return
            content = patched(base, fresh, tree.limits.content_bytes_max)
            mark = with_patch_marks(advanced(age.mark, _PATCH, age.time_us), fresh, age.time_us)
    except NotJson as error:
        verdict.failure = not_json("The patch, or what it is merged into,", error)
        return
    version = member._replace(kind=_UPSERT, content=content, content_type=content_type)
    if _keep(tree, subject, verdict, version, age.ingest_id):
        advance(subject, age, mark)
