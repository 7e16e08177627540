import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile import pinned_json
from relayfile.pinned_json import JsonValue, NotJson, TooLong

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.text(',:[{"a', max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("{a,", max_size=3), inner, max_size=4),
    max_leaves=30,
)


def test_the_form_is_pinned() -> None:
    assert pinned_json.write({"b": [1, 2.5, None], "a": {"é": True}, "c": {}}) == (
        b'{\n  "a": {\n    "\xc3\xa9": true\n  },\n  "b": [\n    1,\n    2.5,\n    null\n  ],\n  "c": {}\n}\n'
    )


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"nan",
        b"NaN",
        b'"\xff"',
        b"[" * 100_000,
        b'"\\ud800"',
        b"1e999",
        b"{'a': 1}",
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b'{"\\uD800":1}',
    ],
)
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(NotJson):
        pinned_json.read(data)


def test_numbers_of_any_length_and_characters_of_any_plane_survive() -> None:
    data = '{\n  "big": 1180591620717411303424,\n  "one": 1.0,\n  "text": "😀"\n}\n'.encode()
    assert pinned_json.write(pinned_json.read(data)) == data
    assert pinned_json.read(b'"\\ud83d\\ude00"') == "😀"


def test_of_repeated_members_the_last_counts() -> None:
    assert pinned_json.read(b'{"a": 1, "a": 2}') == {"a": 2}


# RFC 7386, appendix A.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merging_follows_the_rfc(target: JsonValue, patch: JsonValue, result: JsonValue) -> None:
    assert pinned_json.merge(target, patch) == result


def test_two_patches_that_no_one_patch_equals() -> None:
    with pytest.raises(ValueError, match="replaces a value"):
        pinned_json.merge_patches({"a": 1}, {"a": {"b": 2}})


@given(VALUES)
def test_the_limit_is_exact(value: JsonValue) -> None:
    written = pinned_json.write(value)
    assert pinned_json.write(value, len(written)) == written
    with pytest.raises(TooLong):
        pinned_json.write(value, len(written) - 1)


def test_what_indentation_would_blow_up_takes_no_memory() -> None:
    """40 kB that stand for 36 MB; with a body of 20 MB it would be 18 GB."""
    value = pinned_json.read(b"[" * 900 + b"0," * 20_000 + b"0" + b"]" * 900)
    tracemalloc.start()
    try:
        with pytest.raises(TooLong):
            pinned_json.write(value, 16 << 20)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
