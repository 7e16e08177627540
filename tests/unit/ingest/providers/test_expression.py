import pytest

from relayfile.ingest.providers.expression import ExpressionError, compile_expression
from relayfile.pinned_json import JsonValue

DOCUMENT: JsonValue = {
    "a": {"b": {"c": {"d": 4}}, "s": "text", "n": None, "f": False, "zero": 0, "empty": ""},
    "list": [{"x": 1}, [10, 20]],
    "odd name": "odd",
    "0": "text key",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.s", "text"),
        ("a.b.c", {"d": 4}),
        ("a.b.c.d", 4),
        ("list[0].x", 1),
        ("list[1][-1]", 20),
        ("list[2]", None),
        ("list[-3]", None),
        ("list.x", None),
        ("a[0]", None),
        ("a.s[0]", None),
        ("a.s.t.u", None),
        ("missing", None),
        ('"odd name"', "odd"),
        ("'literal'", "literal"),
        ("''", ""),
        ("a.n || a.f || a.empty || a.zero || 'x'", 0),
        ("missing || 'x'", "x"),
        ("missing || a.n", None),
        (" a . s ", "text"),
        ("@", DOCUMENT),
    ],
)
def test_values(text: str, value: JsonValue) -> None:
    assert compile_expression(text)(DOCUMENT) == value


def test_an_index_may_stand_first() -> None:
    assert compile_expression("[1].a")([0, {"a": 5}]) == 5
    assert compile_expression("[0]")({"a": 1}) is None


@pytest.mark.parametrize(
    "text",
    ["", " ", "a.", ".a", "a..b", "a b", "a |", "a ||", "|| a", "a[", "a[x]", "a[0", "a.[0]", "a.'x'", "'x'.a", "a[*]",
     "a[?b]", "length(a)", "a == 'b'", "'it\\'s'", "@.a", "a" * 501, "[99999999999]", "{a: b}", "&a", "`1`"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text)
