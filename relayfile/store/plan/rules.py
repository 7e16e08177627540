"""What the planner must know of access rules: how many a file has, and whether a change touches them."""

from relayfile.auth.file_rules import enforceable_count, rules_of
from relayfile.model import Semantics

__all__ = ["differ", "enforceable_count"]


def differ(old: Semantics | None, new: Semantics | None) -> bool:
    """Whether a file's enforceable rules are others; None stands for a file that is not there."""
    before = old.permissions if old is not None else ()
    after = new.permissions if new is not None else ()
    return before != after and set(rules_of(before)) != set(rules_of(after))
