"""Confluence's function: an event of several attachments is a change of each."""

from collections.abc import Mapping, Sequence

from relayfile.pinned_json import JsonValue

_LABEL_EVENTS = ("label_added", "label_removed")


def confluence(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """One document for each attachment, named `attachment`; of every other event the one that it is.

    Labels put on and taken off become the event `labels_changed` where the event says which are left.
    """
    if not isinstance(element, dict):
        return (element,)
    attachments = element.get("attachments")
    if isinstance(attachments, list):
        return [{**element, "attachment": attachment} for attachment in attachments]
    labeled = element.get("labeled")
    if element.get("event") in _LABEL_EVENTS and isinstance(labeled, dict) and isinstance(labeled.get("labels"), list):
        return ({**element, "event": "labels_changed"},)
    return (element,)
