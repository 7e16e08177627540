"""Text with expressions in it (`issues/{issue.number}.json`), for paths, object ids and relations.

Owns how a value becomes one segment of a path: percent-encoded where a path gives a character another meaning, cut with
a hash where it is too long, so that different values are different segments and none can leave its directory. Refuses
values that are not texts or whole numbers: the template then has no result. Owns, too, that ids of several parts are as
different as their parts are.
"""

import hashlib
import re
from collections.abc import Callable
from typing import Final

from relayfile.ingest.providers.expression import Expression, compile_expression
from relayfile.pinned_json import JsonValue

Template = Callable[[JsonValue], str | None]
"""From a document to the text; None when a value is missing or is no text and no whole number."""

_PART = re.compile(r"\{([^{}]*)\}")
_ENCODED = re.compile(r"[\x00-\x1f\x7f-\x9f\\/%\ud800-\udfff]")
_SEGMENT_BYTES_MAX: Final = 200
_KEPT_CHARACTERS: Final = 40
_HASH_HEX_CHARACTERS: Final = 32


def compile_template(text: str, *, separator: str = "") -> Template:
    """The closure for ``text``; each value becomes one segment of a path. `ValueError` when it is no template.

    With a ``separator``, a character that stands between values, no two lists of values have the same result: it is
    encoded in every value but the last one.
    """
    pieces = _PART.split(text)
    literals, sources = pieces[0::2], pieces[1::2]
    if any("{" in literal or "}" in literal for literal in literals):
        raise ValueError(f"has a brace without its partner: {text[:80]!r}")
    values = tuple(compile_expression(source) for source in sources)
    if not values:
        return lambda _: text
    parts = tuple(zip(values, literals[1:], strict=True))
    if separator and len(parts) > 1:
        return _separated(parts, literals[0], separator)
    return _joined(parts, literals[0])


def segment(value: JsonValue) -> str | None:
    """``value`` as one segment of a path; None when it cannot be one."""
    text = _as_text(value)
    if not text:
        return None
    if _ENCODED.search(text) is not None:
        text = _ENCODED.sub(lambda found: f"%{ord(found[0]):02X}", text)
    if text in (".", ".."):
        text = text.replace(".", "%2E")
    if len(text) * 4 > _SEGMENT_BYTES_MAX and len(text.encode()) > _SEGMENT_BYTES_MAX:
        digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_HEX_CHARACTERS]
        text = f"{text[:_KEPT_CHARACTERS]}%~{digest}"
    return text


def _joined(parts: tuple[tuple[Expression, str], ...], first: str) -> Template:
    def joined(document: JsonValue) -> str | None:
        text = first
        for expression, after in parts:
            value = segment(expression(document))
            if not value:
                return None
            text += value + after
        return text

    return joined


def _separated(parts: tuple[tuple[Expression, str], ...], first: str, separator: str) -> Template:
    encoded, last = f"%{ord(separator):02X}", parts[-1]

    def separated(document: JsonValue) -> str | None:
        text = first
        for part in parts:
            value = segment(part[0](document))
            if not value:
                return None
            if separator in value and part is not last:
                value = value.replace(separator, encoded)
            text += value + part[1]
        return text

    return separated


def _as_text(value: JsonValue) -> str | None:
    if type(value) is str:
        return value
    return str(value) if type(value) is int else None
