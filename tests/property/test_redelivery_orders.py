"""What was accepted is the sum of the outcomes, in whatever order and company the changes of a delivery come again."""

from hypothesis import given
from hypothesis import strategies as st

from relayfile.model import MemberKind
from relayfile.store.plan.entry import Fold
from tests.fakes.model_store import Deliveries, ModelStore

BLOCKED, FINE, UNREADABLE = "blocked", "fine", "unreadable"
OBJECTS = 3
ENVELOPES = st.lists(
    st.tuples(
        st.lists(st.sampled_from(range(OBJECTS)), unique=True, min_size=1),
        st.lists(st.sampled_from((BLOCKED, FINE, UNREADABLE)), min_size=OBJECTS, max_size=OBJECTS),
    ),
    min_size=1,
    max_size=4,
)
"""Of one delivery: which of its changes, in which order, and what becomes of each."""


def fold_of(make: Deliveries, envelope: int, index: int, number: int, shape: str) -> Fold:
    """The change of object `number`, at place `index` of its envelope."""
    member = make.member(
        MemberKind.FAILED if shape == UNREADABLE else MemberKind.UPSERT,
        f"/d/{number}" if shape == BLOCKED else f"/{number}",
        b"{}",
        object_id=f"issue/{number}",
        delivery_id="delivery",
        envelope_id=f"envelope-{envelope}",
    )
    return make.fold(f"issue/{number}", [member._replace(change_index=index)])


@given(ENVELOPES, st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8))
def test_each_change_of_each_envelope_counts_once(
    envelopes: list[tuple[list[int], list[str]]], sendings: list[tuple[int, bool]]
) -> None:
    store, make = ModelStore(), Deliveries()
    store.apply(make.fold("blocker", [make.member(MemberKind.UPSERT, "/d", b"{}")]))
    made = [
        [fold_of(make, envelope, index, number, shapes[number]) for index, number in enumerate(numbers)]
        for envelope, (numbers, shapes) in enumerate(envelopes)
    ]
    sent = set()
    for which, together in [*enumerate([True] * len(made)), *sendings]:
        folds = made[which % len(made)]
        sent |= {fold.members[0].envelope_id + fold.change_key for fold in folds}
        if together:
            store.apply(*folds)
        else:
            for fold in folds:
                store.apply(fold)
        assert store.outcomes.total() == 1 + len(sent), store.outcomes
        store.check()
