import json

import pytest

from relayfile.store.plan.patch import Json, NotJson, merge, parse, patched, serialise

# RFC 7386, Appendix A: original, patch, result.
RFC_7386 = [
    ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
    ('{"a":"b"}', '{"a":null}', "{}"),
    ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
    ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
    ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
    ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
    ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
    ('["a","b"]', '["c","d"]', '["c","d"]'),
    ('{"a":"b"}', '["c"]', '["c"]'),
    ('{"a":"foo"}', "null", "null"),
    ('{"a":"foo"}', '"bar"', '"bar"'),
    ('{"e":null}', '{"a":1}', '{"a":1,"e":null}'),
    ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
    ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
]


@pytest.mark.parametrize(("original", "patch", "result"), RFC_7386)
def test_merging(original: str, patch: str, result: str) -> None:
    target = json.loads(original)
    assert serialise(merge(target, json.loads(patch))).decode() == result
    assert target == json.loads(original)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ({"b": 1, "a": [True, None, 1.5, "ü😀"]}, '{"a":[true,null,1.5,"ü😀"],"b":1}'.encode()),
        ({"big": 2**70, "one": 1.0}, b'{"big":1180591620717411303424,"one":1.0}'),
        ({"a": "😀"}, '{"a":"😀"}'.encode()),
    ],
)
def test_the_pinned_form(value: Json, form: bytes) -> None:
    assert serialise(value) == form
    assert serialise(parse(form)) == form


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nope",
        b'{"a":NaN}',
        b"[Infinity]",
        '{"a":1}'.encode("utf-16"),
        b"\xff",
        b"[" * 100_000,
        b"{} {}",
        b'{"\\uD800":1}',
    ],
)
def test_what_is_not_json(data: bytes) -> None:
    with pytest.raises(NotJson):
        parse(data)


def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse(b'{"a":"\\ud83d\\ude00"}') == {"a": "😀"}


def test_a_number_beyond_all_floats_has_no_form() -> None:
    with pytest.raises(NotJson):
        patched(b"{}", parse(b'{"a":1e999}'))


def test_content_that_keeps_its_value_keeps_its_bytes() -> None:
    content = b'{ "b": 1,\n  "a": {} }'
    assert patched(content, {"b": 1, "gone": None}) is content
    assert patched(content, {"b": True}) == b'{"a":{},"b":true}'
    assert patched(None, {"a": None, "b": {"c": None}}) == b'{"b":{}}'
    with pytest.raises(NotJson):
        patched(b"text", {"a": 1})
