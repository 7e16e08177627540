import pytest

from relayfile.paths import check_write_path
from relayfile.store.plan.identity import default_path


@pytest.mark.parametrize(
    ("object_id", "path"),
    [
        ("issue/42", "/linear/issue_42.json"),
        ("AGE-12", "/linear/AGE-12.json"),
        ("issue_42", "/linear/issue_42_388106a265ac.json"),
        ("page/ü", "/linear/page___e973cf815954.json"),
        ("a/b/c", "/linear/a_b_c_d76a7b72669c.json"),
        ("..", "/linear/...json"),
    ],
)
def test_where_an_object_without_a_path_goes(object_id: str, path: str) -> None:
    assert default_path("linear", object_id) == path
    assert check_write_path(path) is None


def test_no_two_objects_meet() -> None:
    ids = ["a/b", "a_b", "a/b/c", "a_b/c", "a/b_c", "a b", "a\\b", "ä", "ö", "", "/", "x" * 512, "x" * 511, "x" * 128]
    assert len({default_path("p", object_id) for object_id in ids}) == len(ids)
