import hashlib

from hypothesis import given
from hypothesis import strategies as st

from relayfile.store.servicers.have import HaveSet


def hash_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@given(st.lists(st.sets(st.integers(0, 10_000), max_size=200), max_size=4), st.sets(st.integers(0, 10_000)))
def test_it_holds_what_was_added_and_nothing_else(added: list[set[int]], asked: set[int]) -> None:
    have = HaveSet()
    for message in added:
        have.add(b"".join(hash_of(number) for number in message))
    known = set().union(*added)
    assert {number for number in asked if hash_of(number) in have} == asked & known
    assert all(hash_of(number) in have for number in known)
    assert len(have) == sum(map(len, added))


def test_nothing_is_in_an_empty_one() -> None:
    have = HaveSet()
    assert hash_of(1) not in have


def test_what_is_added_after_a_question_is_found_too() -> None:
    have = HaveSet()
    have.add(hash_of(1))
    assert hash_of(2) not in have
    have.add(hash_of(2) + hash_of(3))
    assert all(hash_of(number) in have for number in (1, 2, 3))
