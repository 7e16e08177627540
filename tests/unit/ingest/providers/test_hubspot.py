"""HubSpot's rules and function. What is expected is written here by hand, not taken from the adapter."""

import json
from typing import Final

import pytest

from relayfile.ingest.providers.adapter import RequestFacts
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, sign, verify
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, PATCH, SIGNAL, UPSERT, Made, Outcome, names, outcomes, request

HUBSPOT: Final = ProviderRegistry.load(1_000_000)["hubspot"]
AT: Final = "2024-02-26T22:29:58.741Z"
PORTAL: Final = "/hubspot/12345678"
ADA: Final = f"{PORTAL}/contacts/65059681032.json"
ADA_ID: Final = "object/12345678:contacts:65059681032"
ASSOCIATION: Final = f"{PORTAL}/associations/CONTACT_TO_COMPANY/1/2.json"
ASSOCIATION_ID: Final = "association/12345678:CONTACT_TO_COMPANY:1:2"


def delivery(event: int, of: int, changed: str = "whole", at_ms: int = 1_708_986_598_741) -> str:
    return f"12345678:234567:{event}:{of}:{changed}:{at_ms}"


def made(kind: str, folder: str, number: int, content: JsonValue = None, at: str = AT) -> Made:
    return Made(kind, f"{PORTAL}/{folder}/{number}.json", f"object/12345678:{folder}:{number}", at, content)


def deleted(event: int, subscription: str, folder: str, number: int) -> Outcome:
    change = made(DELETE, folder, number, at="2024-02-26T22:30:00.741Z")
    return Outcome(delivery(event, number, at_ms=1_708_986_600_741), subscription, [change])


EXPECTED: Final = {
    "created": [
        Outcome(
            delivery(567890123, 65059681032),
            "contact.creation",
            [Made(PATCH, ADA, ADA_ID, AT, {"hs_object_id": "65059681032"})],
        )
    ],
    "properties_changed": [
        Outcome(
            delivery(1, 65059681032, "firstname"),
            "contact.propertyChange",
            [Made(PATCH, ADA, ADA_ID, AT, {"firstname": "Ada"})],
        ),
        Outcome(
            delivery(2, 65059681032, "lastname"),
            "object.propertyChange",
            [Made(PATCH, ADA, ADA_ID, AT, {"lastname": ""})],
        ),
        Outcome(delivery(3, 77, "depth"), "object.propertyChange", [made(PATCH, "2-1234567", 77, {"depth": "5"})]),
        Outcome(delivery(4, 9), "deal.propertyChange", failure="UNEXPECTED_SHAPE"),
        Outcome(delivery(5, 8, "subject"), "ticket.propertyChange", [made(PATCH, "tickets", 8, {"subject": None})]),
    ],
    "deleted": [
        deleted(6, "contact.deletion", "contacts", 65059681032),
        deleted(7, "object.deletion", "companies", 12),
        deleted(8, "contact.privacyDeletion", "contacts", 13),
    ],
    "restored": [Outcome(delivery(9, 14), "deal.restore", [made(SIGNAL, "deals", 14)])],
    "merged": [
        Outcome(
            delivery(10, 20),
            "contact.merge",
            [
                made(DELETE, "contacts", 21),
                made(DELETE, "contacts", 22),
                made(DELETE, "contacts", 20),
                made(SIGNAL, "contacts", 23),
            ],
        ),
        Outcome(delivery(11, 30), "company.merge", [made(DELETE, "companies", 31), made(SIGNAL, "companies", 30)]),
    ],
    "associated": [
        Outcome(
            delivery(12, 1),
            "contact.associationChange",
            [
                Made(
                    UPSERT,
                    ASSOCIATION,
                    ASSOCIATION_ID,
                    AT,
                    {"type": "CONTACT_TO_COMPANY", "fromObjectId": 1, "toObjectId": 2, "isPrimaryAssociation": True},
                )
            ],
        ),
        Outcome(delivery(13, 1), "contact.associationChange", [Made(DELETE, ASSOCIATION, ASSOCIATION_ID, AT)]),
    ],
    "unknown": [Outcome(delivery(14, 1), "contact.teleported")],
}


def test_every_fixture_has_its_expectation() -> None:
    assert names("hubspot") == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_become_what_is_written_here(name: str) -> None:
    assert outcomes(HUBSPOT, request("hubspot", name)) == EXPECTED[name]


def test_another_attempt_is_the_same_delivery() -> None:
    facts = request("hubspot", "properties_changed")
    again = [{**event, "attemptNumber": 3} for event in json.loads(facts.body)]
    assert [one.delivery_id for one in outcomes(HUBSPOT, RequestFacts(facts.headers, json.dumps(again).encode()))] == [
        one.delivery_id for one in EXPECTED["properties_changed"]
    ]


@pytest.mark.parametrize("name", ["merge", "propertyChange", "associationChange", "creation"])
def test_an_event_that_lacks_its_facts_is_a_failure(name: str) -> None:
    body = json.dumps([{"portalId": 1, "eventId": 2, "subscriptionType": f"contact.{name}"}]).encode()
    (made_of_it,) = outcomes(HUBSPOT, RequestFacts({}, body))
    assert (made_of_it.failure, made_of_it.event) == ("UNEXPECTED_SHAPE", f"contact.{name}")


def test_the_signature_is_over_method_url_body_and_time() -> None:
    scheme, body, time = HUBSPOT.scheme, request("hubspot", "created").body, "1708986599647"
    assert scheme is not None
    plain = "https://hooks.example/v1/workspaces/a/webhooks/hubspot?q=(a:b)&s=%20"
    headers = {"x-hubspot-request-timestamp": time}
    signature = sign(scheme, SignedRequest(headers, body, "POST", plain), "secret", time)
    encoded = "https://hooks.example/v1/workspaces/a/webhooks/hubspot?q=%28a%3ab%29&s=%20"
    for url in (plain, encoded):
        signed = SignedRequest(headers | {"x-hubspot-signature-v3": signature}, body, "POST", url)
        verify(scheme, signed, ["old", "secret"], 1_708_986_599_647_000 + 300_000_000)
