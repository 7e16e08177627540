import pytest

from relayfile import paths
from relayfile.errors import InvalidPath


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("", "/"),
        ("/", "/"),
        ("//", "/"),
        ("a", "/a"),
        ("a/", "/a"),
        ("/a/b/", "/a/b"),
        ("/a//", "/a/"),
        ("//a", "//a"),
        ("/A/ä ", "/A/ä "),
        ("/a/../b", "/a/../b"),
    ],
)
def test_normalise_does_three_things_and_nothing_else(raw: str, normal: str) -> None:
    assert paths.normalise(raw) == normal


@pytest.mark.parametrize(
    ("base", "path", "inside"),
    [
        ("/", "/", True),
        ("/", "/x", True),
        ("/github", "/github", True),
        ("/github", "/github/a", True),
        ("/github", "/github2", False),
        ("/github", "/github.json", False),
        ("/github", "/Github/a", False),
        ("/github/a", "/github", False),
    ],
)
def test_containment(base: str, path: str, inside: bool) -> None:
    assert paths.contains(base, path) is inside


@pytest.mark.parametrize(
    ("path", "phrase"),
    [
        ("/", "root"),
        ("", "root"),
        ("a", "start with /"),
        ("/a\x00b", "NUL"),
        ("/a\\b", "backslash"),
        ("/a\nb", "U+000A"),
        ("/a\x7f", "U+007F"),
        ("/a\x85", "U+0085"),
        ("/a\n", "U+000A"),
        ("/a\ud800", "surrogate"),
        ("//a", "empty segment"),
        ("/a//b", "empty segment"),
        ("/a/", "empty segment"),
        ("/.", ". or .."),
        ("/..", ". or .."),
        ("/a/./b", ". or .."),
        ("/a/..", ". or .."),
        ("/" + "a" * 1025, "segment of more than 1024"),
        ("/" + "ä" * 513, "segment of more than 1024"),
        ("/" + "/".join(["a" * 1000] * 5), "longer than 4096"),
    ],
)
def test_what_cannot_be_written(path: str, phrase: str) -> None:
    assert phrase in (paths.check_write_path(path) or "")
    if path.startswith("/") and path != "/" and not path.endswith("/"):
        with pytest.raises(InvalidPath, match="cannot be written"):
            paths.require_write_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "/a",
        "/...",
        "/.a",
        "/a..b/..c",
        "/ä/日本",
        "/a b",
        "/" + "a" * 1024,
        "/" + "/".join(["a" * 1023] * 4),
        "/\u202e",
    ],
)
def test_what_can_be_written(path: str) -> None:
    assert paths.check_write_path(path) is None
    assert paths.require_write_path(path + "/") == path


def test_the_parts_of_a_path() -> None:
    assert paths.segments("/") == ()
    assert paths.segments("/a/b.c") == ("a", "b.c")
    assert paths.name("/a/b.c") == "b.c"
    assert paths.name("/") == ""
    assert paths.parent("/a") == "/"
    assert paths.parent("/a/b") == "/a"
    assert paths.ancestors("/") == ()
    assert paths.ancestors("/a") == ("/",)
    assert paths.ancestors("/a/b/c.json") == ("/a/b", "/a", "/")
    with pytest.raises(AssertionError):
        paths.parent("/")


def test_joining_and_seeing_from_below() -> None:
    assert paths.join("/", "a") == "/a"
    assert paths.join("/a", "b/c") == "/a/b/c"
    assert paths.join("/a", "") == "/a"
    assert paths.relative("/", "/a/b") == "a/b"
    assert paths.relative("/a", "/a/b") == "b"
    assert paths.relative("/a", "/a") == ""


def test_the_range_of_a_subtree() -> None:
    everything = ["/", "/a", "/a ", "/a-b", "/a.json", "/a/b", "/a/ ", "/a/\U0001f600", "/a/b/c", "/a0", "/aa", "/b"]
    for base in ("/", "/a", "/b"):
        low, high = paths.prefix_range(base)
        below = [path for path in everything if paths.contains(base, path) and path != base]
        assert [path for path in everything if low <= path < high] == below
