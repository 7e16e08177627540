"""Different parts make different object ids, and different values different segments, whatever a sender writes."""

from hypothesis import example, given
from hypothesis import strategies as st

from relayfile.ingest.providers.template import compile_template
from relayfile.pinned_json import JsonValue

texts = st.text(alphabet=":%~/a3A\\.", min_size=1, max_size=8) | st.text(min_size=1, max_size=300)
parts = st.lists(texts, min_size=3, max_size=3)
TEMPLATE = compile_template("thing/{[0]}:{[1]}:{[2]}", separator=":")


def made(values: list[str]) -> str | None:
    document: list[JsonValue] = [*values]
    return TEMPLATE(document)


@given(parts, parts)
@example(["a:b", "c", "d"], ["a", "b:c", "d"])
@example(["a", "b:c", "d"], ["a", "b", "c:d"])
@example(["a%3Ab", "c", "d"], ["a:b", "c", "d"])
@example([".", "c", "d"], ["%2E", "c", "d"])
@example(["x" * 300, "c", "d"], ["x" * 301, "c", "d"])
def test_no_two_lists_of_parts_have_one_id(one: list[str], other: list[str]) -> None:
    if one != other:
        assert made(one) != made(other)
    assert made(one) == made(list(one))
