"""JSON merge patches (RFC 7386) and the one serialisation of their results.

Owns the pinned form: UTF-8, no white space, members sorted by code point, text as it is. So one set of patches gives
the same bytes in whatever order patches of different members arrived. Refuses what is not JSON: NaN, infinities, other
encodings than UTF-8, nesting too deep; and lone surrogates, which no engine can keep as the name of a member.
"""

import json
import re
from collections.abc import Mapping
from typing import NoReturn, cast

Json = Mapping[str, "Json"] | list["Json"] | str | int | float | bool | None
"""A parsed JSON value."""


_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotJson(ValueError):
    """Bytes that are not one JSON value, or a value that has no JSON form."""


def parse(data: bytes) -> Json:
    """The value of `data`; of repeated members the last counts. Raises `NotJson`."""
    try:
        value = cast(Json, json.loads(data.decode(), parse_constant=_refuse_constant))
        if _SURROGATE.search(data) is not None:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise NotJson(_reason(error)) from error


def merge(target: Json, patch: Json) -> Json:
    """`target` with `patch` merged into it, as RFC 7386 says. Changes neither."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            merged[name] = merge(merged.get(name), value)
        else:
            merged[name] = value
    return merged


def serialise(value: Json) -> bytes:
    """The pinned form of `value`. Raises `NotJson`."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()
    except (ValueError, RecursionError) as error:
        raise NotJson(_reason(error)) from error


def patched(content: bytes | None, patch: Json) -> bytes:
    """`content` (None: there is none yet) with `patch` merged into it; `content` itself when that changes no value.

    Raises `NotJson` when the content is not JSON.
    """
    if content is None:
        return serialise(_merged(None, patch))
    before = parse(content)
    after = serialise(_merged(before, patch))
    return content if after == serialise(before) else after


def _merged(target: Json, patch: Json) -> Json:
    try:
        return merge(target, patch)
    except RecursionError as error:
        raise NotJson(_reason(error)) from error


def _refuse_constant(name: str) -> NoReturn:
    raise NotJson(f"{name} is not JSON")


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
