import pytest

from relayfile.syncd import safety


@pytest.mark.parametrize(
    ("deletes", "tracked", "emptied", "rule"),
    [
        (0, 0, [], None),
        (1, 1, [], None),
        (10, 10, [], None),
        (11, 22, [], None),
        (11, 21, [], "OVER_HALF"),
        (1000, 100_000, [], None),
        (1001, 100_000, [], "OVER_COUNT"),
        (101, 100_000, ["/a"], "WHOLE_DIRECTORY"),
    ],
)
def test_i4_when_a_plan_is_refused(deletes: int, tracked: int, emptied: list[str], rule: str | None) -> None:
    assert safety.refusal(deletes, tracked, 1000, emptied) == rule


def test_i4_only_large_directories_are_asked_about() -> None:
    deleted = [f"/a/b/{index}" for index in range(100)]
    assert safety.directories_to_ask(deleted) == []
    assert sorted(safety.directories_to_ask([*deleted, "/a/c"])) == ["/", "/a"]
    assert sorted(safety.directories_to_ask([*deleted, "/a/b/more"])) == ["/", "/a", "/a/b"]
