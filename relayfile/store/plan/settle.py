"""The end of a plan: from what the members made of the working tree to rows, events, outcomes and answers.

Owns what a commit entry nets to: at most one revision, one event and one content write for each path that is another
than it was; the last member that had an effect on its object is `applied`, earlier ones are `coalesced`, and all are
`unchanged` where the object's file is as it was.
"""

from collections.abc import Callable, Iterable

from relayfile.model import NO_SEMANTICS, EventType, MemberKind, Outcome, RawDelivery
from relayfile.store.plan.digest import file_term
from relayfile.store.plan.entry import WITHOUT_OBJECT
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.result import FilePut, Plan
from relayfile.store.plan.rows import (
    DeadLetterRow,
    DeliveryRow,
    DuplicateRow,
    EventRow,
    FileRow,
    duplicate_key,
    made,
)
from relayfile.store.plan.rules import carried, carried_by_half, enforceable_count, ruled_anew
from relayfile.store.plan.verdict import Cause, Verdict
from relayfile.store.plan.working_tree import WorkingTree

_NO_RAW = RawDelivery(b"", {})
_NOT_MOVED = ("", "")
STAGE_NORMALISE = "normalise"
STAGE_APPLY = "apply"


def settle_files(tree: WorkingTree, plan: Plan, now_us: int) -> None:
    """Files, contents, directories, objects and events of the plan, and the outcomes of what had an effect."""
    assert plan.workspace is not None, "nothing is touched in a workspace that does not exist"
    moved_from, moved_to = _moves(tree)
    loaded = tree.loaded.files
    final = [(path, loaded.get(path), tree.files[path], cause) for path, cause in tree.touched.items()]
    carried = {new.content_id for _, _, new, _ in final if new is not None and new.content_id >= 0}
    revision = plan.workspace.revision
    evented: set[str] = set()
    index = plan.index
    for path, old, new, cause in final:
        if new is old:
            continue
        index.replace(path, old, new)
        origin = moved_from.get(path, "")
        if new is not None and old is not None and not origin and same_file(old, new):
            _rebind(tree, plan, old, new, carried)
            continue
        if (ruled := ruled_anew(path, old, new)) is not None:
            revision += 1
            plan.events.append(access_event(ruled, revision, cause, now_us))
        revision += 1
        evented.add(path)
        account(tree, path, old, new, revision)
        if new is None:
            plan.files_deleted.add(path)
        else:
            content_id, content = stored_content(tree, old, new, carried)
            row = made(FileRow, (
                path, revision, content_id, new.content_sha256, new.size_bytes, new.content_type,
                new.provider, new.object_key, now_us, cause.origin, new.semantics, new.stale_since_us,
            ))  # fmt: skip
            plan.files_put[path] = made(FilePut, (row, content))
        moved = (moved_to.get(path, "") if new is None else "", origin if new is not None else "")
        event = _event(path, old, new, revision, moved, cause, now_us)
        plan.events.append(event if moved == _NOT_MOVED else _with_rules_of_other(event, tree))
    plan.contents_released = [
        old.content_id for _, old, _, _ in final if old is not None and old.content_id not in carried
    ]
    if revision != plan.workspace.revision:
        plan.workspace = plan.workspace._replace(revision=revision)
        plan.workspace_changed = True
        plan.directories_put, plan.directories_deleted = tree.directories.settle(plan.buckets)
    _settle_objects(tree, plan, evented)


def settle_verdicts(plan: Plan, verdicts: Iterable[Verdict], now_us: int, new_id: Callable[[], str]) -> None:
    """Delivery rows, dead letters and counters of what was decided."""
    counts = plan.outcome_counts
    received = plan.last_received_us
    for verdict in verdicts:
        key, member = verdict.key, verdict.member
        provider = key.provider
        if member.received_us > received.get(provider, -1):
            received[provider] = member.received_us
        if verdict.repeats is not None:
            verdict.outcome, verdict.failure = verdict.repeats.outcome, verdict.repeats.failure
        outcome = verdict.outcome
        assert outcome is not None, "every verdict has an outcome when a plan is settled"
        if not verdict.counted:
            continue
        count_key = (provider, outcome)
        counts[count_key] = counts.get(count_key, 0) + 1
        if verdict.earlier_envelope is not None:
            _resolve_dead_letter(plan, verdict, verdict.earlier_envelope, now_us)
        if outcome is Outcome.DUPLICATE:
            plan.duplicates_put.append(DuplicateRow(duplicate_key(member.envelope_id, key), now_us))
            continue
        plan.deliveries_put.append(made(DeliveryRow, (key, member.envelope_id, outcome, now_us)))
        if verdict.failure is not None:
            plan.dead_letters.append(dead_letter_of(verdict, now_us, new_id()))


def _moves(tree: WorkingTree) -> tuple[dict[str, str], dict[str, str]]:
    """(new path -> old path, old path -> new path) of the objects whose file is at another path than before."""
    moved_from = dict(tree.renamed)
    moved_to = {old: new for new, old in tree.renamed.items()}
    for subject in tree.objects.values():
        before = _path_before(tree, subject) if subject.changed and subject.row is not None else None
        if before is not None and subject.path is not None and subject.path != before:
            moved_from[subject.path] = before
            moved_to[before] = subject.path
    return moved_from, moved_to


def _path_before(tree: WorkingTree, subject: ObjectDraft) -> str | None:
    """Where the object's file was when the entry was loaded."""
    path = None if subject.row is None else subject.row.path
    return path if path is not None and subject.owns(tree.loaded.files.get(path)) else None


def same_file(old: FileRow, new: FileRow) -> bool:
    """Whether bytes, type and semantics are the same: then nothing changed."""
    return (
        old.content_sha256 == new.content_sha256
        and old.content_type == new.content_type
        and (old.semantics is new.semantics or old.semantics == new.semantics)
    )


def stored_content(tree: WorkingTree, old: FileRow | None, new: FileRow, carried: set[int]) -> tuple[int, bytes | None]:
    """(content id, bytes to write): stored bytes are kept where they are."""
    if old is None and new.content_id < 0:
        return 0, tree.content(new.content_id)
    if new.content_id >= 0:
        return new.content_id, None
    if old is not None and old.content_sha256 == new.content_sha256 and old.content_id not in carried:
        carried.add(old.content_id)
        return old.content_id, None
    return 0, tree.content(new.content_id)


def _rebind(tree: WorkingTree, plan: Plan, old: FileRow, new: FileRow, carried: set[int]) -> None:
    """The same file, perhaps of another object or no longer stale: no revision."""
    content_id, content = stored_content(tree, old, new, carried)
    row = old._replace(
        content_id=content_id, provider=new.provider, object_key=new.object_key, stale_since_us=new.stale_since_us
    )
    if row != old:
        plan.files_put[old.path] = FilePut(row, content)


def account(tree: WorkingTree, path: str, old: FileRow | None, new: FileRow | None, revision: int) -> None:
    """Add the difference to the directory that holds the file. (Its file count is kept while planning.)"""
    holder = tree.directories.holding(path)
    holder.revision = revision
    term = size = 0
    if new is not None:
        term += file_term(path, new.content_sha256)
        size += new.size_bytes
        if new.semantics is not NO_SEMANTICS:
            holder.rules_change += enforceable_count(new.semantics.permissions)
    if old is not None:
        term -= file_term(path, old.content_sha256)
        size -= old.size_bytes
        if old.semantics is not NO_SEMANTICS:
            holder.rules_change -= enforceable_count(old.semantics.permissions)
    files = (new is not None) - (old is not None)
    holder.digest_change += term
    holder.bytes_change += size
    holder.entries_change += files
    if holder.buckets is not None:
        holder.count_entry(path, files, size, term)


def access_event(path: str, revision: int, cause: Cause, now_us: int) -> EventRow:
    """That others may read `path` and below than before."""
    return EventRow(
        revision, EventType.ACCESS_CHANGED, path, "", "", b"", 0, cause.origin, cause.provider, cause.correlation_id,
        cause.traceparent, now_us,
    )  # fmt: skip


def _event(
    path: str,
    old: FileRow | None,
    new: FileRow | None,
    revision: int,
    moved: tuple[str, str],
    cause: Cause,
    now_us: int,
) -> EventRow:
    file = old if new is None else new
    rules = None if file is None or file.semantics is NO_SEMANTICS else carried(path, file.semantics)
    if new is None:
        kind, content_sha256, size_bytes = EventType.FILE_DELETED, b"", 0
    else:
        kind = EventType.FILE_CREATED if old is None else EventType.FILE_UPDATED
        content_sha256, size_bytes = new.content_sha256, new.size_bytes
    return made(EventRow, (
        revision, kind, path, *moved, content_sha256, size_bytes, cause.origin,
        cause.provider, cause.correlation_id, cause.traceparent, now_us, "", rules,
    ))  # fmt: skip


def _with_rules_of_other(event: EventRow, tree: WorkingTree) -> EventRow:
    """One half of a move, with the rules of the file at its other path: whom they shut out is not told of that path."""
    other = event.moved_to or event.moved_from
    file = tree.files.get(other) if event.moved_to else tree.loaded.files.get(other)
    return event if file is None else event._replace(rules=carried_by_half(event.rules, carried(other, file.semantics)))


def _settle_objects(tree: WorkingTree, plan: Plan, evented: set[str]) -> None:
    for subject in tree.objects.values():
        if subject.changed:
            plan.objects_put.append(subject.settled())
        effects = subject.effects
        if not effects:
            continue
        if subject.path is None:
            changed = _path_before(tree, subject) is not None
        else:
            changed = subject.path in evented
        if not changed and not subject.signalled and subject.held is None:
            for verdict in effects:
                verdict.outcome = Outcome.UNCHANGED
            continue
        for verdict in effects[:-1]:
            verdict.outcome = Outcome.COALESCED
        effects[-1].outcome = Outcome.APPLIED


def _resolve_dead_letter(plan: Plan, verdict: Verdict, earlier_envelope: str, now_us: int) -> None:
    """A dead letter was delivered again: its outcome moves, so that the sums stay what was accepted."""
    counts, provider = plan.outcome_counts, verdict.key.provider
    plan.dead_letters_resolved.add((verdict.key, earlier_envelope))
    dead = (provider, Outcome.DEAD_LETTERED)
    counts[dead] = counts.get(dead, 0) - 1
    # A redelivery was accepted as well: of the two, the earlier one counts as the duplicate from now on.
    duplicate = (provider, Outcome.DUPLICATE)
    counts[duplicate] = counts.get(duplicate, 0) + 1
    plan.duplicates_put.append(DuplicateRow(duplicate_key(earlier_envelope, verdict.key), now_us))


def dead_letter_of(verdict: Verdict, now_us: int, dead_letter_id: str) -> DeadLetterRow:
    """The failure of a member, kept."""
    member, failure = verdict.member, verdict.failure
    assert failure is not None, "a dead letter has a reason"
    failed = member.kind is MemberKind.FAILED
    # A change that nobody could read, or that met a fault of ours, comes as a failed one with itself as its raw body.
    normalise = failed and verdict.key.change_key.startswith(WITHOUT_OBJECT)
    return DeadLetterRow(
        dead_letter_id=dead_letter_id,
        stage=STAGE_NORMALISE if normalise else STAGE_APPLY,
        key=verdict.key,
        envelope_id=member.envelope_id,
        failure=failure,
        raw=(member.raw or _NO_RAW) if failed else _NO_RAW,
        adapter_version=member.adapter_version,
        event_name=member.event_name,
        correlation_id=member.correlation_id,
        received_us=member.received_us,
        created_us=now_us,
        member=None if failed else member,
        traceparent=member.traceparent,
    )
