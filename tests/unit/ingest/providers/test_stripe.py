"""Stripe's rules. The expected files are written here by hand.

Payloads: the form of the Event object after https://docs.stripe.com/api/events/object (copy read in November 2026,
undated) and a captured `customer.updated` of API version 2020-08-27; objects are shortened. The thin event is written
after the same page and unverified. Signature: https://docs.stripe.com/webhooks/signature, which has no test vector.
"""

import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, UPSERT, Made, Outcome, names, outcome, refusal

STRIPE = ProviderRegistry.load(1_000_000)["stripe"]
CUSTOMER: dict[str, JsonValue] = {
    "id": "cus_9s6XKzkNRiz8i3",
    "object": "customer",
    "name": "Jenny Rosen",
    "email": "jenny@example.com",
    "created": 1648320107,
    "livemode": False,
}
CUSTOMER_PATH = "/stripe/customers/cus_9s6XKzkNRiz8i3.json"
CUSTOMER_ID = "customer/cus_9s6XKzkNRiz8i3"
TEST = {"livemode": "false"}
OF_CUSTOMER = {"customer": "cus_9s6XKzkNRiz8i3", **TEST}
WHEN = "2022-03-26T18:41:50Z"

EXPECTED = {
    "customer_created": Outcome(
        "evt_1",
        "customer.created",
        [
            Made(
                UPSERT,
                CUSTOMER_PATH,
                CUSTOMER_ID,
                "2022-03-26T18:41:47Z",
                CUSTOMER,
                {"name": "Jenny Rosen", "email": "jenny@example.com", **TEST},
            )
        ],
    ),
    "customer_updated": Outcome(
        "evt_2",
        "customer.updated",
        [
            Made(
                UPSERT,
                CUSTOMER_PATH,
                CUSTOMER_ID,
                WHEN,
                {**CUSTOMER, "name": "J. Rosen"},
                {"name": "J. Rosen", "email": "jenny@example.com", **TEST},
            )
        ],
    ),
    "customer_deleted": Outcome(
        "evt_3", "customer.deleted", [Made(DELETE, CUSTOMER_PATH, CUSTOMER_ID, "2022-03-26T18:43:20Z")]
    ),
    # A subscription that ended is still there, and says so.
    "subscription_ended": Outcome(
        "evt_4",
        "customer.subscription.deleted",
        [
            Made(
                UPSERT,
                "/stripe/subscriptions/sub_1.json",
                "subscription/sub_1",
                WHEN,
                {
                    "id": "sub_1",
                    "object": "subscription",
                    "customer": "cus_9s6XKzkNRiz8i3",
                    "status": "canceled",
                },
                {"state": "canceled", "account": "acct_1", **OF_CUSTOMER},
                [CUSTOMER_PATH],
            )
        ],
    ),
    "invoice_paid": Outcome(
        "evt_5",
        "invoice.paid",
        [
            Made(
                UPSERT,
                "/stripe/invoices/in_1.json",
                "invoice/in_1",
                WHEN,
                {
                    "id": "in_1",
                    "object": "invoice",
                    "customer": "cus_9s6XKzkNRiz8i3",
                    "number": "ABC-0001",
                    "status": "paid",
                },
                {"state": "paid", "number": "ABC-0001", **OF_CUSTOMER},
                [CUSTOMER_PATH],
            )
        ],
    ),
    "invoice_upcoming": Outcome("evt_6", "invoice.upcoming"),
    "charge_refunded": Outcome(
        "evt_7",
        "charge.refunded",
        [
            Made(
                UPSERT,
                "/stripe/charges/ch_1.json",
                "charge/ch_1",
                WHEN,
                {
                    "id": "ch_1",
                    "object": "charge",
                    "customer": "cus_9s6XKzkNRiz8i3",
                    "payment_intent": "pi_1",
                    "refunded": True,
                    "status": "succeeded",
                },
                {"state": "succeeded", "refunded": "true", **OF_CUSTOMER},
                [CUSTOMER_PATH, "/stripe/payment-intents/pi_1.json"],
            )
        ],
    ),
    "dispute_created": Outcome(
        "evt_8",
        "charge.dispute.created",
        [
            Made(
                UPSERT,
                "/stripe/disputes/du_1.json",
                "dispute/du_1",
                WHEN,
                {
                    "id": "du_1",
                    "object": "dispute",
                    "charge": "ch_1",
                    "reason": "fraudulent",
                    "status": "needs_response",
                },
                {"state": "needs_response", "reason": "fraudulent", **TEST},
                ["/stripe/charges/ch_1.json"],
            )
        ],
    ),
    "capability_updated": Outcome(
        "evt_9",
        "capability.updated",
        [
            Made(
                UPSERT,
                "/stripe/accounts/acct_1/capabilities/card_payments.json",
                "capability/acct_1:card_payments",
                WHEN,
                {"id": "card_payments", "object": "capability", "account": "acct_1", "status": "active"},
                {"state": "active", **TEST},
                ["/stripe/accounts/acct_1.json"],
            )
        ],
    ),
    "entitlements": Outcome(
        "evt_10",
        "entitlements.active_entitlement_summary.updated",
        [
            Made(
                UPSERT,
                "/stripe/customers/cus_9s6XKzkNRiz8i3/entitlements.json",
                "entitlements/cus_9s6XKzkNRiz8i3",
                WHEN,
                {
                    "object": "entitlements.active_entitlement_summary",
                    "customer": "cus_9s6XKzkNRiz8i3",
                    "entitlements": {"object": "list", "data": []},
                },
                OF_CUSTOMER,
                [CUSTOMER_PATH],
            )
        ],
    ),
    "reader_deleted": Outcome(
        "evt_11",
        "terminal.reader.deleted",
        [Made(DELETE, "/stripe/terminal.reader/tmr_1.json", "object/terminal.reader:tmr_1", WHEN)],
    ),
    "unknown": Outcome("evt_12", "something.of_the_future.created"),
    "thin_event": Outcome("evt_13", "v2.core.account.updated"),
}


@pytest.mark.parametrize("name", names("stripe"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(STRIPE, name) == EXPECTED[name]


def test_the_signature() -> None:
    body = b'{"id": "evt_1", "object": "event"}'
    good = hmac.new(b"whsec_test", b"1492774577." + body, hashlib.sha256).hexdigest()
    assert refusal(STRIPE, {"stripe-signature": f"t=1492774577,v1={good}"}, body, ["whsec_test"], 1492774580) == ""
    while_rolling = f"t=1492774577,v1={'0' * 64},v1={good},v0={'1' * 64}"
    assert refusal(STRIPE, {"stripe-signature": while_rolling}, body, ["newer", "whsec_test"], 1492774580) == ""
    for header, now_s, reason in [
        (f"t=1492774578,v1={good}", 1492774580, "SIGNATURE_MISMATCH"),
        (f"t=1492774577,v1={'0' * 64}", 1492774580, "SIGNATURE_MISMATCH"),
        (f"t=1492774577,v0={good}", 1492774580, "SIGNATURE_MALFORMED"),
        (f"v1={good}", 1492774580, "TIMESTAMP_MISSING"),
        (f"t=1492774577,v1={good}", 1492774577 + 301, "TIMESTAMP_STALE"),
    ]:
        assert refusal(STRIPE, {"stripe-signature": header}, body, ["whsec_test"], now_s) == reason
