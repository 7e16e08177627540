"""The one form in which Relayfile itself writes JSON files, and RFC 7386 merge patches.

Owns reading JSON from outside, the pinned form (UTF-8, keys sorted, two spaces of indentation, one newline at the end)
and merging. Equal values are equal bytes, whoever wrote them and in which order their members came, so that a repeat
ends as `unchanged`; lines are short, so that `grep`, `diff` and a merge by lines work on a mirrored file. Refuses to
know what a document means.
"""

from typing import Final

import msgspec

JsonValue = dict[str, "JsonValue"] | list["JsonValue"] | str | int | float | bool | None
"""What `read` returns."""

_INDENT: Final = 2
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


class NotJson(ValueError):
    """The bytes are not JSON, or nest more deeply than any document does. The message never repeats them."""


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


def write(value: object) -> bytes:
    """``value`` in the pinned form. Takes what `read` returns; `NotJson` for what JSON cannot express."""
    try:
        return msgspec.json.format(_encode_sorted(value), indent=_INDENT) + b"\n"
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
