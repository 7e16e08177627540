"""The rules of Standard Webhooks. The expected files are written here by hand.

Payloads and headers: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md,
version 1.0.0 (commit 03f5f8c68488); deleted_with_milliseconds after Clerk's `user.deleted`, which writes milliseconds,
and Svix's older header names (unverified). Signature: the vector with which the specification's libraries are tested.
"""

import base64
import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from tests.support.provider_fixtures import DELETE, SIGNAL, UPSERT, Made, Outcome, names, outcome, refusal

STANDARD = ProviderRegistry.load(1_000_000)["standard-webhooks"]
CONTACT_PATH = "/standard-webhooks/contact/1f81eb52-5198-4599-803e-771906343485.json"
CONTACT_ID = "object/contact:1f81eb52-5198-4599-803e-771906343485"

EXPECTED = {
    "created": Outcome(
        "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
        "contact.created",
        [
            Made(
                UPSERT,
                CONTACT_PATH,
                CONTACT_ID,
                "2022-11-03T20:26:10.344522Z",
                {
                    "id": "1f81eb52-5198-4599-803e-771906343485",
                    "type": "contact",
                    "fullName": "John Smith",
                    "occupation": "Engineer, ACME",
                },
                {"event": "contact.created"},
            )
        ],
    ),
    "updated": Outcome(
        "msg_2",
        "contact.updated",
        [
            Made(
                UPSERT,
                CONTACT_PATH,
                CONTACT_ID,
                "2022-11-03T20:30:00Z",
                {"id": "1f81eb52-5198-4599-803e-771906343485", "type": "contact", "fullName": "J. Smith"},
                {"event": "contact.updated"},
            )
        ],
    ),
    "deleted_with_milliseconds": Outcome(
        "msg_3",
        "user.deleted",
        [
            Made(
                DELETE,
                "/standard-webhooks/user/user_29wBMCtzATuFJut8jO2VNTVekS4.json",
                "object/user:user_29wBMCtzATuFJut8jO2VNTVekS4",
                "2022-05-31T16:00:24.306Z",
            )
        ],
    ),
    "deeper_type": Outcome(
        "msg_4",
        "invoice.payment.failed",
        [
            Made(
                UPSERT,
                "/standard-webhooks/invoice.payment/pay_1.json",
                "object/invoice.payment:pay_1",
                "2023-01-19T00:13:51Z",
                {"id": "pay_1", "state": "failed"},
                {"event": "invoice.payment.failed"},
            )
        ],
    ),
    # Without `data` the body is the object.
    "squashed": Outcome(
        "msg_5",
        "task.finished",
        [
            Made(
                UPSERT,
                "/standard-webhooks/task/task%2F1.json",
                "object/task:task%2F1",
                "2022-11-03T20:26:10Z",
                {
                    "type": "task.finished",
                    "timestamp": "2022-11-03T20:26:10Z",
                    "id": "task/1",
                    "name": "Index",
                    "status": "ok",
                },
                {"event": "task.finished"},
            )
        ],
    ),
    "thin": Outcome(
        "msg_8", "contact.created", [Made(SIGNAL, CONTACT_PATH, CONTACT_ID, "2022-11-03T20:26:10.344522Z")]
    ),
    "about_nothing_with_an_id": Outcome("msg_6", "example.event"),
    "without_type": Outcome("msg_7", "", failure="UNEXPECTED_SHAPE"),
}

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW_S = 1_614_265_330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}


@pytest.mark.parametrize("name", names("standard-webhooks"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(STANDARD, name) == EXPECTED[name]


@pytest.mark.parametrize(
    ("change", "body", "now_s", "reason"),
    [
        ({}, BODY, NOW_S, ""),
        ({}, BODY + b" ", NOW_S, "SIGNATURE_MISMATCH"),
        ({"webhook-id": "msg_other"}, BODY, NOW_S, "SIGNATURE_MISMATCH"),
        ({"webhook-timestamp": "1614265331"}, BODY, NOW_S, "SIGNATURE_MISMATCH"),
        ({}, BODY, NOW_S + 301, "TIMESTAMP_STALE"),
        ({}, BODY, NOW_S - 301, "TIMESTAMP_STALE"),
        ({"webhook-signature": "v1a,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, BODY, NOW_S, "SIGNATURE_MALFORMED"),
    ],
)
def test_the_signature_of_the_specification(change: dict[str, str], body: bytes, now_s: int, reason: str) -> None:
    assert refusal(STANDARD, HEADERS | change, body, ["other", SECRET], now_s) == reason
    assert refusal(STANDARD, HEADERS | change, body, [SECRET.removeprefix("whsec_")], now_s) == reason


def test_one_of_several_signatures_is_enough_and_the_older_names_are_known() -> None:
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    signed = b"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330." + BODY
    good = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    wrong = base64.b64encode(bytes(32)).decode()
    several = HEADERS | {"webhook-signature": f"v1,{wrong} v1a,{wrong} v1,{good}"}
    assert refusal(STANDARD, several, BODY, [SECRET], NOW_S) == ""
    older = {header.replace("webhook-", "svix-"): value for header, value in several.items()}
    assert refusal(STANDARD, older, BODY, [SECRET], NOW_S) == ""
    assert refusal(STANDARD, older | {"svix-id": "msg"}, BODY, [SECRET], NOW_S) == "SIGNATURE_MISMATCH"
