"""Every sentence of the grammar of scopes, as a table."""

import pytest

from relayfile.auth.scopes import Grants, Scope, grants, read_scope

READ = "fs:read"


def allows(scopes: str | tuple[str, ...], path: str, requirement: str = READ) -> bool:
    return grants(tuple(scopes.split("|")) if isinstance(scopes, str) else scopes, requirement).allow(path)


@pytest.mark.parametrize(
    ("text", "scope"),
    [
        ("relayfile:fs:read", Scope("fs", "read", None)),
        ("relayfile:fs:read:/a", Scope("fs", "read", "/a")),
        ("relayfile:fs:read:/a:b:c", Scope("fs", "read", "/a:b:c")),
        ("relayfile:fs:read:", Scope("fs", "read", "")),
        ("  relayfile:fs:read:/a \t", Scope("fs", "read", "/a")),
        ("*:fs:read", Scope("fs", "read", None)),
        ("workspace:acme:read:/a", Scope("fs", "read", "/a")),
        ("workspace:any label:write", Scope("fs", "write", None)),
        ("workspace::read", None),
        ("fs:read", None),
        ("fs", None),
        ("", None),
        ("other:fs:read", None),
        ("Relayfile:fs:read", None),
        ("fs:read:/a", None),
    ],
)
def test_a_scope_is_split_on_its_first_three_colons(text: str, scope: Scope | None) -> None:
    assert read_scope(text) == scope


@pytest.mark.parametrize("scope", ["relayfile:fs:read", "*:fs:read", "*:*:*", "relayfile:*:read", "workspace:x:read"])
@pytest.mark.parametrize("path", ["/", "/a", "/a/b", ""])
def test_without_a_path_everything_is_granted(scope: str, path: str) -> None:
    assert allows(scope, path)


@pytest.mark.parametrize(
    ("scope", "requirement", "granted"),
    [
        ("relayfile:fs:read", "fs:read", True),
        ("relayfile:fs:read", "fs:write", False),
        ("relayfile:fs:read", "fs:manage", False),
        ("relayfile:fs:write", "fs:read", False),
        ("relayfile:fs:write", "fs:manage", False),
        ("relayfile:fs:manage", "fs:read", True),
        ("relayfile:fs:manage", "fs:write", True),
        ("relayfile:fs:manage", "fs:manage", True),
        ("relayfile:ops:manage", "ops:replay", False),
        ("relayfile:sync:manage", "sync:trigger", False),
        ("relayfile:fs:*", "fs:manage", True),
        ("relayfile:ops:*", "ops:replay", True),
        ("relayfile:ops:*", "fs:read", False),
        ("relayfile:*:*", "admin:write", True),
        ("relayfile:fs:READ", "fs:read", False),
        ("relayfile:FS:read", "fs:read", False),
        ("workspace:acme:read", "fs:read", True),
        ("workspace:acme:read", "ops:read", False),
        ("workspace:acme:*", "fs:manage", True),
        ("workspace:acme:*", "admin:read", False),
    ],
)
def test_resource_and_action(scope: str, requirement: str, granted: bool) -> None:
    assert allows(scope, "/a", requirement) is granted


@pytest.mark.parametrize(
    ("form", "inside", "outside"),
    [
        ("/a/b", ["/a/b"], ["/a", "/a/b/c", "/a/bc", "/A/b"]),
        ("/a/**", ["/a", "/a/b", "/a/b/c"], ["/", "/ab", "/ab/c"]),
        ("/a/*", ["/a/b", "/a/b/c"], ["/a", "/", "/ab"]),
        ("/a*", ["/a", "/ab", "/a/b", "/ab/c/d"], ["/", "/b", "/b/a"]),
        ("/a/b*", ["/a/b", "/a/bc/d", "/a/b/c"], ["/a", "/a/c"]),
        ("*", ["/", "/a", "/a/b"], []),
        ("/", ["/"], ["/a", "/a/b"]),
        ("/**", ["/", "/a", "/a/b"], []),
        ("/*", ["/a", "/a/b"], ["/"]),
        ("/a:b/**", ["/a:b", "/a:b/c"], ["/a"]),
        ("/a/.b*", ["/a/.b", "/a/.bc"], ["/a/b"]),
        (" /a/** ", ["/a/b"], ["/b"]),
    ],
)
def test_forms_of_paths(form: str, inside: list[str], outside: list[str]) -> None:
    scope = f"relayfile:fs:read:{form}"
    assert [path for path in inside if not allows(scope, path)] == []
    assert [path for path in outside if allows(scope, path)] == []
    assert allows(scope, "") is (form == "*"), "a narrow grant matches no requirement without a path"


@pytest.mark.parametrize(
    "form",
    [
        "", "a", "a/**", "a*", "**", "*/a", "/*/a", "/a/*/b", "/a/**/b", "/a*/b", "/a*b", "/a**", "/a/b**", "/***",
        "/a/***", "/a/", "/a//b", "//", "//a", "//*", "//**", "/a//**", "/a//*", "/./a", "/a/.", "/a/..", "/a/../b",
        "/a/./**", "/../*", "/a/../b*", "/./*", "/./**",
    ],
)  # fmt: skip
def test_malformed_paths_match_nothing(form: str) -> None:
    granted = grants((f"relayfile:fs:read:{form}",), READ)
    assert granted == Grants()
    assert not granted
    assert not any(granted.allow(path) or granted.reach(path) for path in ("", "/", "/a", "/a/b", form, "//", "/a/"))


@pytest.mark.parametrize(
    ("scopes", "granted"),
    [
        ("fs:read", True),
        (" fs:read ", True),
        ("fs:write", False),
        ("fs:manage", False),
        ("fs:*", False),
        ("*:read", False),
        ("*:*", False),
        ("FS:read", False),
        ("fs:read|relayfile:fs:read:/b/**", False),
        ("relayfile:fs:read:/b/**|fs:read", False),
        ("fs:read|relayfile:fs:read:/b/*/c", False),  # not valid, and counts all the same
        ("fs:read|relayfile:fs:read:", False),
        ("fs:read|relayfile:fs:*:/b", False),
        ("fs:read|relayfile:fs:manage:/b", False),
        ("fs:read|workspace:x:read:/b", False),
        ("fs:read|relayfile:*:read:/b", False),
        ("fs:read|relayfile:fs:write:/b", True),
        ("fs:read|relayfile:ops:read:/b", True),
        ("fs:read|other:fs:read:/b", True),
        ("fs:read|relayfile:fs:read:*", True),
        ("fs:read|relayfile:fs:read:/a", True),
        ("relayfile:fs:read|relayfile:fs:read:/b", True),  # no literal: it has a plane
    ],
)
def test_literals(scopes: str, granted: bool) -> None:
    assert allows(scopes, "/a") is granted


def test_a_literal_grants_requirements_without_a_path() -> None:
    assert allows("sync:read", "", "sync:read")
    assert not allows("sync:read", "", "sync:trigger")


@pytest.mark.parametrize(
    ("form", "directory", "covered", "reached"),
    [
        ("/a/**", "/", False, True),
        ("/a/**", "/a", True, True),
        ("/a/**", "/a/b", True, True),
        ("/a/**", "/ab", False, False),
        ("/a/*", "/a", True, True),
        ("/a/*", "/a/b", True, True),
        ("/a/b", "/a", False, True),
        ("/a/b", "/a/b", False, True),
        ("/a/b", "/a/b/c", False, False),
        ("/a*", "/ab", True, True),
        ("/a*", "/a", True, True),
        ("/a*", "/", False, True),
        ("/a/b*", "/a", False, True),
        ("/a/b*", "/a/c", False, False),
        ("/ab*", "/a", False, False),
        ("/", "/", False, True),
        ("/*", "/", True, True),
        ("*", "/", True, True),
    ],
)
def test_subtrees(form: str, directory: str, covered: bool, reached: bool) -> None:
    granted = grants((f"relayfile:fs:read:{form}",), READ)
    assert (granted.cover(directory), granted.reach(directory)) == (covered, reached)


def test_grants_add_up() -> None:
    scopes = "relayfile:fs:read:/a/**|relayfile:fs:read:/b|relayfile:fs:write:/c/**"
    assert [path for path in ("/a/x", "/b", "/b/x", "/c/x") if allows(scopes, path)] == ["/a/x", "/b"]
    assert grants((), READ) == Grants()
