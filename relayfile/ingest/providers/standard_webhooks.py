"""The function of Standard Webhooks: which object an event of any sender is about.

The specification says only that an event has a `type` of parts with full stops between them, a `timestamp`, and `data`
(or its members beside the two). What follows from that is here.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from relayfile.ingest.providers.definition import Unexpected
from relayfile.pinned_json import JsonValue

_DELETED: Final = frozenset({"deleted", "destroyed", "removed"})
_THIN: Final = frozenset({"id", "object", "type"})
"""Members that name an object and say nothing of it."""


def standard_webhooks(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """One document with `type` (changed, deleted or thin), `kind`, `id`, `content`, `timestamp` and `event_type`.

    ``kind`` is the type without its last part: `user.created` is about a `user`. The object is `data`, or where there
    is none the body; thin is one that is named and not told. No document at all for an event whose object has no `id`:
    it has no file.
    """
    event_type = element.get("type") if isinstance(element, dict) else None
    if not isinstance(element, dict) or not isinstance(event_type, str) or not event_type:
        raise Unexpected("the event has no type")
    content = element.get("data", element)
    identity = content.get("id") if isinstance(content, dict) else None
    if identity is None or identity == "":
        return ()
    before, _, last = event_type.rpartition(".")
    is_thin = isinstance(content, dict) and content.keys() <= _THIN
    return (
        {
            "type": "deleted" if last in _DELETED else "thin" if is_thin else "changed",
            "kind": before or last,
            "id": identity,
            "content": content,
            "timestamp": element.get("timestamp"),
            "event_type": event_type,
        },
    )
