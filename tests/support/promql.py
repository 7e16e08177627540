"""As much of PromQL as it takes to say which metrics an expression reads, with which labels. Pure.

promtool checks that an expression is one; this says whether its names are ours, also where promtool is not installed.
"""

import re
from typing import NamedTuple

_STRING = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`')
_GROUPING = re.compile(r"\b(by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_RANGE = re.compile(r"\[[^\[\]]*\]|\boffset\s+\w+")
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\s*(\{[^{}]*\})?\s*(\()?")
_MATCHER = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_WORDS = frozenset({"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "inf", "nan"})


class Selector(NamedTuple):
    """One series that is read."""

    metric: str
    labels: frozenset[str]
    """That are matched."""


def selectors(expression: str) -> list[Selector]:
    """The series of an expression, in order. `ValueError` when its brackets do not match."""
    bare = _STRING.sub('""', expression)
    if any(bare.count(left) != bare.count(right) for left, right in ("()", "[]", "{}")):
        raise ValueError(f"brackets do not match: {expression}")
    bare = _GROUPING.sub(" ", _RANGE.sub(" ", bare))
    return [
        Selector(name, frozenset(_MATCHER.findall(matchers or "")))
        for name, matchers, calls in _NAME.findall(bare)
        if not calls and name.lower() not in _WORDS
    ]


def grouped_by(expression: str) -> set[str]:
    """The labels that it sums by or joins on."""
    found = _GROUPING.findall(_STRING.sub('""', expression))
    return {label.strip() for _, labels in found for label in labels.split(",") if label.strip()}
