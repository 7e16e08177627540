import pytest

from relayfile.syncd import names


@pytest.mark.parametrize(
    "path", ["/.git/config", "/a/.git", "/.relayfile/mirror.json", "/a/.GIT/x", "/.svn/x", "/.Relayfile/trash"]
)
def test_i9_own_and_version_control_directories_are_ignored(path: str) -> None:
    assert names.is_ignored(path)


@pytest.mark.parametrize("path", ["/a.git/b", "/git/x", "/.gitignore", "/a/.relayfile.acl", "/a/.github/x"])
def test_other_names_are_not_ignored(path: str) -> None:
    assert not names.is_ignored(path)


def test_i8_a_long_segment_is_cut_deterministically() -> None:
    long = "é" * 200 + ".json"
    disk = names.shortened(f"/a/{long}/b")
    assert disk == names.shortened(f"/a/{long}/b")
    first, cut, last = disk.split("/")
    assert (first, last) == ("a", "b")
    assert len(cut.encode()) <= 255
    assert cut.endswith(".json")
    assert names.shortened("/a/" + "é" * 201 + ".json") != names.shortened(f"/a/{long}")
    assert names.shortened("/" + "x" * 255) == "x" * 255
    assert len(names.shortened("/" + "x" * 1024)) <= 255


def test_i8_names_that_fold_alike_are_kept_apart() -> None:
    owners: dict[str, str] = {}

    def place(path: str) -> str:
        disk, taken = names.unfolded(path, owners.get)
        owners.update(taken)
        return disk

    assert place("/A/x") == "A/x"
    assert place("/A/y") == "A/y"
    other = place("/a/x")
    assert other.startswith("a~")
    assert place("/a/x") == other
    assert place("/a/y").split("/")[0] == other.split("/")[0]
    assert place("/caf\u00e9") == "caf\u00e9"
    assert place("/cafe\u0301") != "cafe\u0301"
