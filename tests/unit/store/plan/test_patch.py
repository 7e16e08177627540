import pytest

from relayfile.pinned_json import NotJson, TooLong
from relayfile.store.plan.patch import patched


def test_content_that_keeps_its_value_keeps_its_bytes() -> None:
    content = b'{ "b": 1,\n  "a": {} }'
    assert patched(content, {"b": 1, "gone": None}, 100) is content
    assert patched(content, {"b": True}, 100) == b'{\n  "a": {},\n  "b": true\n}\n'
    assert patched(None, {"a": None, "b": {"c": None}}, 100) == b'{\n  "b": {}\n}\n'
    with pytest.raises(NotJson):
        patched(b"text", {"a": 1}, 100)


def test_nesting_beyond_reason_is_refused() -> None:
    value: dict[str, object] = {}
    for _ in range(5_000):
        value = {"a": value}
    with pytest.raises(NotJson):
        patched(b"{}", value, 100)  # type: ignore[arg-type]  # deeper than the type can say


def test_a_file_is_as_long_as_it_may_be_and_not_longer() -> None:
    assert len(patched(b'{"a": 1}', {"b": [1]}, 33)) == 33
    with pytest.raises(TooLong):
        patched(b'{"a": 1}', {"b": [1]}, 32)
    nested = b'{"a": ' + b"[" * 900 + b"0," * 100_000 + b"0" + b"]" * 900 + b"}"
    assert patched(nested, {"a": 1}, 100) == b'{\n  "a": 1\n}\n'
