import pytest

from relayfile.pinned_json import NotJson
from relayfile.store.plan.patch import patched


def test_content_that_keeps_its_value_keeps_its_bytes() -> None:
    content = b'{ "b": 1,\n  "a": {} }'
    assert patched(content, {"b": 1, "gone": None}) is content
    assert patched(content, {"b": True}) == b'{\n  "a": {},\n  "b": true\n}\n'
    assert patched(None, {"a": None, "b": {"c": None}}) == b'{\n  "b": {}\n}\n'
    with pytest.raises(NotJson):
        patched(b"text", {"a": 1})


def test_nesting_beyond_reason_is_refused() -> None:
    value: dict[str, object] = {}
    for _ in range(5_000):
        value = {"a": value}
    with pytest.raises(NotJson):
        patched(b"{}", value)  # type: ignore[arg-type]  # deeper than the type can say
