"""The short way of a new object's upsert plans what the usual way plans."""

from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from relayfile.model import MemberKind, Semantics
from relayfile.store.plan import planner
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.limits import PlanLimits
from tests.fakes.model_store import Deliveries, ModelStore
from tests.property.test_planner import ALL

KINDS = st.sampled_from([MemberKind.UPSERT] * 6 + [MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL])
PATHS = st.sampled_from(
    ["/a/1", "/a/2", "/a/3", "/a/4", "/a/b/5", "/a/b/6", "/a", "/a/1/x", "", "/a/.relayfile.acl", "/a//b"]
)
OBJECTS = st.integers(1, 8).map("issue/{}".format)
SEMANTICS = st.sampled_from([Semantics(), Semantics(properties={"a": "b"}), Semantics(permissions=("public",))])


@st.composite
def folds(draw: st.DrawFn) -> list[tuple[str, list[Member]]]:
    """Mostly one upsert each, of few objects at few paths, some of them sent again."""
    make = Deliveries()
    drawn = []
    for _ in range(draw(st.integers(1, 14))):
        object_id = draw(OBJECTS)
        members = []
        for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2]))):
            kind = draw(KINDS)
            content = draw(st.sampled_from([b'{"k":1}', b'{"k":2}', b"x" * 21])) if kind in (1, 3) else b""
            member = make.member(
                kind,
                draw(PATHS),
                content,
                occurred_us=draw(st.none() | st.integers(1, 5)),
                received_us=draw(st.integers(1, 5)),
                semantics=draw(SEMANTICS),
                object_id=object_id,
                delivery_id=draw(st.sampled_from(["", "", "", "again1", "again2"])),
                content_type=draw(st.sampled_from(["application/json", "application/json", "text/plain", ""])),
            )
            members.append(member)
        drawn.append((object_id, members))
    return drawn


@ALL
@given(folds(), st.integers(1, 5), st.booleans())
def test_both_ways_plan_the_same(drawn: list[tuple[str, list[Member]]], size: int, has_workspace: bool) -> None:
    short, usual = (ModelStore(PlanLimits(content_bytes_max=20, clock_skew_max_us=2)) for _ in range(2))
    if not has_workspace:
        short.workspace = usual.workspace = None
    for start in range(0, len(drawn), size):
        make = Deliveries()
        entry: list[Fold] = [make.fold(object_id, members) for object_id, members in drawn[start : start + size]]
        planned = short.plan(*entry)
        with patch.object(planner, "is_candidate", return_value=False):
            expected = usual.plan(*entry)
        assert planned == expected
        assert list(planned.files_put) == list(expected.files_put)
        short.commit(planned)
        usual.commit(expected)
        if has_workspace:
            short.check()


def test_most_of_what_arrives_goes_the_short_way() -> None:
    store, make = ModelStore(), Deliveries()
    first = make.fold("issue/1", [make.member(MemberKind.UPSERT, "/a/1", b"{}", content_type="application/json")])
    store.apply(first)
    more = make.fold("issue/2", [make.member(MemberKind.UPSERT, "/a/2", b"{}", content_type="application/json")])
    with patch.object(planner, "hold_or_apply", side_effect=AssertionError("the usual way")):
        store.apply(more)
