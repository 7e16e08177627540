"""Max-min fair shares, held to their definition and to what they promise."""

from collections.abc import Mapping
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from relayfile.ingest.shares import Shares

CAPACITY = 1_000
HALF = CAPACITY // 2

amounts = st.integers(0, 400)
providers = st.dictionaries(st.sampled_from("pqrs"), amounts, max_size=4)
everybody = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), providers, max_size=5)


def max_min(demands: Mapping[str, int], capacity: int) -> dict[str, Fraction]:
    """The definition: in order of what they want, each gets that or an equal part of what is left."""
    given: dict[str, Fraction] = {}
    left = Fraction(capacity)
    for number, (name, wanted) in enumerate(sorted(demands.items(), key=lambda item: item[1])):
        given[name] = min(Fraction(wanted), left / (len(demands) - number))
        left -= given[name]
    return given


def filled(usage: Mapping[str, Mapping[str, int]]) -> Shares:
    shares = Shares(CAPACITY, stale_bytes=0)
    for workspace, of in usage.items():
        for provider, size in of.items():
            if size:
                shares.add(workspace, provider, size)
    return shares


@settings(max_examples=500)
@given(everybody, st.sampled_from("abcde"), st.sampled_from("pqrs"), st.integers(1, 300))
def test_who_is_refused_is_past_its_max_min_share(
    usage: dict[str, dict[str, int]], workspace: str, provider: str, size: int
) -> None:
    shares = filled(usage)
    total = sum(sum(of.values()) for of in usage.values())
    own = usage.get(workspace, {})
    wanted = sum(own.values()) + size
    demands = {name: sum(of.values()) for name, of in usage.items()} | {workspace: wanted}
    is_past = max_min(demands, HALF)[workspace] < wanted
    # Its share is what it would get if it wanted everything.
    share = int(max_min(demands | {workspace: 10 * CAPACITY}, HALF)[workspace])
    inside = own | {provider: own.get(provider, 0) + size}
    is_past_inside = max_min(inside, share)[provider] < inside[provider]
    assert (shares.excess(workspace, provider, size) > 0) == (total > HALF and is_past and is_past_inside)


@given(everybody, st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from("pqrs"), st.integers(1, 200))))
def test_whoever_has_no_more_than_an_equal_part_is_never_refused(
    usage: dict[str, dict[str, int]], requests: list[tuple[str, str, int]]
) -> None:
    shares = filled(usage)
    for workspace, provider, size in requests:
        everyone = {name for (name, _), _ in shares} | {workspace}
        has = sum(taken for (name, _), taken in shares if name == workspace)
        if shares.excess(workspace, provider, size):
            assert has + size > HALF // len(everyone)
        else:
            shares.add(workspace, provider, size)


@given(everybody)
def test_what_is_given_back_is_gone(usage: dict[str, dict[str, int]]) -> None:
    shares = filled(usage)
    for (workspace, provider), size in list(shares):
        shares.give_back(workspace, provider, size)
    assert (shares.size_bytes, list(shares)) == (0, [])


def test_below_half_one_may_have_everything() -> None:
    shares = Shares(CAPACITY)
    shares.add("a", "p", HALF)
    assert shares.excess("a", "p", HALF) == 0


def test_stale_amounts_are_off_by_no_more_than_what_moved() -> None:
    exact, stale = Shares(CAPACITY, stale_bytes=0), Shares(CAPACITY, stale_bytes=40)
    for number in range(60):
        for shares in (exact, stale):
            shares.add(f"w{number % 7}", "p", 10)
        for name in ("w0", "w6", "new"):
            difference = exact.excess(name, "p", 1) - stale.excess(name, "p", 1)
            assert abs(difference) <= 40


def test_of_very_many_providers_each_may_have_an_even_part() -> None:
    shares = Shares(CAPACITY * 1_000, stale_bytes=0)
    for number in range(300):
        shares.add("a", f"p{number}", 2_000)
    assert shares.excess("a", "p0", 10) > 0
    assert shares.excess("a", "new", 1_000) == 0
    assert shares.excess("b", "p", 200_000) == 0
