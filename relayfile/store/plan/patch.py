"""What a JSON merge patch (RFC 7386) makes of a file's content.

Owns that a patch which changes no value changes no byte. The form of the result and the rules of merging are those of
`relayfile.pinned_json`, so that a patched file and one that an adapter wrote whole are the same bytes when they say the
same, in whatever order patches of different members arrived.
"""

from relayfile import pinned_json
from relayfile.pinned_json import JsonValue, NotJson, TooLong


def patched(content: bytes | None, patch: JsonValue, bytes_max: int) -> bytes:
    """`content` (None: there is none yet) with `patch` merged into it; `content` itself when that changes no value.

    Raises `NotJson` when the content is not JSON, `TooLong` when the result would have more than `bytes_max` bytes.
    """
    if content is None:
        return pinned_json.write(_merged(None, patch), bytes_max)
    before = pinned_json.read(content)
    after = pinned_json.write(_merged(before, patch), bytes_max)
    try:
        return content if after == pinned_json.write(before, bytes_max) else after
    except TooLong:
        return after


def _merged(target: JsonValue, patch: JsonValue) -> JsonValue:
    try:
        return pinned_json.merge(target, patch)
    except RecursionError as error:
        raise NotJson("is nested too deeply") from error
