import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.syncd.ignore import IgnoreRules, is_transient, parsed

LINES = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="ab*?[]!/\\# .-^{}$\x00\n\r", max_size=30),
    st.sampled_from(
        ["[", "[]", "[!]", "\\", "**", "/", "!", "!/", "a**b", "[[:alpha:]]", "[z-a]", "\\ ", "a/**/b", "***"]
    ),
)
PATHS = st.lists(st.text(alphabet="ab.-[]*\u00e4\U0001f600", min_size=1, max_size=8), min_size=1, max_size=5).map(
    "/".join
)


@given(st.lists(LINES, max_size=12), PATHS, st.booleans())
def test_whatever_an_ignore_file_says_it_is_heeded_without_an_error(
    lines: list[str], path: str, is_directory: bool
) -> None:
    rules = IgnoreRules()
    rules.learn("", "\n".join(lines))
    rules.learn(path.split("/", maxsplit=1)[0], "\n".join(reversed(lines)))
    assert rules.excludes(path, directory=is_directory) in (True, False)
    assert rules.covers("/" + path) in (True, False)


@given(st.binary(max_size=200), PATHS)
def test_bytes_that_are_no_text_are_heeded_as_far_as_they_go(content: bytes, path: str) -> None:
    rules = IgnoreRules()
    rules.learn("", content.decode(errors="replace") + "\nsurely.ignored\n")
    assert rules.excludes("surely.ignored", directory=False)
    rules.excludes_below(path)


@pytest.mark.parametrize("pattern", ["*a*a*a*b", "a*a*a*", "**/a/**/a/**/b", "*" * 50, "*a" * 50, "**/" * 50 + "b"])
def test_a_pattern_costs_little_whatever_it_is(pattern: str) -> None:
    spec = parsed(pattern)
    if spec is None:
        return
    started = time.process_time()
    spec.check_file("a" * 255)
    spec.check_file("a/" * 1_000 + "c")
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("text", "ignored", "kept"),
    [
        ("*.log", ["a.log", "x/y/b.log"], ["a.logs", "log"]),
        ("/build", ["build", "build/x"], ["src/build"]),
        ("build/", ["build/x", "a/build/x"], ["build"]),
        ("*.log\n!keep.log", ["a.log"], ["keep.log", "x/keep.log"]),
        ("node_modules/\n!node_modules/keep", ["node_modules/keep"], ["keep"]),
        ("doc/*.txt", ["doc/a.txt"], ["doc/x/a.txt", "a.txt"]),
        ("**/tmp", ["tmp", "a/b/tmp", "a/tmp/c"], ["tmpx"]),
        ("# *.txt\n\\#a", ["#a"], ["a.txt"]),
        ("", [".git/config", "a/.HG/x", ".relayfile/x"], [".gitignore", ".relayfileignore", "git"]),
    ],
)
def test_rules_mean_what_they_mean_to_git(text: str, ignored: list[str], kept: list[str]) -> None:
    rules = IgnoreRules()
    rules.learn("", text)
    assert [path for path in ignored if not rules.excludes_below(path)] == []
    assert [path for path in kept if rules.excludes_below(path)] == []


def test_a_nested_file_speaks_for_its_directory_and_before_those_above() -> None:
    rules = IgnoreRules()
    rules.learn("", "*.log\n/out\n")
    rules.learn("a/b", "!keep.log\n/out\n")
    assert [rules.covers(path) for path in ("/a/keep.log", "/a/b/keep.log", "/a/b/c/keep.log", "/a/b/x.log")] == [
        True,
        False,
        False,
        True,
    ]
    assert [rules.covers(path) for path in ("/out", "/a/out", "/a/b/out", "/a/b/c/out")] == [True, False, True, False]
    version = rules.version
    assert not rules.learn("a/b", "!keep.log\n/out\n")
    assert rules.learn("a/b", "")
    assert (rules.covers("/a/b/keep.log"), rules.version > version) == (True, True)


def test_names_of_editors_are_told_from_others() -> None:
    passing = ["a.txt~", "d/4913", ".a.swp", ".a.swo", ".#a", "#a#", ".~lock.a.odt#", ".DS_Store", "~$a.docx", "._a"]
    assert [name for name in passing if not is_transient(name)] == []
    assert [name for name in ("a", "4913/a", "a.swift", "swp", "#a", ".a", "4914", "a~/b") if is_transient(name)] == []
