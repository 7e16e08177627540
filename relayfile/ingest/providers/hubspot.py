"""HubSpot's function: an event to the changes that it is, each with the object's type and id under the same names.

Owns the two ways in which HubSpot names a type (`contact.creation`, and `object.creation` with an `objectTypeId`), and
what a merge does to each object that takes part in it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from relayfile.ingest.providers.definition import Unexpected
from relayfile.pinned_json import JsonValue

_TYPES: Final[Mapping[str, str]] = {
    "0-1": "contacts",
    "0-2": "companies",
    "0-3": "deals",
    "0-5": "tickets",
    "0-7": "products",
    "0-8": "line_items",
    "company": "companies",
    "contact": "contacts",
    "conversation": "conversations",
    "deal": "deals",
    "line_item": "line_items",
    "product": "products",
    "ticket": "tickets",
}
"""Folders. A type without a name here has its HubSpot id for one."""


def hubspot(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """The changes of one event. `Unexpected` when it lacks what an event of its kind must have."""
    if not isinstance(element, dict):
        raise Unexpected("the event is no object")
    subscription = element.get("subscriptionType")
    if not isinstance(subscription, str) or "." not in subscription:
        return (element,)
    named, _, kind = subscription.rpartition(".")
    given = element.get("objectTypeId") if named == "object" else named
    name = given if isinstance(given, str) else "objects"
    event: dict[str, JsonValue] = {**element, "subscriptionType": kind, "type": _TYPES.get(name, name)}
    if kind == "merge":
        return _merge(event)
    if kind == "associationChange":
        return ({**event, "type": _association(element)},)
    event["id"] = element.get("objectId")
    if kind == "creation":
        event["content"] = {"hs_object_id": str(element.get("objectId"))}
    elif kind == "propertyChange":
        changed = element.get("propertyName")
        if not isinstance(changed, str) or not changed:
            raise Unexpected("propertyName needs a value that is not there")
        event["content"] = {changed: element.get("propertyValue")}
    return (event,)


def _merge(event: dict[str, JsonValue]) -> list[JsonValue]:
    """The objects that are gone, and the one that is left: where a new one was made of them, that one."""
    primary, merged = event.get("primaryObjectId"), event.get("mergedObjectIds")
    if primary is None or not isinstance(merged, list):
        raise Unexpected("primaryObjectId or mergedObjectIds needs a value that is not there")
    left = event.get("newObjectId") or primary
    gone = [each for each in dict.fromkeys(map(_scalar, [*merged, primary])) if each != left]
    return [*({**event, "subscriptionType": "deletion", "id": each} for each in gone), {**event, "id": left}]


def _scalar(value: JsonValue) -> str | int | None:
    return value if isinstance(value, str | int) else None


def _association(element: dict[str, JsonValue]) -> JsonValue:
    named = element.get("associationType")
    if isinstance(named, str) and named:
        return named
    return f"{element.get('associationCategory', 'HUBSPOT_DEFINED')}-{element.get('associationTypeId')}"
