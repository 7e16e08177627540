"""At-least-once transport, exactly-once effect (D3)."""

import pytest

from relayfile.model import Failure, MemberKind, Outcome, RawDelivery
from relayfile.store.plan.entry import Fold
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rows import DeliveryKey, WorkspaceRow
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH
APPLIED, DUPLICATE, DEAD = Outcome.APPLIED, Outcome.DUPLICATE, Outcome.DEAD_LETTERED


def counts(store: ModelStore) -> dict[Outcome, int]:
    return {outcome: number for (_, outcome), number in store.outcomes.items() if number}


def test_a_resend_answers_what_was_recorded_and_counts_nothing() -> None:
    store, make = ModelStore(), Deliveries()
    fold = make.fold("issue/1", [make.member(UPSERT, "/a", b"1")])
    assert store.outcomes_of(fold) == [APPLIED]
    ((result,),) = store.apply(fold)
    assert (result.outcome, result.counted) == (APPLIED, False)
    assert counts(store) == {APPLIED: 1}
    store.check()


def test_another_envelope_of_the_same_delivery_is_a_duplicate_once() -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("issue/1", [make.member(UPSERT, "/a", b"1", delivery_id="d")]))
    again = make.fold("issue/1", [make.member(UPSERT, "/a", b"2", delivery_id="d")])
    assert store.outcomes_of(again) == [DUPLICATE]
    ((result,),) = store.apply(again)
    assert (result.outcome, result.counted) == (DUPLICATE, False)
    assert counts(store) == {APPLIED: 1, DUPLICATE: 1}
    assert store.tree() == {"/a": b"1"}
    store.check()


def test_inside_one_entry_too() -> None:
    store, make = ModelStore(), Deliveries()
    first = make.member(UPSERT, "/a", b"1", delivery_id="d")
    other = make.member(UPSERT, "/a", b"1", delivery_id="d")
    results = store.apply(make.fold("issue/1", [first, first, other]), make.fold("issue/1", [other]))
    assert [(r.outcome, r.counted) for rs in results for r in rs] == [
        (APPLIED, True),
        (APPLIED, False),
        (DUPLICATE, True),
        (DUPLICATE, False),
    ]
    store.check()


def test_the_same_delivery_of_another_object_is_its_own_change() -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("issue/1", [make.member(UPSERT, "/a", b"1", delivery_id="d")]))
    assert store.outcomes_of(make.fold("pull/1", [make.member(UPSERT, "/b", b"1", delivery_id="d")])) == [APPLIED]


def test_a_delivery_that_could_not_be_normalised_is_kept() -> None:
    store, make = ModelStore(), Deliveries()
    failure, raw = Failure("MALFORMED_JSON", "No."), RawDelivery(b"{", {"x-github-event": "issues"})
    member = make.member(MemberKind.FAILED)._replace(failure=failure, raw=raw)
    ((result,),) = store.apply(Fold("github", "n:0", (member,)))
    assert (result.outcome, result.failure) == (DEAD, failure)
    (dead,) = store.dead_letters
    assert (dead.stage, dead.raw, dead.failure, dead.member) == ("normalise", raw, failure, None)
    assert dead.key == DeliveryKey("github", member.delivery_id, "n:0")


def test_a_redelivery_of_a_dead_letter_is_planned_and_the_counters_move() -> None:
    store, make = ModelStore(), Deliveries()
    bad = make.member(PATCH, "/a", b"no json", delivery_id="d", envelope_id="first")
    good = make.member(PATCH, "/a", b'{"a":1}', delivery_id="d", envelope_id="second")
    assert store.outcomes_of(make.fold("issue/1", [bad])) == [DEAD]
    ((resent,),) = store.apply(make.fold("issue/1", [bad]))
    assert (resent.outcome, resent.counted) == (DEAD, False)
    assert store.outcomes_of(make.fold("issue/1", [good])) == [APPLIED]
    # Two changes were accepted: the earlier one is the duplicate now, also when it is sent again.
    assert counts(store) == {APPLIED: 1, DUPLICATE: 1}
    assert store.dead_letters == []
    ((late,),) = store.apply(make.fold("issue/1", [bad]))
    assert (late.outcome, late.counted) == (DUPLICATE, False)
    store.check()


def test_a_redelivery_that_fails_again_leaves_one_dead_letter() -> None:
    store, make = ModelStore(), Deliveries()
    bad = [make.member(PATCH, "/a", b"no json", delivery_id="d") for _ in range(4)]
    for member in bad[:2]:
        store.apply(make.fold("issue/1", [member]))
    store.apply(make.fold("issue/1", bad[2:]))
    assert [letter.envelope_id for letter in store.dead_letters] == [bad[3].envelope_id]
    assert counts(store) == {DEAD: 1, DUPLICATE: 3}
    store.check()


def test_a_replay_is_planned_under_its_own_envelope() -> None:
    store, make = ModelStore(), Deliveries()
    blocked = make.member(UPSERT, "/a/b", b"1")
    blocker = make.fold("issue/2", [make.member(UPSERT, "/a", b"1")])
    store.apply(blocker, make.fold("issue/1", [blocked]))
    (dead,) = store.dead_letters
    assert (dead.stage, dead.failure.reason, dead.member) == ("apply", "PATH_UNDER_FILE", blocked)
    store.apply(make.fold("issue/2", [make.member(DELETE)]))
    assert store.replay(dead) == APPLIED
    assert store.dead_letters == []
    assert counts(store) == {APPLIED: 3}
    store.check()


def test_ignored_by_rule_or_because_the_workspace_is_gone() -> None:
    make = Deliveries()
    rule = Fold("github", "n:0", (make.member(MemberKind.IGNORED),))
    change = make.fold("issue/1", [make.member(UPSERT, "/a", None), make.member(UPSERT, "/a", b"1")])
    failed = Fold("github", "n:0", (make.member(MemberKind.FAILED),))
    store = ModelStore()
    assert store.outcomes_of(rule) == [Outcome.IGNORED]
    for gone in (None, WorkspaceRow("history", 7, 0, deleted_us=1)):
        store = ModelStore()
        store.workspace = gone
        assert store.outcomes_of(rule, change, failed) == [Outcome.IGNORED] * 4
        planned = store.plan(rule)
        assert (planned.workspace, planned.workspace_changed, planned.events) == (gone, False, [])


def test_the_newest_receive_time_of_each_provider() -> None:
    store, github, linear = ModelStore(), Deliveries("github"), Deliveries("linear")
    planned = store.plan(
        github.fold(
            "issue/1", [github.member(UPSERT, "/a", b"1", received_us=9), github.member(DELETE, received_us=8)]
        ),
        linear.fold("issue/1", [linear.member(UPSERT, "/b", b"1", received_us=5)]),
    )
    assert planned.last_received_us == {"github": 9, "linear": 5}


@pytest.mark.parametrize("again", [b"ok", b"too large too"])
@pytest.mark.parametrize("is_stored", [False, True])
def test_a_dead_letter_resent_behind_its_redelivery_counts_nothing(again: bytes, is_stored: bool) -> None:
    store, make = ModelStore(PlanLimits(content_bytes_max=2)), Deliveries()
    first = make.fold("issue/1", [make.member(UPSERT, "/a", b"too large", delivery_id="d")])
    redelivered = make.fold("issue/1", [make.member(UPSERT, "/a", again, delivery_id="d")])
    if is_stored:
        assert store.outcomes_of(first) == [DEAD]
        outcomes = store.outcomes_of(redelivered, first)
    else:
        outcomes = store.outcomes_of(first, redelivered, first)[1:]
    final = APPLIED if again == b"ok" else DEAD
    assert outcomes == [final, DUPLICATE]
    assert counts(store) == {final: 1, DUPLICATE: 1}
    assert store.outcomes_of(first, redelivered) == [DUPLICATE, final]
    assert counts(store) == {final: 1, DUPLICATE: 1}
    store.check()


def test_a_duplicate_resent_behind_another_redelivery_stays_a_duplicate() -> None:
    store, make = ModelStore(PlanLimits(content_bytes_max=2)), Deliveries()
    first, second, third = (
        make.fold("issue/1", [make.member(UPSERT, "/a", b"too large", delivery_id="d")]) for _ in range(3)
    )
    store.apply(first)
    store.apply(second)
    assert store.outcomes_of(third, first, second) == [DEAD, DUPLICATE, DUPLICATE]
    assert counts(store) == {DEAD: 1, DUPLICATE: 2}
    store.check()
