from collections.abc import Iterator

import pytest

from relayfile.ingest.sending.coalesce import Change, Fold, ObjectKey
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.parcel import Parcel
from relayfile.model import MemberKind


def parcel(name: str, size: int = 100, changes: int = 1, body: bytes = b"") -> Parcel:
    return Parcel("github", name.encode().ljust(12) * changes, b"x" * size, body, None, ())


def names(parcels: list[Parcel]) -> list[str]:
    return [each.refs[:12].strip().decode() for each in parcels]


def lane_of(*parcels: Parcel) -> Lane:
    lane = Lane("acme", 1)
    for each in parcels:
        lane.push(each)
    return lane


def no_folds(fold: Fold) -> list[Parcel]:
    raise AssertionError


def test_a_sub_batch_is_bounded_in_bytes_and_changes() -> None:
    lane = lane_of(*(parcel(str(number), 100, 2) for number in range(10)))
    assert names(lane.take(250, 100, no_folds)) == ["0", "1"]
    assert names(lane.take(10_000, 5, no_folds)) == ["2", "3"]
    assert names(lane.take(1, 1, no_folds)) == ["4"], "at least one"
    assert lane.queued_bytes == 500


def test_what_must_be_sent_again_goes_first_and_in_order() -> None:
    lane = lane_of(parcel("c"), parcel("d"))
    lane.push_front([parcel("a"), parcel("b")])
    assert names(lane.take(10_000, 100, no_folds)) == ["a", "b", "c", "d"]
    assert lane.queued_bytes == 0


def test_a_body_that_follows_is_alone_in_its_sub_batch() -> None:
    lane = lane_of(parcel("a"), parcel("b", body=b"y" * 50), parcel("c"))
    assert [names(lane.take(10_000, 100, no_folds)) for _ in range(3)] == [["a"], ["b"], ["c"]]
    assert lane.queued_bytes == 0


def test_a_fold_is_built_when_its_turn_comes() -> None:
    lane = lane_of(parcel("a"))
    fold = Fold(ObjectKey("acme", "github", "o:issue/1"))
    fold.add(Change(1, 0, 0, 0, 0, MemberKind.UPSERT, None, 0, 1_000), None)
    lane.push(fold)
    lane.push(parcel("d"))
    built = [parcel("b"), parcel("c")]
    assert names(lane.take(10_000, 100, lambda each: built if each is fold else [])) == ["a", "b", "c", "d"]
    assert lane.queued_bytes == 0


@pytest.mark.parametrize(("newest", "last", "unread"), [(0, 0, False), (5, 4, True), (5, 5, False)])
def test_unread_rows_are_known(newest: int, last: int, unread: bool) -> None:
    lane = Lane("acme", 1)
    lane.newest_row_id, lane.last_row_id = newest, last
    assert lane.has_unread is unread


def test_each_provider_has_its_own_age() -> None:
    lane = Lane("acme", 1)
    lane.accepted("github", 2, 1_000_000)
    lane.accepted("linear", 1, 9_000_000)
    assert (lane.ages["github"].oldest_us, lane.ages["linear"].oldest_us) == (1_000_000, 9_000_000)
    lane.settled("github", 2)
    assert (lane.ages["github"].oldest_us, lane.ages["linear"].oldest_us) == (0, 9_000_000)


def test_a_fold_is_built_no_further_than_it_is_taken() -> None:
    lane = Lane("acme", 1)
    fold = Fold(ObjectKey("acme", "github", "o:issue/1"))
    fold.add(Change(1, 0, 0, 10, 0, MemberKind.UPSERT, None, 1, 1_000), None)
    built: list[str] = []

    def build(fold: Fold) -> Iterator[Parcel]:
        for name in "abc":
            built.append(name)
            yield parcel(name, 500)

    lane.push(fold)
    lane.push(parcel("d"))
    assert names(lane.take(600, 100, build)) == ["a"]
    assert built == ["a", "b"]
    lane.push_front([parcel("z")])
    assert names(lane.take(1_150, 100, build)) == ["z", "b", "c"]
    assert names(lane.take(600, 100, build)) == ["d"]
    assert lane.queued_bytes == 0
    assert not lane.has_queued
