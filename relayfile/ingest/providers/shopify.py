"""Shopify's function: a body is the object alone, and the moment of the event stands in a header."""

from collections.abc import Mapping, Sequence

from relayfile.pinned_json import JsonValue


def shopify(element: JsonValue, headers: Mapping[str, str]) -> Sequence[JsonValue]:
    """One document: `object`, with `triggered_at` and `shop` of the request's head."""
    head: dict[str, JsonValue] = {
        "triggered_at": headers.get("x-shopify-triggered-at"),
        "shop": headers.get("x-shopify-shop-domain"),
    }
    return ({"object": element, **head},)
