import pytest

from relayfile.store.plan.rules import enforceable_count


@pytest.mark.parametrize(
    "rule", ["public", "any", "*", "scope:fs:read", "deny:agent:x", "allow:workspace:w", "deny:public"]
)
def test_rules(rule: str) -> None:
    assert enforceable_count([rule]) == 1


@pytest.mark.parametrize("tag", ["", "Public", "agent:", "team:core", "deny:", "allow:deny:public", "note"])
def test_tags(tag: str) -> None:
    assert enforceable_count([tag, "any"]) == 1
