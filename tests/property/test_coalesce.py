"""The coalescer against a plain model: nothing is lost, doubled or reordered, and the bounds hold."""

import itertools
from collections import defaultdict
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from relayfile.ingest.sending.coalesce import Change, CoalesceLimits, Coalescer, Fold, ObjectKey
from relayfile.model import MemberKind
from relayfile.watermark import stamp, wins_over

KINDS = st.sampled_from([MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL])
TIMES = st.one_of(st.none(), st.integers(1_000, 1_004))


@dataclass
class Offer:
    object: int
    kind: MemberKind
    occurred_us: int | None
    received_us: int
    size_bytes: int
    after_s: float


OFFERS = st.lists(
    st.builds(
        Offer,
        object=st.integers(0, 4),
        kind=KINDS,
        occurred_us=TIMES,
        received_us=st.integers(1_000, 1_010),
        size_bytes=st.integers(0, 50),
        after_s=st.sampled_from([0.0, 0.0, 0.1, 0.5, 1.0, 2.5]),
    ),
    max_size=60,
)
LIMITS = st.builds(
    CoalesceLimits,
    window_s=st.sampled_from([0.0, 1.0, 3.0]),
    leading=st.booleans(),
    objects_max=st.sampled_from([1, 2, 100]),
    members_max=st.sampled_from([1, 5, 1_000]),
    fold_members_max=st.sampled_from([1, 3, 100]),
    fold_bytes_max=st.sampled_from([20, 100, 10_000]),
)


@dataclass
class Run:
    """What left, in order: (time, key, row ids, fold or None for a change that went out at once)."""

    limits: CoalesceLimits
    coalescer: Coalescer
    left: list[tuple[float, ObjectKey, list[int], Fold | None]] = field(default_factory=list)

    def take(self, now_s: float) -> None:
        for fold in self.coalescer.take_flushed():
            self.left.append((now_s, fold.key, [member.change.row_id for member in fold.members()], fold))


def replay(limits: CoalesceLimits, offers: list[Offer]) -> Run:
    run = Run(limits, Coalescer(limits))
    now_s = 100.0
    for number, offer in enumerate(offers):
        now_s += offer.after_s
        while (end_s := run.coalescer.next_end_s()) is not None and end_s <= now_s:
            run.coalescer.expire(end_s)
            run.take(end_s)
        key = ObjectKey("w", "p", f"o:{offer.object}")
        change = Change(number, 0, 0, 0, 0, offer.kind, offer.occurred_us, offer.received_us, offer.size_bytes)
        window = run.coalescer.offer(key, f"/{offer.object}", now_s)
        run.take(now_s)
        if window is None:
            run.left.append((now_s, key, [number], None))
        else:
            run.coalescer.hold(window, change, b"%d" % number)
            run.take(now_s)
        assert run.coalescer.objects <= limits.objects_max
        assert run.coalescer.members_held <= limits.members_max
    run.coalescer.close_all()
    run.take(now_s)
    assert run.coalescer.objects == run.coalescer.members_held == 0
    assert run.coalescer.next_end_s() is None
    return run


@given(LIMITS, OFFERS)
def test_every_change_leaves_once_and_in_the_order_of_its_object(limits: CoalesceLimits, offers: list[Offer]) -> None:
    offered: dict[str, list[int]] = defaultdict(list)
    for number, offer in enumerate(offers):
        offered[f"o:{offer.object}"].append(number)
    left: dict[str, list[int]] = defaultdict(list)
    for _, key, numbers, _ in replay(limits, offers).left:
        left[key.change_key] += numbers
    assert left == offered


@given(LIMITS, OFFERS)
def test_folds_keep_their_bounds_and_their_facts(limits: CoalesceLimits, offers: list[Offer]) -> None:
    for _, _, _, fold in replay(limits, offers).left:
        if fold is None:
            continue
        members = list(fold.members())
        assert 1 <= len(members) == fold.count <= limits.fold_members_max
        for member in members:
            offer = offers[member.change.row_id]
            assert member.note == b"%d" % member.change.row_id
            assert member.change[5:] == (offer.kind, offer.occurred_us, offer.received_us, offer.size_bytes)
        sent_bytes = sum(member.change.size_bytes for member in members if not member.elided)
        assert sent_bytes <= fold.content_bytes
        assert sent_bytes <= limits.fold_bytes_max or len(members) == 1


@given(LIMITS, OFFERS)
def test_an_elided_content_has_a_winner_that_is_not(limits: CoalesceLimits, offers: list[Offer]) -> None:
    for _, _, _, fold in replay(limits, offers).left:
        members = list(fold.members()) if fold is not None else []
        stamps = [stamp(each.change.kind, each.change.occurred_us, each.change.received_us) for each in members]
        for place, member in enumerate(members):
            winners = [
                other
                for other in range(len(members))
                if other != place and wins_over(stamps[other], stamps[place], winner_is_later=other > place)
            ]
            assert member.elided == bool(winners)
            if winners:
                assert any(not members[other].elided for other in winners)


@given(OFFERS, st.booleans())
def test_an_object_is_flushed_at_most_once_in_each_window(offers: list[Offer], leading: bool) -> None:
    limits = CoalesceLimits(3.0, leading, 1_000, 100_000, 4_096, 1 << 30)
    flushes: dict[ObjectKey, list[float]] = defaultdict(list)
    run = replay(limits, offers)
    end_s = run.left[-1][0] if run.left else 0.0
    for now_s, key, _, _ in run.left:
        if now_s < end_s:  # what left at the very end was forced out
            flushes[key].append(now_s)
    for times in flushes.values():
        assert all(later - earlier >= 3.0 - 1e-9 for earlier, later in itertools.pairwise(times))
