"""The functions that a provider file may name (`function = "..."`): what its expressions cannot say.

Owns the one table of them. Each lives in the module of its provider, is pure, and turns one element of a body into the
documents that the rules are applied to.
"""

from collections.abc import Mapping
from typing import Final

from relayfile.ingest.providers.confluence import confluence
from relayfile.ingest.providers.definition import Shape
from relayfile.ingest.providers.hubspot import hubspot
from relayfile.ingest.providers.intercom import intercom
from relayfile.ingest.providers.shopify import shopify
from relayfile.ingest.providers.standard_webhooks import standard_webhooks

FUNCTIONS: Final[Mapping[str, Shape]] = {
    "confluence": confluence,
    "hubspot": hubspot,
    "intercom": intercom,
    "shopify": shopify,
    "standard_webhooks": standard_webhooks,
}
