"""What an entry does to its workspace: `plan`, a pure function of the rows and the changes (D7).

Owns the order of things: folds one after the other, each on the result of the one before; in a fold its members in
order; known deliveries first (D3), then the rules of `change`. Then everything is settled at once. A fold that cannot
be decided without an elided content (D5) leaves no trace.
"""

from collections.abc import Callable

from relayfile.model import Failure, MemberKind, Outcome
from relayfile.store.plan.entry import WITHOUT_OBJECT, Entry, Fold, Member
from relayfile.store.plan.holding import hold_or_apply, settle_operations
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.newcomer import is_candidate, place_newcomer
from relayfile.store.plan.result import MemberResult, Plan
from relayfile.store.plan.rows import DeliveryKey, DuplicateKey, ObjectKey, duplicate_key, made
from relayfile.store.plan.settle import settle_files, settle_verdicts
from relayfile.store.plan.slice import Slice
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.working_tree import ELIDED, WorkingTree

_RESULTS = {outcome: MemberResult(outcome) for outcome in Outcome}
_UNDECIDED = MemberResult(None)
_NO_OBJECT = Failure("INVALID_PATH", "The change has neither a path nor an object.")
_NO_REASON = Failure("NORMALISE_FAILED", "The delivery could not be normalised.")


def plan(entry: Entry, loaded: Slice, *, now_us: int, limits: PlanLimits, new_id: Callable[[], str]) -> Plan:
    """The effect of `entry` on the rows in `loaded`, which must hold everything that `needs` asks for.

    `now_us` stamps rows and events; `new_id` names dead letters. Neither `entry` nor `loaded` is changed.
    """
    planner = _Planner(loaded, limits, now_us)
    folds = [planner.fold(fold) for fold in entry.folds]
    result = Plan(entry.workspace_id, loaded.workspace)
    if planner.tree.objects:
        settle_files(planner.tree, result, now_us)
        if loaded.operations or planner.tree.is_signalled:
            settle_operations(planner.tree, result, new_id)
    decided = [verdict for verdicts in folds if verdicts is not None for verdict in verdicts]
    settle_verdicts(result, decided, now_us, new_id)
    for fold, verdicts in zip(entry.folds, folds, strict=True):
        if verdicts is None:
            result.results.append((_UNDECIDED,) * len(fold.members))
        else:
            result.results.append(tuple([_result(verdict) for verdict in verdicts]))
    return result


def _is_resend(verdict: Verdict, latest: Verdict) -> bool:
    """Whether `verdict` is of an envelope that the entry has decided already, perhaps by putting a redelivery in the
    place of its dead letter; then its verdict says so."""
    envelope_id = verdict.member.envelope_id
    earlier: Verdict | None = latest
    while earlier is not None:
        if earlier.member.envelope_id == envelope_id:
            verdict.repeats, verdict.counted = earlier, False
            return True
        if earlier.earlier_envelope == envelope_id:
            verdict.outcome, verdict.counted = Outcome.DUPLICATE, False
            return True
        earlier = earlier.supersedes
    return False


def _result(verdict: Verdict) -> MemberResult:
    if verdict.failure is None and verdict.counted:
        assert verdict.outcome is not None, "settled"
        return _RESULTS[verdict.outcome]
    return MemberResult(verdict.outcome, verdict.failure, verdict.counted)


class _Planner:
    """Goes through an entry's folds and keeps what is known of deliveries on the way."""

    def __init__(self, loaded: Slice, limits: PlanLimits, now_us: int) -> None:
        self.tree = WorkingTree(loaded, limits, now_us)
        self._loaded = loaded
        self._exists = loaded.workspace is not None and loaded.workspace.deleted_us is None
        self._seen: dict[DeliveryKey, Verdict] = {}
        self._duplicates: set[DuplicateKey] = set()
        self._undecided: set[ObjectKey] = set()

    def fold(self, fold: Fold) -> list[Verdict] | None:
        """A verdict for each member, or None when the fold cannot be decided; then nothing happened, and nothing that
        follows of the same object can be decided either: it comes again behind the contents that are asked for."""
        object_key = made(ObjectKey, fold[:2])
        if object_key in self._undecided:
            return None
        newcomer = self._newcomer(fold, object_key) if len(fold.members) == 1 else None
        if newcomer is not None:
            return [newcomer]
        subject = None
        for member in fold.members:
            if member.content is None and self._exists and not fold.change_key.startswith(WITHOUT_OBJECT):
                subject = self.tree.object(object_key)
                self.tree.begin(subject)
                break
        verdicts = [self._member(fold, object_key, member) for member in fold.members]
        if subject is not None:
            file = self.tree.own_file(subject)
            if (
                subject.undecided
                or (file is not None and file.content_id == ELIDED)
                or (subject.held is not None and subject.held.member.content is None)
                # A dead letter keeps its content, which nobody has here.
                or any(verdict.failure is not None and verdict.member.content is None for verdict in verdicts)
            ):
                self.tree.undo()
                self._forget(verdicts)
                self._undecided.add(object_key)
                return None
            self.tree.keep()
        for verdict in verdicts:
            earlier = verdict.supersedes
            if earlier is not None:
                earlier.outcome, earlier.failure = Outcome.DUPLICATE, None
                self._duplicates.add(duplicate_key(earlier.member.envelope_id, earlier.key))
        return verdicts

    def _newcomer(self, fold: Fold, object_key: ObjectKey) -> Verdict | None:
        """The verdict of a fold that is one upsert of a new object; None: it is not, and nothing happened."""
        member = fold.members[0]
        if not self._exists or fold.replay or not is_candidate(member) or fold.change_key.startswith(WITHOUT_OBJECT):
            return None
        key = made(DeliveryKey, (fold.provider, member.delivery_id, fold.change_key))
        if key in self._seen or key in self._loaded.deliveries:
            return None
        verdict = Verdict(key, member)
        if not place_newcomer(self.tree, object_key, verdict, fold.ingest_id):
            return None
        self._seen[key] = verdict
        return verdict

    def _member(self, fold: Fold, object_key: ObjectKey, member: Member) -> Verdict:
        verdict = Verdict(made(DeliveryKey, (fold.provider, member.delivery_id, fold.change_key)), member)
        if self._is_known(fold, verdict):
            return verdict
        self._seen[verdict.key] = verdict
        if not self._exists or member.kind is MemberKind.IGNORED:
            verdict.outcome = Outcome.IGNORED
        elif member.kind is MemberKind.FAILED:
            verdict.failure = member.failure or _NO_REASON
            verdict.outcome = Outcome.DEAD_LETTERED
        elif fold.change_key.startswith(WITHOUT_OBJECT):
            verdict.failure = _NO_OBJECT
            verdict.outcome = Outcome.DEAD_LETTERED
        else:
            subject = self.tree.object(object_key)
            hold_or_apply(self.tree, subject, verdict, fold.ingest_id, replay=fold.replay)
            if verdict.failure is not None:
                verdict.outcome = Outcome.DEAD_LETTERED
        return verdict

    def _is_known(self, fold: Fold, verdict: Verdict) -> bool:
        """Whether the member is a resend or a duplicate; then its verdict says so.

        A dead letter is not final: its redelivery in another envelope, or its replay, is planned again.
        """
        key, member = verdict.key, verdict.member
        earlier = self._seen.get(key)
        if earlier is not None:
            if _is_resend(verdict, earlier):
                return True
            if earlier.outcome is Outcome.DEAD_LETTERED and not self._was_duplicate(verdict):
                verdict.supersedes = earlier
                return False
            return self._duplicate(verdict)
        known = self._loaded.deliveries.get(key)
        if known is None:
            return False
        envelope_id, outcome = known
        again = outcome is Outcome.DEAD_LETTERED
        if envelope_id == member.envelope_id:
            if again and fold.replay:
                return False
            verdict.outcome, verdict.counted = outcome, False
            return True
        if again and not self._was_duplicate(verdict):
            verdict.earlier_envelope = envelope_id
            return False
        return self._duplicate(verdict)

    def _duplicate(self, verdict: Verdict) -> bool:
        verdict.outcome = Outcome.DUPLICATE
        verdict.counted = not self._was_duplicate(verdict)
        self._duplicates.add(duplicate_key(verdict.member.envelope_id, verdict.key))
        return True

    def _was_duplicate(self, verdict: Verdict) -> bool:
        envelope_id, index = verdict.member.envelope_id, verdict.member.change_index
        seen, loaded = duplicate_key(envelope_id, verdict.key), self._loaded.duplicates
        # A row of an earlier release knows the change by its place.
        return seen in loaded or seen in self._duplicates or DuplicateKey(envelope_id, index) in loaded

    def _forget(self, verdicts: list[Verdict]) -> None:
        """Forget the deliveries of a fold that is undone."""
        for verdict in reversed(verdicts):
            if self._seen.get(verdict.key) is verdict:
                del self._seen[verdict.key]
                if verdict.supersedes is not None:
                    self._seen[verdict.key] = verdict.supersedes
            if verdict.outcome is Outcome.DUPLICATE and verdict.counted:
                self._duplicates.discard(duplicate_key(verdict.member.envelope_id, verdict.key))
