"""Shopify's rules. The expected files are written here by hand.

Payloads: after https://shopify.dev/docs/apps/build/webhooks/delivery-structure (copy read in November 2026, undated;
products/update is its example, shortened) and the sample payloads that Shopify's admin sends as tests. Unverified:
customer_consent, customer_redacted, order_edited, inventory_level_disconnected. Delivery id and signature: the page
verify-deliveries beside that one, which has no test vector.
"""

import base64
import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, PATCH, UPSERT, Made, Outcome, names, outcome, refusal

SHOPIFY = ProviderRegistry.load(1_000_000)["shopify"]
ORDER_PATH = "/shopify/orders/820982911946154508.json"
ORDER_ID = "order/820982911946154508"
CUSTOMER_PATH = "/shopify/customers/706405506930370084.json"
CUSTOMER_ID = "customer/706405506930370084"
TRIGGERED = "2025-04-22T19:30:07.123456Z"
SHOP = {"shop": "example.myshopify.com"}
ORDER: dict[str, JsonValue] = {
    "id": 820982911946154508,
    "name": "#9999",
    "email": "jon@example.com",
    "financial_status": "paid",
    "fulfillment_status": None,
    "currency": "USD",
    "total_price": "403.00",
    "customer": {"id": 115310627314723954},
    "created_at": "2025-04-22T14:29:00-05:00",
    "updated_at": "2025-04-22T14:30:00-05:00",
}
ORDER_PROPERTIES = {
    "name": "#9999",
    "state": "paid",
    "currency": "USD",
    "total": "403.00",
    "email": "jon@example.com",
    **SHOP,
}
OF_CUSTOMER = ["/shopify/customers/115310627314723954.json"]

EXPECTED = {
    "order_created": Outcome(
        "hook-1",
        "orders.create",
        [Made(UPSERT, ORDER_PATH, ORDER_ID, "2025-04-22T19:30:00Z", ORDER, ORDER_PROPERTIES, OF_CUSTOMER)],
    ),
    "order_paid": Outcome(
        "hook-2",
        "orders.paid",
        [
            Made(
                UPSERT,
                ORDER_PATH,
                ORDER_ID,
                "2025-04-22T19:30:05Z",
                {**ORDER, "updated_at": "2025-04-22T14:30:05-05:00"},
                ORDER_PROPERTIES,
                OF_CUSTOMER,
            )
        ],
    ),
    # A delete has an id and nothing else: its time is the header's.
    "order_deleted": Outcome("hook-3", "orders.delete", [Made(DELETE, ORDER_PATH, ORDER_ID, TRIGGERED)]),
    "order_edited": Outcome("hook-4", "orders.edited"),
    "product_updated": Outcome(
        "hook-5",
        "products.update",
        [
            Made(
                UPSERT,
                "/shopify/products/9554194432293.json",
                "product/9554194432293",
                "2025-04-22T19:30:00Z",
                {
                    "id": 9554194432293,
                    "title": "T-Shirt",
                    "status": "active",
                    "vendor": "My Store",
                    "product_type": "Shirts",
                    "updated_at": "2025-04-22T14:30:00-05:00",
                    "variants": [{"id": 123456789, "price": "29.99"}],
                },
                {"title": "T-Shirt", "state": "active", "vendor": "My Store", "type": "Shirts", **SHOP},
            )
        ],
    ),
    "customer_disabled": Outcome(
        "hook-6",
        "customers.disable",
        [
            Made(
                UPSERT,
                CUSTOMER_PATH,
                CUSTOMER_ID,
                "2025-04-22T19:30:00Z",
                {
                    "id": 706405506930370084,
                    "email": "bob@example.com",
                    "first_name": "Bob",
                    "last_name": "Biller",
                    "state": "disabled",
                    "updated_at": "2025-04-22T14:30:00-05:00",
                },
                {"email": "bob@example.com", "state": "disabled", **SHOP},
            )
        ],
    ),
    "customer_consent": Outcome(
        "hook-7",
        "customers_marketing_consent.update",
        [
            Made(
                PATCH,
                CUSTOMER_PATH,
                CUSTOMER_ID,
                TRIGGERED,
                {"sms_marketing_consent": {"state": "subscribed", "opt_in_level": "single_opt_in"}},
            )
        ],
    ),
    "customer_redacted": Outcome("hook-8", "customers.redact", [Made(DELETE, CUSTOMER_PATH, CUSTOMER_ID, TRIGGERED)]),
    "fulfillment_updated": Outcome(
        "hook-9",
        "fulfillments.update",
        [
            Made(
                UPSERT,
                "/shopify/orders/820982911946154508/fulfillments/255858046.json",
                "fulfillment/255858046",
                "2025-04-22T19:31:00Z",
                {
                    "id": 255858046,
                    "order_id": 820982911946154508,
                    "status": "success",
                    "tracking_number": "1Z1234512345123456",
                    "updated_at": "2025-04-22T14:31:00-05:00",
                },
                {"state": "success", "tracking": "1Z1234512345123456", **SHOP},
                [ORDER_PATH],
            )
        ],
    ),
    "refund_created": Outcome(
        "hook-10",
        "refunds.create",
        [
            Made(
                UPSERT,
                "/shopify/orders/820982911946154508/refunds/509562969.json",
                "refund/509562969",
                "2025-04-22T19:32:00Z",
                {
                    "id": 509562969,
                    "order_id": 820982911946154508,
                    "created_at": "2025-04-22T14:32:00-05:00",
                    "note": "broke",
                },
                {"note": "broke", **SHOP},
                [ORDER_PATH],
            )
        ],
    ),
    "inventory_level_disconnected": Outcome(
        "hook-11",
        "inventory_levels.disconnect",
        [
            Made(
                DELETE,
                "/shopify/inventory-items/271878346596884015/levels/24826418.json",
                "inventory_level/271878346596884015:24826418",
                TRIGGERED,
            )
        ],
    ),
    "checkout_updated": Outcome(
        "hook-12",
        "checkouts.update",
        [
            Made(
                UPSERT,
                "/shopify/checkouts/123123123.json",
                "checkout/123123123",
                "2025-04-22T19:30:00Z",
                {
                    "id": 981820079255243537,
                    "token": "123123123",
                    "email": "bob@example.com",
                    "completed_at": None,
                    "updated_at": "2025-04-22T14:30:00-05:00",
                },
                {"email": "bob@example.com", **SHOP},
            )
        ],
    ),
    "shop_updated": Outcome(
        "hook-13",
        "shop.update",
        [
            Made(
                UPSERT,
                "/shopify/shops/548380009.json",
                "shop/548380009",
                "2025-04-22T19:30:00Z",
                {
                    "id": 548380009,
                    "name": "Super Toys",
                    "myshopify_domain": "example.myshopify.com",
                    "plan_name": "enterprise",
                    "updated_at": "2025-04-22T14:30:00-05:00",
                },
                {"name": "Super Toys", "domain": "example.myshopify.com", "plan": "enterprise"},
            )
        ],
    ),
    "app_uninstalled": Outcome("hook-14", "app.uninstalled"),
    "unknown": Outcome("hook-15", "somethings.of_the_future"),
}


@pytest.mark.parametrize("name", names("shopify"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(SHOPIFY, name) == EXPECTED[name]


def test_the_signature() -> None:
    body = b'{"id":820982911946154508}'
    good = base64.b64encode(hmac.new(b"shpss_1", body, hashlib.sha256).digest()).decode()
    assert refusal(SHOPIFY, {"x-shopify-hmac-sha256": good}, body, ["newer", "shpss_1"]) == ""
    assert refusal(SHOPIFY, {"x-shopify-hmac-sha256": good}, b'{"id":1}', ["shpss_1"]) == "SIGNATURE_MISMATCH"
    in_hex = hmac.new(b"shpss_1", body, hashlib.sha256).hexdigest()
    assert refusal(SHOPIFY, {"x-shopify-hmac-sha256": in_hex}, body, ["shpss_1"]) == "SIGNATURE_MALFORMED"
    assert refusal(SHOPIFY, {}, body, ["shpss_1"]) == "SIGNATURE_MISSING"
