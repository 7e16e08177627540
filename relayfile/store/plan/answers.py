"""What a worker's answer does: to its operation, to the object's file, and to what waited for it. Pure.

Owns that a claim that has ended is refused and still remembered; that a draft becomes its object's file; that the
provider's version of an edit is a change of the provider like any other. The claim's number decides who may answer.
"""

from collections.abc import Iterator
from typing import NamedTuple

from relayfile.errors import ClaimExpired, InvalidArgument, RelayfileError
from relayfile.model import NO_SEMANTICS, Failure, MemberKind, Origin
from relayfile.store.plan.change import apply_member
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.holding import held_of, hold, is_awaited
from relayfile.store.plan.identity import ObjectDraft, default_path
from relayfile.store.plan.release import Releases
from relayfile.store.plan.rows import DeliveryKey, ObjectKey
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.watermark import advanced
from relayfile.store.plan.working_tree import WorkingTree
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.edits import fold_followers, put_back, queue_again
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import OperationFault, OperationKind, OperationRow, OperationState
from relayfile.watermark import provider_time

DRAFTS = "/_new/"
"""Below such a directory an agent makes what the provider is to name."""


class Success(NamedTuple):
    """The provider did it."""

    result: bytes
    """A serialised `OperationSuccess` without content."""
    object_id: str = ""
    canonical_path: str = ""
    occurred_us: int | None = None
    change: Member | None = None
    change_sha256: bytes = b""
    """Of the content of `change`."""


class Answer(NamedTuple):
    """How a claim ends: exactly one of the last three."""

    operation_id: str
    claim_number: int
    success: Success | None = None
    fault: OperationFault | None = None
    release_us: int | None = None
    """It is given back for so long."""


class _Cause(NamedTuple):
    """As `relayfile.store.plan.verdict.Cause`."""

    origin: Origin
    provider: str
    correlation_id: str
    traceparent: str


def answer_folds(row: OperationRow, answer: Answer) -> Iterator[Fold]:
    """Names what planning the answer reads, as folds of changes would."""
    success = answer.success
    yield naming_fold(row)
    if success is not None:
        key = "o:" + success.object_id if success.object_id else row.object_key
        if success.object_id:
            yield _naming(row.provider, key, _canonical_path(row, success))
        if success.change is not None:
            yield Fold(row.provider, key, (success.change,))


def naming_fold(row: OperationRow) -> Fold:
    """Names the object and the file of an operation."""
    return _naming(row.provider, row.object_key, row.path)


def _naming(provider: str, key: str, path: str) -> Fold:
    member = Member(MemberKind.SIGNAL, "", "", 0, path, "", 0, None, b"", "", NO_SEMANTICS, "", "")
    return Fold(provider, key, (member,))


class Answers:
    """The answers of one plan, in order."""

    def __init__(self, tree: WorkingTree, queue: OperationQueue) -> None:
        self._tree = tree
        self._queue = queue
        self.releases = Releases(tree, queue)

    def take(self, row: OperationRow, answer: Answer, jitter: float) -> RelayfileError | None:
        """Do what the answer says; why it is refused, or None. `jitter` is random, from 0 to 1."""
        queue, now_us = self._queue, self._queue.now_us
        if not lifecycle.holds_claim(row, answer.claim_number, now_us):
            return self._too_late(row, answer)
        if answer.success is not None:
            return self._succeed(row, answer.success)
        if answer.fault is not None:
            put_back(queue, lifecycle.failed(row, answer.fault, queue.limits, now_us, jitter))
        else:
            put_back(queue, lifecycle.released(row, now_us, answer.release_us or 0))
        self.releases.after_edit(row.key, None)
        return None

    def _too_late(self, row: OperationRow, answer: Answer) -> RelayfileError | None:
        is_same = row.claim_number == answer.claim_number
        if is_same and row.state is OperationState.SUCCEEDED and answer.success is not None:
            return None  # a repeat: it was this claim that succeeded
        if answer.success is not None and 0 < answer.claim_number <= row.claim_number and is_edit(row):
            self._remember(row)
        return ClaimExpired(operation=row.operation_id, claim=answer.claim_number)

    def _remember(self, row: OperationRow) -> None:
        """The provider has this edit now, perhaps after a later one: then it gets the current content once more."""
        place = (row.revision, row.operation_id)
        later = [
            each for each in self._queue.of(row.key) if is_edit(each) and (each.revision, each.operation_id) > place
        ]
        if any(each.state is OperationState.SUCCEEDED for each in later):
            self._again(row)
            return
        for each in later:
            if each.state is OperationState.CLAIMED:
                self._queue.put(each._replace(is_owed=True))

    def _again(self, row: OperationRow) -> None:
        subject = self._tree.object(row.key)
        file = self._tree.file(row.path) if row.is_draft else self._tree.own_file(subject)
        queue_again(self._queue, row, file)

    def _succeed(self, row: OperationRow, success: Success) -> RelayfileError | None:
        queue = self._queue
        if row.kind is OperationKind.FETCH and success.change is None:
            return InvalidArgument.of("head.success.change", "is required: a fetch brings an upsert or a delete")
        if success.object_id and row.object_key != "o:" + success.object_id:
            if row.object_key.startswith("o:"):
                why = f"is {success.object_id!r}, but the operation is of {row.object_key[2:]!r}"
                return InvalidArgument.of("head.success.provider_object_id", why)
            row = self._link(row, success)
        said_us = None if success.occurred_us is None else provider_time(success.occurred_us, queue.now_us)
        subject = self._tree.object(row.key)
        failure = self._apply(row, success, subject)
        if failure is not None and row.kind is OperationKind.FETCH:
            fault = OperationFault(failure.reason, failure.message, retryable=False)
            queue.put(lifecycle.dead_lettered(row, fault, queue.now_us))
            return None
        if said_us is not None and is_edit(row):
            kind = MemberKind.DELETE if row.kind is OperationKind.DELETE else MemberKind.UPSERT
            mark = advanced(subject.provider, kind, said_us, deletes_beat=kind is MemberKind.DELETE)
            if mark != subject.provider:
                subject.provider, subject.changed = mark, True
        if failure is not None:
            row = row._replace(fault=OperationFault(failure.reason, failure.message, retryable=False))
        queue.put(lifecycle.succeeded(row, success.result, success.change_sha256, queue.now_us))
        if row.is_owed:
            self._again(row)
        self.releases.after_edit(row.key, said_us)
        return None

    def _apply(self, row: OperationRow, success: Success, subject: ObjectDraft) -> Failure | None:
        """The provider's version; why it could not be taken.

        Held where another edit of the object is on its way, or something is held already: then it takes its place
        there by its age, and what comes out is released together.
        """
        tree = self._tree
        if success.change is None:
            return None
        verdict = Verdict(DeliveryKey(row.provider, "", row.object_key), success.change)
        others = [each for each in self._queue.of(row.key) if each.operation_id != row.operation_id]
        signalled_us = subject.provider.newest_us
        if row.kind is OperationKind.FETCH and signalled_us is not None:
            # Signals have advanced the newest time: what was asked for because of them is not older than they are.
            subject.provider = subject.provider._replace(newest_us=subject.provider.full_us)
        if held_of(tree, subject) is not None or is_awaited(others):
            hold(tree, subject, verdict, "")
        else:
            apply_member(tree, subject, verdict, "")
        if signalled_us is not None and (subject.provider.newest_us or 0) < signalled_us:
            subject.provider = subject.provider._replace(newest_us=signalled_us)
        waiting = self._queue.unclaimed_fetch(row.key)
        file = tree.own_file(subject)
        if waiting is not None and file is not None and file.stale_since_us is None:
            # The next signal came before this answer.
            tree.set_file(file.path, file._replace(stale_since_us=waiting.created_us), verdict)
        return verdict.failure

    def _link(self, row: OperationRow, success: Success) -> OperationRow:
        """The provider has named a draft: its file becomes the object's, and its operations the object's."""
        tree, queue = self._tree, self._queue
        key = ObjectKey(row.provider, "o:" + success.object_id)
        subject = tree.object(key)
        draft_path = row.object_key[2:]
        draft, own = tree.file(draft_path), tree.own_file(subject)
        cause = _Cause(Origin.SYSTEM, row.provider, row.correlation_id, row.traceparent)
        path = draft_path if own is None else own.path
        subject.changed = True
        if draft is not None and not draft.object_key:
            if own is not None:
                tree.set_file(draft_path, None, cause)
            else:
                path = self._free_path(_canonical_path(row, success), draft_path)
                if path != draft_path:
                    tree.set_file(draft_path, None, cause)
                    tree.renamed[path] = draft_path
                bound = draft._replace(path=path, provider=key.provider, object_key=key.key)
                tree.set_file(path, bound, cause)
                subject.path, subject.deleted, subject.displaced_from = path, False, None
        for each in queue.unfinished(row.key):
            moved = path if each.path == draft_path else each.path
            queue.put(each._replace(object_key=key.key, is_draft=False, path=moved))
        fold_followers(queue, key)
        linked = queue.get(row.operation_id)
        assert linked is not None, "it was claimed until now"
        return linked

    def _free_path(self, wanted: str, draft_path: str) -> str:
        """The canonical path, unless something is in the way: then the draft stays where it is."""
        if wanted == draft_path or self._tree.file(wanted) is not None:
            return draft_path
        return draft_path if self._tree.obstacle(wanted, draft_path) is not None else wanted


def _canonical_path(row: OperationRow, success: Success) -> str:
    if success.canonical_path:
        return success.canonical_path
    if success.change is not None and success.change.path:
        return success.change.path
    draft_path = row.object_key[2:]
    return default_path(row.provider, success.object_id) if DRAFTS in draft_path else draft_path
