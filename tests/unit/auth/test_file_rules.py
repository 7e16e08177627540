"""What rules decide, as a table."""

import pytest

from relayfile.auth import Principal
from relayfile.auth.file_rules import Standing, enforceable_count, standing

ALICE = Principal(
    subject="alice", workspaces=frozenset({"acme"}), scopes=("fs:read", " relayfile:fs:*:/a/** "), expires_at_us=0
)


def may(*levels: str, caller: Principal = ALICE) -> bool:
    """Whether a file is readable whose levels, from the root down, have these permissions (with commas between)."""
    found = Standing.FREE
    for level in levels:
        found |= standing(tuple(level.split(",")), caller)
    return found.may_pass


@pytest.mark.parametrize(
    ("levels", "passes"),
    [
        ([""], True),
        (["note,team:core,Public,agent:,deny:,allow:deny:public"], True),
        (["public"], True),
        (["any"], True),
        (["*"], True),
        (["allow:*"], True),
        (["deny:public"], False),
        (["deny:any"], False),
        (["deny:*"], False),
        (["agent:alice"], True),
        (["allow:agent:alice"], True),
        (["agent:bob"], False),
        (["agent:Alice"], False),
        (["deny:agent:alice"], False),
        (["deny:agent:bob"], False),  # a rule that does not match leaves the default of ruled files: denied
        (["deny:agent:bob,public"], True),
        (["deny:agent:alice,public"], False),
        (["public", "deny:agent:alice"], False),
        (["deny:agent:alice", "public"], False),
        (["agent:bob", "agent:alice"], True),
        (["agent:alice", "agent:bob"], True),
        (["agent:bob", "note"], False),
        (["scope:fs:read"], True),
        (["scope:relayfile:fs:*:/a/**"], True),
        (["scope:fs:write"], False),
        (["scope:relayfile:fs:read"], False),  # this very scope, not what another one implies
        (["workspace:acme"], True),
        (["workspace:other"], False),
        (["deny:workspace:acme,agent:alice"], False),
        ([" agent:alice "], True),
    ],
)
def test_rules(levels: list[str], passes: bool) -> None:
    assert may(*levels) is passes


def test_a_token_for_all_workspaces_grants_each() -> None:
    everywhere = Principal(subject="x", workspaces=frozenset({"*"}), expires_at_us=0)
    assert may("workspace:acme", caller=everywhere)
    assert not may("deny:workspace:acme", caller=everywhere)


def test_only_rules_are_counted() -> None:
    assert enforceable_count(()) == 0
    assert enforceable_count(["note", "public", "deny:agent:x", "agent:"]) == 2
