"""Two watermarks per object, through the planner."""

import json

from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.limits import PlanLimits
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE, PATCH, SIGNAL = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL
APPLIED, STALE, UNCHANGED = Outcome.APPLIED, Outcome.STALE, Outcome.UNCHANGED
SKEW_US = PlanLimits().clock_skew_max_us


class Issue:
    """One object of a store, changed one entry at a time."""

    def __init__(self) -> None:
        self.store, self.make = ModelStore(), Deliveries()

    def change(
        self, kind: MemberKind, content: bytes = b"", at: int | None = None, received: int = 0, by: str = "i"
    ) -> Outcome | None:
        member = self.make.member(kind, "/issue", content, occurred_us=at, received_us=received)
        (outcome,) = self.store.outcomes_of(self.make.fold("issue/1", [member], by))
        self.store.check()
        return outcome

    def content(self) -> bytes | None:
        return self.store.tree().get("/issue")

    def value(self) -> object:
        return json.loads(self.content() or b"")

    def stale_since_us(self) -> int | None:
        return self.store.files["/issue"].stale_since_us


def test_older_by_the_providers_clock_is_stale() -> None:
    issue = Issue()
    assert issue.change(UPSERT, b"5", at=5) is APPLIED
    assert issue.change(UPSERT, b"4", at=4) is STALE
    assert issue.change(DELETE, at=4) is STALE
    assert issue.change(SIGNAL, at=4) is STALE
    assert issue.change(UPSERT, b"5 again", at=5) is APPLIED
    assert issue.content() == b"5 again"


def test_a_delete_beats_an_upsert_of_the_same_time_in_any_order() -> None:
    issue = Issue()
    assert issue.change(DELETE, at=5) is UNCHANGED
    assert issue.change(UPSERT, b"5", at=5) is STALE
    assert issue.change(PATCH, b'{"a":1}', at=5) is STALE
    assert issue.change(UPSERT, b"6", at=6) is APPLIED
    assert issue.change(DELETE, at=6) is APPLIED
    assert issue.change(UPSERT, b"untimed") is APPLIED
    assert issue.change(UPSERT, b"6", at=6) is STALE
    assert issue.content() == b"untimed"


def test_unchanged_advances_and_stale_does_not() -> None:
    issue = Issue()
    issue.change(UPSERT, b"1", at=1)
    assert issue.change(UPSERT, b"1", at=7) is UNCHANGED
    assert issue.change(UPSERT, b"2", at=6) is STALE
    assert issue.change(UPSERT, b"2", at=7) is APPLIED


def test_clocks_are_not_compared() -> None:
    issue = Issue()
    assert issue.change(UPSERT, b"1", at=1_000, received=1_000) is APPLIED
    assert issue.change(UPSERT, b"2", received=5) is APPLIED
    assert issue.change(UPSERT, b"3", at=1_000, received=1) is APPLIED
    assert issue.change(UPSERT, b"4", received=4) is STALE


def test_a_provider_time_far_ahead_counts_as_absent() -> None:
    issue = Issue()
    assert issue.change(UPSERT, b"1", at=300_000_010, received=9) is APPLIED
    assert issue.change(UPSERT, b"2", at=5, received=8) is APPLIED
    assert issue.change(UPSERT, b"3", at=300_000_009, received=8) is STALE
    assert issue.change(UPSERT, b"4", at=300_000_008, received=8) is APPLIED


def test_receive_times_of_different_processes_differ_only_beyond_the_skew() -> None:
    issue = Issue()
    assert issue.change(UPSERT, b"1", received=SKEW_US + 10, by="a") is APPLIED
    assert issue.change(UPSERT, b"2", received=SKEW_US + 9, by="a") is STALE
    assert issue.change(UPSERT, b"3", received=10, by="b") is APPLIED
    assert issue.change(UPSERT, b"4", received=9, by="b") is STALE
    assert issue.content() == b"3"


def test_patches_make_no_patch_of_another_member_stale() -> None:
    issue = Issue()
    assert issue.change(UPSERT, b"{}", at=3) is APPLIED
    assert issue.change(PATCH, b'{"a":9}', at=9) is APPLIED
    assert issue.change(PATCH, b'{"b":5}', at=5) is APPLIED
    assert issue.change(PATCH, b'{"a":8,"b":8}', at=8) is APPLIED
    assert issue.change(PATCH, b'{"a":7}', at=7) is STALE
    assert issue.change(PATCH, b'{"c":2}', at=2) is STALE
    assert issue.value() == {"a": 9, "b": 8}
    assert issue.change(UPSERT, b"{}", at=8) is STALE
    assert issue.change(UPSERT, b"[]", at=9) is APPLIED


def test_patches_without_a_provider_time() -> None:
    issue = Issue()
    assert issue.change(PATCH, b'{"a":9}', received=9) is APPLIED
    assert issue.change(PATCH, b'{"b":5,"gone":null}', received=5) is APPLIED
    assert issue.change(PATCH, b'{"a":8}', received=8) is STALE
    assert issue.value() == {"a": 9, "b": 5}


def test_what_patches_do() -> None:
    issue = Issue()
    assert issue.change(PATCH, b'{"a":{"b":1,"c":null}}', at=1) is APPLIED
    assert issue.value() == {"a": {"b": 1}}
    assert issue.change(PATCH, b'{"a":{"b":1}}', at=2) is UNCHANGED
    assert issue.change(PATCH, b"[1,2]", at=3) is APPLIED
    assert issue.value() == [1, 2]
    assert issue.change(PATCH, b'{"a":1}', at=2) is STALE
    assert issue.change(UPSERT, b"text", at=4) is APPLIED
    assert issue.change(PATCH, b'{"a":1}', at=5) is Outcome.DEAD_LETTERED
    assert issue.change(PATCH, b"{", at=5) is Outcome.DEAD_LETTERED
    assert {letter.failure.reason for letter in issue.store.dead_letters} == {"NOT_JSON"}
    assert issue.change(UPSERT, b"not advanced by the dead", at=4) is APPLIED


def test_a_signal_marks_the_file_and_makes_no_revision() -> None:
    issue = Issue()
    assert issue.change(SIGNAL, received=3) is APPLIED
    assert issue.change(UPSERT, b"1", received=4) is APPLIED
    assert issue.change(SIGNAL, received=5) is APPLIED
    assert issue.change(SIGNAL, received=6) is APPLIED
    assert issue.stale_since_us() == 5
    assert issue.store.files["/issue"].revision == 1
    assert issue.change(UPSERT, b"1", received=7) is UNCHANGED
    assert issue.stale_since_us() is None
    assert len(issue.store.events) == 1
