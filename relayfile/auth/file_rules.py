"""The rules of files: which entries of ``semantics.permissions`` are enforceable, and what they decide. Pure.

A rule is ``[allow:|deny:]`` and ``public``, ``any`` or ``*`` (everybody), ``scope:X`` (the token has this very scope),
``agent:X`` (the token's subject) or ``workspace:X`` (the token grants that workspace). Everything else is a tag and
decides nothing. The rules of a file are its own and those of the marker files (`.relayfile.acl`) of every directory
above it: a matching deny denies; else a matching allow allows; else, if there is any rule, it is denied; without rules
it is allowed.

So what the levels say is added up in any order: a ``Standing`` is a set of bits, and the bits of all levels are or-ed.
"""

from collections.abc import Collection
from enum import IntFlag
from functools import lru_cache
from re import DOTALL
from re import compile as compiled
from typing import Final, NamedTuple

from relayfile.auth.principal import Principal

_RULE: Final = compiled(
    r"(?:(?P<effect>allow|deny):)?(?:public|any|\*|(?P<kind>scope|agent|workspace):(?P<value>.+))",
    DOTALL,
)
_CACHED_MAX: Final = 4_096


class Standing(IntFlag):
    """What rules say about one caller so far."""

    FREE = 0
    """There are none."""
    RULED = 1
    """There are some."""
    ALLOWED = 2
    """One of them allows."""
    DENIED = 4
    """One of them denies: nothing that is added changes the answer."""

    @property
    def may_pass(self) -> bool:
        """Whether the caller may read and write what stands so."""
        return self is Standing.FREE or (Standing.ALLOWED in self and Standing.DENIED not in self)


class Rule(NamedTuple):
    """One enforceable rule."""

    denies: bool
    kind: str
    """`scope`, `agent` or `workspace`; empty: everybody."""
    value: str

    def matches(self, caller: Principal) -> bool:
        """Whether it speaks of `caller`."""
        match self.kind:
            case "":
                return True
            case "agent":
                return caller.subject == self.value
            case "workspace":
                return caller.may_use(self.value)
            case _:
                return any(scope.strip() == self.value for scope in caller.scopes)


@lru_cache(maxsize=_CACHED_MAX)
def rules_of(permissions: tuple[str, ...]) -> tuple[Rule, ...]:
    """The enforceable ones among `permissions`."""
    return tuple(rule for rule in map(_read, permissions) if rule is not None)


def enforceable_count(permissions: Collection[str]) -> int:
    """How many of `permissions` are rules."""
    return len(rules_of(tuple(permissions))) if permissions else 0


def standing(permissions: tuple[str, ...], caller: Principal) -> Standing:
    """What one level's `permissions` say about `caller`."""
    found = Standing.FREE
    for rule in rules_of(permissions):
        found |= Standing.RULED
        if rule.matches(caller):
            found |= Standing.DENIED if rule.denies else Standing.ALLOWED
    return found


def _read(permission: str) -> Rule | None:
    match = _RULE.fullmatch(permission.strip())
    if match is None:
        return None
    return Rule(match["effect"] == "deny", match["kind"] or "", match["value"] or "")
