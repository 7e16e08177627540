"""Scopes and rules against references that are slow, literal readings of what was designed."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from relayfile.auth import Principal
from relayfile.auth.file_rules import Standing, standing
from relayfile.auth.scopes import grants

SEGMENT = st.sampled_from(["a", "b", "ab", "a:b", ".", "..", "", "*", "**", "a*", "*a", "a**", ".a", "a.", " "])
PATHS = st.lists(st.sampled_from(["a", "b", "ab", "abc", "a:b", ".a", "a."]), max_size=4).map(
    lambda s: "/" + "/".join(s)
)
FORMS = st.one_of(
    st.sampled_from(["", "*", "/", "/*", "/**", "**", "//", "/***"]),
    st.tuples(
        st.sampled_from(["/", "", " /"]), st.lists(SEGMENT, min_size=1, max_size=4), st.sampled_from(["", "/", " "])
    ).map(lambda parts: parts[0] + "/".join(parts[1]) + parts[2]),
)
PLANE = st.sampled_from(["relayfile", "*", "workspace", "other", "fs", ""])
RESOURCE = st.sampled_from(["fs", "ops", "*", "acme", ""])
ACTION = st.sampled_from(["read", "write", "manage", "replay", "*", "READ", ""])
SCOPES = st.one_of(
    st.tuples(PLANE, RESOURCE, ACTION, FORMS).map(":".join),
    st.tuples(PLANE, RESOURCE, ACTION).map(":".join),
    st.tuples(RESOURCE, ACTION).map(":".join),
    st.sampled_from(["", "fs", " fs:read ", "fs:read\n", "\trelayfile:fs:read:/a/**"]),
)
REQUIREMENTS = st.sampled_from(["fs:read", "fs:write", "fs:manage", "ops:read", "ops:replay"])


def speaks_of(scope: str, requirement: str) -> tuple[bool, str | None]:
    """(whether the scope is for the resource and action, the text of its path)."""
    wanted_resource, wanted_action = requirement.split(":")
    plane, *rest = scope.split(":", 3)
    if len(rest) < 2:
        return False, None
    resource, action = rest[0], rest[1]
    if plane == "workspace":
        resource = "fs" if resource else "no label"
    elif plane not in ("relayfile", "*"):
        return False, None
    actions = {wanted_action, "*"} | ({"manage"} if wanted_action in ("read", "write") else set())
    return resource in (wanted_resource, "*") and action in actions, rest[2].strip() if len(rest) == 3 else None


def path_matches(form: str, path: str) -> bool:
    if form == "*":
        return True
    if not path or not form.startswith("/"):
        return False
    if form == "/":
        return path == "/"
    is_prefix = form[-1] == "*" and form[-2:] not in ("/*", "**")
    whole = form[1:].split("/")
    ending = whole[-1]
    names = whole[:-1] if ending in ("*", "**") or is_prefix else whole
    if any(name in ("", ".", "..") or "*" in name for name in names):
        return False
    if is_prefix:
        return "*" not in ending[:-1] and path.startswith(form[:-1])
    pattern = "".join("/" + re.escape(name) for name in names)
    if ending == "**":
        return re.fullmatch(pattern + r"(/.+)?" if names else "/.*", path) is not None
    if ending == "*":
        return re.fullmatch(pattern + "/.+", path) is not None
    return re.fullmatch(pattern, path) is not None


def may(scopes: list[str], requirement: str, path: str) -> bool:
    trimmed = [scope.strip() for scope in scopes]
    read = [speaks_of(scope, requirement) for scope in trimmed]
    fitting = [path_of for fits, path_of in read if fits]
    if any(path_of is None or path_matches(path_of, path) for path_of in fitting):
        return True
    return requirement in trimmed and all(path_of is None for path_of in fitting)


@settings(max_examples=500)
@given(st.lists(SCOPES, max_size=4), REQUIREMENTS, st.one_of(st.just(""), PATHS))
def test_scopes(scopes: list[str], requirement: str, path: str) -> None:
    assert grants(tuple(scopes), requirement).allow(path) is may(scopes, requirement, path)


@settings(max_examples=500)
@given(st.lists(SCOPES, max_size=3), REQUIREMENTS, PATHS, st.lists(PATHS, min_size=1, max_size=6))
def test_what_is_said_of_a_subtree_holds_for_its_paths(
    scopes: list[str], requirement: str, directory: str, paths: list[str]
) -> None:
    granted = grants(tuple(scopes), requirement)
    below = directory.rstrip("/")
    inside = [below + path for path in paths if path != "/"]
    if granted.cover(directory):
        assert all(map(granted.allow, inside))
    if any(map(granted.allow, [directory, *inside])):
        assert granted.reach(directory)


RULE = st.tuples(
    st.sampled_from(["", "allow:", "deny:", "Deny:", "allow:deny:"]),
    st.sampled_from(
        ["public", "any", "*", "agent:me", "agent:you", "agent:", "scope:fs:read", "scope:fs:write", "workspace:acme",
         "workspace:x", "note", "Public", ""]
    ),
).map("".join)  # fmt: skip
ME = Principal(subject="me", workspaces=frozenset({"acme"}), scopes=("fs:read",), expires_at_us=0)
MATCHES_ME = {"public", "any", "*", "agent:me", "scope:fs:read", "workspace:acme"}
SUBJECTS = MATCHES_ME | {"agent:you", "scope:fs:write", "workspace:x"}


@settings(max_examples=500)
@given(st.lists(st.lists(RULE, max_size=4), max_size=4))
def test_rules(levels: list[list[str]]) -> None:
    rules = [rule for level in levels for rule in level]
    denies = [rule[5:] for rule in rules if rule.startswith("deny:") and rule[5:] in SUBJECTS]
    allows = [each for each in (rule.removeprefix("allow:") for rule in rules) if each in SUBJECTS]
    if MATCHES_ME.intersection(denies):
        expected = False
    elif MATCHES_ME.intersection(allows):
        expected = True
    else:
        expected = not denies and not allows
    found = Standing.FREE
    for level in levels:
        found |= standing(tuple(level), ME)
    assert found.may_pass is expected
