"""Which entries of `semantics.permissions` are enforceable access rules; the rest are tags."""

import re
from collections.abc import Collection

_RULE = re.compile(r"(?:(?:allow|deny):)?(?:public|any|\*|(?:scope|agent|workspace):.+)", re.DOTALL)


def enforceable_count(permissions: Collection[str]) -> int:
    """How many of `permissions` are rules."""
    if not permissions:
        return 0
    return sum(1 for permission in permissions if _RULE.fullmatch(permission.strip()) is not None)
