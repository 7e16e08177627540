"""Intercom's function: a notification about a conversation is a change of the conversation, and of its newest parts."""

from collections.abc import Mapping, Sequence

from relayfile.pinned_json import JsonValue


def intercom(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """The notification with a conversation that has no parts, then a document `part.changed` for each part.

    A notification about anything else is the one document that it is.
    """
    data = element.get("data") if isinstance(element, dict) else None
    item = data.get("item") if isinstance(data, dict) else None
    listed = item.get("conversation_parts") if isinstance(item, dict) else None
    parts = listed.get("conversation_parts") if isinstance(listed, dict) else None
    if not (
        isinstance(element, dict) and isinstance(data, dict) and isinstance(item, dict) and isinstance(parts, list)
    ):
        return (element,)
    conversation = {name: value for name, value in item.items() if name != "conversation_parts"}
    whole: list[JsonValue] = [{**element, "data": {**data, "item": conversation}}]
    of: dict[str, JsonValue] = {
        "topic": "part.changed",
        "conversation": item.get("id"),
        "created_at": element.get("created_at"),
    }
    whole.extend({**of, "part": part} for part in parts)
    return whole
