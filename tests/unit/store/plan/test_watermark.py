import pytest

from relayfile.model import MemberKind
from relayfile.store.plan.rows import NO_WATERMARK, Watermark
from relayfile.store.plan.watermark import PATCH_MARKS_MAX, advanced, fresh_part, is_stale, with_patch_marks

UPSERT, DELETE, PATCH, SIGNAL = MemberKind.UPSERT, MemberKind.DELETE, MemberKind.PATCH, MemberKind.SIGNAL


@pytest.mark.parametrize(
    ("mark", "kind", "time_us", "slack_us", "stale"),
    [
        (NO_WATERMARK, UPSERT, 1, 0, False),
        (Watermark(5, 5, None, {}), UPSERT, 4, 0, True),
        (Watermark(5, 5, None, {}), UPSERT, 5, 0, False),
        (Watermark(5, 5, None, {}), UPSERT, 3, 2, False),
        (Watermark(5, 5, None, {}), UPSERT, 2, 2, True),
        (Watermark(5, 5, 5, {}), UPSERT, 5, 0, True),
        (Watermark(5, 5, 5, {}), PATCH, 5, 0, True),
        (Watermark(5, 5, 5, {}), DELETE, 5, 0, False),
        (Watermark(5, 5, 5, {}), SIGNAL, 5, 0, False),
        (Watermark(6, 5, 5, {}), UPSERT, 6, 0, False),
        (Watermark(9, 5, None, {"a": 9}), PATCH, 5, 0, False),
        (Watermark(9, 5, None, {"a": 9}), PATCH, 4, 0, True),
        (Watermark(9, 5, None, {"a": 9}), UPSERT, 8, 0, True),
        (Watermark(9, None, None, {"a": 9}), PATCH, 1, 0, False),
    ],
)
def test_staleness(mark: Watermark, kind: MemberKind, time_us: int, slack_us: int, stale: bool) -> None:
    assert is_stale(mark, kind, time_us, slack_us) is stale


def test_advancing() -> None:
    mark = advanced(NO_WATERMARK, PATCH, 5)
    assert mark == Watermark(5, None, None, {})
    mark = with_patch_marks(mark, ["a", "b"], 5)
    assert mark.patch_marks == {"a": 5, "b": 5}
    mark = with_patch_marks(advanced(mark, PATCH, 7), ["b"], 7)
    assert advanced(mark, UPSERT, 6) == Watermark(7, 6, None, {"b": 7})
    assert advanced(mark, DELETE, 8) == Watermark(8, 8, None, {})
    assert advanced(mark, DELETE, 8, deletes_beat=True) == Watermark(8, 8, 8, {})
    assert advanced(Watermark(8, 8, 8, {}), UPSERT, 9) == Watermark(9, 9, 8, {})


def test_a_patch_is_held_to_the_last_patch_of_each_member() -> None:
    mark = Watermark(9, 3, None, {"a": 9, "b": 4})
    assert fresh_part(mark, {"a": 1, "b": 2, "c": 3}, 5, 0) == {"b": 2, "c": 3}
    assert fresh_part(mark, {"a": 1}, 5, 4) == {"a": 1}


def test_beyond_the_marks_the_objects_time_counts() -> None:
    names = [f"n{index}" for index in range(PATCH_MARKS_MAX + 5)]
    mark = with_patch_marks(advanced(NO_WATERMARK, PATCH, 5), names, 5)
    assert len(mark.patch_marks) == PATCH_MARKS_MAX
    mark = with_patch_marks(advanced(mark, PATCH, 9), ["n0"], 9)
    assert fresh_part(mark, {"n1": 1, "n300": 1, "new": 1}, 6, 0) == {"n1": 1}
    assert fresh_part(mark, {"new": 1}, 9, 0) == {"new": 1}
