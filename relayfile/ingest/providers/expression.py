"""The part of JMESPath that provider files use, compiled once into closures.

Owns: fields (`issue.number`, `"odd name"`), indexes (`items[0]`, `items[-1]`), literals (`'text'`), alternatives
(`a || b`: the first that is not null, false, or empty) and `@`, the document. Refuses everything else when the file is
loaded, so that a request never meets a bad expression. A closure never raises: what is not there is None.
"""

import re
from collections.abc import Callable
from typing import Final

from relayfile.pinned_json import JsonValue

Expression = Callable[[JsonValue], JsonValue]
"""From a document to what the expression finds in it; None: nothing."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<field>[A-Za-z_][A-Za-z0-9_]*)
    | "(?P<quoted>[^"\\\x00-\x1f]+)"
    | '(?P<literal>[^'\\\x00-\x1f]*)'
    | \[(?P<index>-?[0-9]{1,9})\]
    | (?P<or>\|\|)
    | (?P<dot>\.)
    | (?P<root>@)
    )""",
    re.VERBOSE,
)
_LENGTH_MAX: Final = 500


class ExpressionError(ValueError):
    """The text is not an expression of the supported part of JMESPath."""


def compile_expression(text: str) -> Expression:
    """The closure for ``text``; `ExpressionError` says where it is wrong."""
    alternatives: list[Expression] = []
    tokens = _tokens(text)
    start = 0
    for position, (kind, _) in enumerate([*tokens, ("or", "||")]):
        if kind == "or":
            alternatives.append(_compile_term(tokens[start:position], text))
            start = position + 1
    return alternatives[0] if len(alternatives) == 1 else _first_truthy(tuple(alternatives))


def is_truthy(value: JsonValue) -> bool:
    """JMESPath's truth: null, false, and empty texts, lists and objects are false; every number is true."""
    return value is not None and value is not False and value != "" and value != [] and value != {}


def _tokens(text: str) -> list[tuple[str, str]]:
    if len(text) > _LENGTH_MAX:
        raise ExpressionError(f"is longer than {_LENGTH_MAX} characters")
    found: list[tuple[str, str]] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TOKEN.match(stripped, position)
        if match is None or match.lastgroup is None:
            raise ExpressionError(f"cannot be read from character {position + 1} on: {stripped[position:][:40]!r}")
        found.append((match.lastgroup, match.group(match.lastgroup)))
        position = match.end()
    return found


def _compile_term(tokens: list[tuple[str, str]], text: str) -> Expression:
    kinds = [kind for kind, _ in tokens]
    if kinds == ["literal"]:
        return _literal(tokens[0][1])
    if kinds == ["root"]:
        return lambda document: document
    steps: list[str | int] = []
    may_name = True
    for kind, value in tokens:
        if kind in ("field", "quoted") and may_name:
            steps.append(value)
            may_name = False
        elif kind == "index" and not (may_name and steps):
            steps.append(int(value))
            may_name = False
        elif kind == "dot" and steps and not may_name:
            may_name = True
        else:
            raise ExpressionError(f"has {value!r} where it makes no sense: {text[:80]!r}")
    if may_name:
        raise ExpressionError(f"is not complete: {text[:80]!r}")
    return _path(tuple(steps))


def _literal(value: str) -> Expression:
    return lambda _: value


def _first_truthy(alternatives: tuple[Expression, ...]) -> Expression:
    last = alternatives[-1]

    def first_truthy(document: JsonValue) -> JsonValue:
        for alternative in alternatives:
            value = alternative(document)
            if is_truthy(value):
                return value
        return last(document)

    return first_truthy


def _path(steps: tuple[str | int, ...]) -> Expression:
    """A closure for the common lengths of plain fields, and one loop for the rest: this runs for every webhook."""
    if not all(isinstance(step, str) for step in steps) or len(steps) > 3:
        return _walk(steps)
    first, second, third = (str(step) for step in (*steps, "", "")[:3])

    def one(document: JsonValue) -> JsonValue:
        return document.get(first) if type(document) is dict else None

    def two(document: JsonValue) -> JsonValue:
        try:
            return document[first][second]  # type: ignore[index, call-overload]  # what cannot be indexed raises
        except (KeyError, TypeError):
            return None

    def three(document: JsonValue) -> JsonValue:
        try:
            return document[first][second][third]  # type: ignore[index, call-overload]  # as above
        except (KeyError, TypeError):
            return None

    return (one, two, three)[len(steps) - 1]


def _walk(steps: tuple[str | int, ...]) -> Expression:
    def walk(document: JsonValue) -> JsonValue:
        value = document
        for step in steps:
            if isinstance(step, str) and isinstance(value, dict):
                value = value.get(step)
            elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
                value = value[step]
            else:
                return None
        return value

    return walk
