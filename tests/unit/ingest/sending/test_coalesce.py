from relayfile.ingest.sending.coalesce import Change, CoalesceLimits, Coalescer, ObjectKey
from relayfile.model import MemberKind

A, B, C = (ObjectKey("w", "p", f"o:issue/{name}") for name in "abc")


def limits(
    window_s: float = 3.0, leading: bool = True, objects_max: int = 100, fold_members_max: int = 100
) -> CoalesceLimits:
    return CoalesceLimits(window_s, leading, objects_max, 1_000, fold_members_max, 1_000_000)


def upsert(number: int, *, occurred_us: int | None = None, size_bytes: int = 10) -> Change:
    return Change(number, 0, 0, 0, 0, MemberKind.UPSERT, occurred_us, 1_000_000 + number, size_bytes)


def offer(coalescer: Coalescer, key: ObjectKey, change: Change, now_s: float, path: str = "") -> bool:
    """Whether the change goes out now; else it is held. Without a path, each object has one of its own."""
    path = path or f"/{key.change_key}"
    window = coalescer.offer(key, path, now_s)
    if window is not None:
        coalescer.hold(window, change, None)
    return window is None


def left(coalescer: Coalescer) -> list[tuple[ObjectKey, list[int]]]:
    return [(fold.key, [member.change.row_id for member in fold.members()]) for fold in coalescer.take_flushed()]


def test_the_first_change_goes_out_at_once_and_the_rest_when_the_window_closes() -> None:
    coalescer = Coalescer(limits())
    assert offer(coalescer, A, upsert(1), 10.0)
    assert not offer(coalescer, A, upsert(2), 11.0)
    assert not offer(coalescer, A, upsert(3), 12.9)
    assert not coalescer.has_flushed
    assert coalescer.next_end_s() == 13.0
    coalescer.expire(13.0)
    assert left(coalescer) == [(A, [2, 3])]


def test_an_object_that_never_rests_is_flushed_once_for_each_window() -> None:
    coalescer = Coalescer(limits())
    assert offer(coalescer, A, upsert(0), 0.0)
    flushes = []
    for number in range(1, 100):
        assert not offer(coalescer, A, upsert(number), number / 10)
        flushes += left(coalescer)
    assert [numbers[-1] for _, numbers in flushes] == [29, 59, 89]


def test_a_quiet_object_is_forgotten() -> None:
    coalescer = Coalescer(limits())
    assert offer(coalescer, A, upsert(1), 0.0)
    coalescer.expire(3.0)
    assert coalescer.objects == 0
    assert offer(coalescer, A, upsert(2), 3.5)


def test_without_a_leading_edge_the_first_change_is_held_too() -> None:
    coalescer = Coalescer(limits(leading=False))
    assert not offer(coalescer, A, upsert(1), 0.0)
    coalescer.expire(2.9)
    assert left(coalescer) == []
    coalescer.expire(3.0)
    assert left(coalescer) == [(A, [1])]
    assert coalescer.objects == 0


def test_no_window_means_no_folds() -> None:
    coalescer = Coalescer(limits(window_s=0))
    assert all(offer(coalescer, A, upsert(number), 0.0) for number in range(3))
    assert coalescer.objects == 0


def test_a_full_fold_leaves_before_its_window_closes() -> None:
    coalescer = Coalescer(limits(fold_members_max=2))
    for number in range(4):
        offer(coalescer, A, upsert(number), 0.0)
    assert left(coalescer) == [(A, [1, 2])]
    coalescer.expire(3.0)
    assert left(coalescer) == [(A, [3])]


def test_too_many_objects_close_the_window_that_would_close_next() -> None:
    coalescer = Coalescer(limits(objects_max=2))
    offer(coalescer, A, upsert(1), 0.0)
    offer(coalescer, A, upsert(2), 0.0)
    offer(coalescer, B, upsert(3), 0.1)
    offer(coalescer, C, upsert(4), 0.2)
    assert left(coalescer) == [(A, [2])]
    assert coalescer.objects == 2


def test_a_change_at_a_path_lets_what_another_object_holds_there_go_first() -> None:
    coalescer = Coalescer(limits())
    offer(coalescer, A, upsert(1), 0.0, "/x")
    offer(coalescer, A, upsert(2), 0.1, "/x")
    assert offer(coalescer, C, upsert(3), 0.2, "/elsewhere")
    assert not coalescer.has_flushed
    assert offer(coalescer, B, upsert(4), 0.3, "/x"), "B goes out at once: A's held change must leave before it"
    assert left(coalescer) == [(A, [2])]
    offer(coalescer, B, upsert(5), 0.4, "/x")
    offer(coalescer, B, upsert(6), 0.4, "/x")
    assert not coalescer.has_flushed
    offer(coalescer, A, upsert(7), 0.5, "/x")
    assert left(coalescer) == [(B, [5, 6])]
    coalescer.expire(9.0)
    assert left(coalescer) == [(A, [7])]
    coalescer.expire(20.0)
    offer(coalescer, A, upsert(8), 30.0, "/x")
    assert offer(coalescer, B, upsert(9), 30.1, "/x")
    assert not coalescer.has_flushed, "nothing is remembered of windows that have closed"


def test_a_rival_that_moves_away_goes_before_who_comes_to_its_old_path() -> None:
    coalescer = Coalescer(limits())
    assert offer(coalescer, B, upsert(1), 0.0, "/x")
    assert offer(coalescer, A, upsert(2), 0.1, "/x")
    assert not offer(coalescer, A, upsert(3), 0.2, "/y")
    assert not offer(coalescer, B, upsert(4), 0.3, "/x")
    assert left(coalescer) == [(A, [3])]
    assert not offer(coalescer, A, upsert(5), 0.4, "/z")
    assert left(coalescer) == [(B, [4])]


def test_only_the_newest_content_of_each_clock_travels() -> None:
    coalescer = Coalescer(limits(leading=False))
    for change in (
        upsert(1, occurred_us=50),
        upsert(2),
        upsert(3, occurred_us=70),
        upsert(4),
        upsert(5, occurred_us=60),
    ):
        offer(coalescer, A, change, 0.0)
    coalescer.close_all()
    (fold,) = coalescer.take_flushed()
    assert [(member.change.row_id, member.elided) for member in fold.members()] == [
        (1, True),
        (2, True),
        (3, False),
        (4, False),
        (5, True),
    ]


def test_objects_whose_path_is_not_known_do_not_contend() -> None:
    coalescer = Coalescer(limits(leading=False))
    for number, key in enumerate((A, B, A, B)):
        window = coalescer.offer(key, "", 0.0)
        assert window is not None
        coalescer.hold(window, upsert(number), None)
    assert left(coalescer) == []
    coalescer.expire(3.0)
    assert left(coalescer) == [(A, [0, 2]), (B, [1, 3])]


def test_a_file_below_a_named_path_lets_what_is_held_there_go_first() -> None:
    """A service replaces a file by a directory: the file must be gone first."""
    coalescer = Coalescer(limits())
    assert offer(coalescer, A, upsert(1), 0.0, "/docs")
    assert not offer(coalescer, A, upsert(2), 0.1, "/docs")
    assert offer(coalescer, B, upsert(3), 0.2, "/docs/guide/readme.md")
    assert left(coalescer) == [(A, [2])]
    assert not offer(coalescer, B, upsert(4), 0.3, "/docs/guide/readme.md")
    assert not offer(coalescer, A, upsert(5), 0.4, "/docs")
    assert left(coalescer) == [(B, [4])]
    assert offer(coalescer, C, upsert(6), 0.5, "/docsx")
    assert not left(coalescer)


def test_a_file_above_named_paths_lets_what_is_held_below_go_first() -> None:
    coalescer = Coalescer(limits())
    for key, path in ((A, "/docs/a"), (B, "/docs/deep/b"), (C, "/other/c")):
        assert offer(coalescer, key, upsert(1), 0.0, path)
        assert not offer(coalescer, key, upsert(2), 0.1, path)
    above = ObjectKey("w", "p", "o:issue/above")
    assert offer(coalescer, above, upsert(3), 0.2, "/docs")
    assert {key for key, _ in left(coalescer)} >= {A, B}
    assert not offer(coalescer, above, upsert(4), 0.3, "/docs")
    assert offer(coalescer, A, upsert(5), 0.4, "/docs/a")
    assert left(coalescer) == [(above, [4])]
    coalescer.close_all()
    assert coalescer.objects == coalescer.members_held == 0


def test_windows_of_some_objects_close_and_the_others_stay() -> None:
    coalescer = Coalescer(limits(leading=False))
    for number, key in enumerate((A, B, A, B)):
        offer(coalescer, key, upsert(number), 0.0)
    coalescer.close(lambda key: key == A)
    assert left(coalescer) == [(A, [0, 2])]
    assert coalescer.objects == 1
    assert coalescer.members_held == 2
    coalescer.expire(3.0)
    assert left(coalescer) == [(B, [1, 3])]
