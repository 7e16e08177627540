"""The one form in which Relayfile itself writes JSON files, and RFC 7386 merge patches.

Owns reading JSON from outside, the pinned form (UTF-8, keys sorted, two spaces of indentation, one newline at the end)
and merging. Equal values are equal bytes, whoever wrote them and in which order their members came, so that a repeat
ends as `unchanged`; lines are short, so that `grep`, `diff` and a merge by lines work on a mirrored file. Refuses to
know what a document means.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
"""What `read` returns."""

WRITTEN_BYTES_MAX: Final = 64 * 1024 * 1024
"""What `write` makes at most, unless the caller says less: indentation grows with depth times lines, so that a document
of some kilobytes can stand for gigabytes."""
_INDENT: Final = 2
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class NotJson(ValueError):
    """The bytes are not JSON, or nest more deeply than any document does. The message never repeats them."""


class TooLong(NotJson):
    """The document is longer in the pinned form than it may be."""


def read(data: bytes) -> JsonValue:
    """The value that ``data`` (UTF-8) holds. Of repeated members of an object the last one counts."""
    try:
        value: JsonValue = _decode(data)
    except RecursionError:
        raise NotJson("is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise NotJson(f"is not UTF-8 at byte {error.start} of a text") from None
    except msgspec.MsgspecError as error:
        raise NotJson(f"is not JSON: {error}") from None
    return value


def write(value: object, bytes_max: int = WRITTEN_BYTES_MAX) -> bytes:
    """``value`` in the pinned form. Takes what `read` returns; `NotJson` for what JSON cannot express.

    `TooLong` when that would have more than ``bytes_max`` bytes, found out before so much memory is taken.
    """
    try:
        compact = _encode_sorted(value)
        if _may_exceed(compact, bytes_max) and len(compact) + _added_bytes(value, bytes_max) > bytes_max:
            raise TooLong(f"would have more than {bytes_max} bytes")
        return msgspec.json.format(compact, indent=_INDENT) + b"\n"
    except (RecursionError, TypeError, UnicodeEncodeError) as error:
        raise NotJson(f"cannot be written as JSON: {type(error).__name__}") from None


def merge(target: JsonValue, patch: JsonValue) -> JsonValue:
    """RFC 7386: ``patch`` applied to ``target``. Neither is changed; the result may share parts with both."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge(merged.get(name), value)
    return merged


def merge_patches(first: JsonValue, second: JsonValue) -> JsonValue:
    """One patch with the effect of ``first`` and then ``second``, on any target.

    `ValueError` when there is none: ``first`` replaces or removes a member in which ``second`` then merges an object,
    and a merge patch cannot say "replace by an object".
    """
    if not isinstance(second, dict):
        return second
    if not isinstance(first, dict):
        raise ValueError("no merge patch replaces a value by an object")  # noqa: TRY004 - the values are at fault
    merged = dict(first)
    for name, value in second.items():
        merged[name] = merge_patches(first[name], value) if name in first else value
    return merged


def _may_exceed(compact: bytes, bytes_max: int) -> bool:
    """Whether the pinned form could be too long, judged by what costs next to nothing to count. Never wrongly no."""
    size = len(compact)
    if size * (size + 4) <= bytes_max:
        return False
    opened = compact.count(b"{") + compact.count(b"[")
    lines = compact.count(b",") + 2 * opened + 1
    return size + compact.count(b":") + lines * (1 + _INDENT * opened) > bytes_max


def _added_bytes(value: object, enough: int) -> int:
    """Bytes that the pinned form of ``value`` adds to the compact one; any number over ``enough`` when it is more."""
    added = 1
    below: list[tuple[object, int]] = [(value, 0)]
    while below and added <= enough:
        container, depth = below.pop()
        if not container or not isinstance(container, dict | list):
            continue
        line = 1 + _INDENT * (depth + 1)
        added += len(container) * line + 1 + _INDENT * depth
        members: Iterable[object] = container
        if isinstance(container, dict):
            added += len(container)
            members = container.values()
        if added <= enough:
            below += [(each, depth + 1) for each in members if isinstance(each, dict | list)]
    return added
