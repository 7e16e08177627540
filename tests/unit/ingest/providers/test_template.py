import pytest

from relayfile.ingest.providers.template import compile_template, segment
from relayfile.pinned_json import JsonValue


def test_values_become_segments() -> None:
    template = compile_template("/x/{a}/{b.c}.json")
    assert template({"a": "one", "b": {"c": 2}}) == "/x/one/2.json"
    assert template({"a": "../../etc", "b": {"c": "%/\\\n"}}) == "/x/..%2F..%2Fetc/%25%2F%5C%0A.json"


@pytest.mark.parametrize("value", [None, "", True, 1.5, [], {}, [1]])
def test_what_is_no_text_and_no_whole_number_has_no_result(value: JsonValue) -> None:
    assert compile_template("/x/{a}")({"a": value}) is None


@pytest.mark.parametrize(("value", "text"), [(".", "%2E"), ("..", "%2E%2E"), ("...", "..."), (-5, "-5"), ("ü", "ü")])
def test_a_segment_is_never_a_step(value: JsonValue, text: str) -> None:
    assert segment(value) == text


def test_long_values_are_cut_and_stay_different() -> None:
    one, other = segment("x" * 300 + "1"), segment("x" * 300 + "2")
    assert one is not None
    assert other is not None
    assert one != other
    assert len(one.encode()) <= 200
    assert segment("😀" * 49) == "😀" * 49


def test_braces_come_in_pairs() -> None:
    for text in ("/x/{a", "/x/a}", "/x/{{a}}", "/{}"):
        with pytest.raises(ValueError, match=r"brace|complete"):
            compile_template(text)


def test_ids_of_several_parts_are_as_different_as_their_parts() -> None:
    template = compile_template("thing/{a}:{b}:{c}", separator=":")
    assert template({"a": "x:y", "b": 1, "c": "z:w"}) == "thing/x%3Ay:1:z:w"
    assert template({"a": "x%3Ay", "b": 1, "c": "z:w"}) == "thing/x%253Ay:1:z:w"
    assert template({"a": "x", "b": "y", "c": None}) is None
    assert compile_template("thing/{a}", separator=":")({"a": "x:y"}) == "thing/x:y", "one part is what it was"
