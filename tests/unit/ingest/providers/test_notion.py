"""Notion's rules. What is expected is written here by hand, not taken from the adapter."""

from typing import Final

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from tests.support.provider_fixtures import DELETE, SIGNAL, Made, Outcome, names, outcome, refusal, request

NOTION: Final = ProviderRegistry.load(1_000_000)["notion"]
DELIVERY: Final = "367cba44-b6f3-4c92-81e7-6a2e9659efd"
PAGE: Final = "/notion/pages/153104cd-477e-809d-8dc4-ff2d96ae3090.json"
PAGE_ID: Final = "page/153104cd-477e-809d-8dc4-ff2d96ae3090"
COMMENT: Final = "/notion/comments/153104cd-477e-80ec-a87d-001d7fd5e7e2.json"
COMMENT_ID: Final = "comment/153104cd-477e-80ec-a87d-001d7fd5e7e2"

EXPECTED: Final = {
    "page_created": Outcome(f"{DELIVERY}0", "page.created", [Made(SIGNAL, PAGE, PAGE_ID, "2024-12-05T19:49:36.997Z")]),
    "page_properties_updated": Outcome(
        f"{DELIVERY}1", "page.properties_updated", [Made(SIGNAL, PAGE, PAGE_ID, "2024-12-05T23:57:05.379Z")]
    ),
    "page_deleted": Outcome(f"{DELIVERY}2", "page.deleted", [Made(DELETE, PAGE, PAGE_ID, "2024-12-06T00:00:00Z")]),
    "data_source_schema_updated": Outcome(
        f"{DELIVERY}3",
        "data_source.schema_updated",
        [
            Made(
                SIGNAL,
                "/notion/data-sources/1a6b35e6-e67f-802f-a7e1-d27686f017f2.json",
                "data_source/1a6b35e6-e67f-802f-a7e1-d27686f017f2",
                "2024-12-05T20:46:45.854Z",
            )
        ],
    ),
    "database_created": Outcome(
        f"{DELIVERY}4",
        "database.created",
        [Made(SIGNAL, "/notion/databases/2f1d-db.json", "database/2f1d-db", "2024-12-05T20:46:45.854Z")],
    ),
    "comment_created": Outcome(
        f"{DELIVERY}5", "comment.created", [Made(SIGNAL, COMMENT, COMMENT_ID, "2024-12-05T20:46:44.854Z")]
    ),
    "comment_deleted": Outcome(
        f"{DELIVERY}6", "comment.deleted", [Made(DELETE, COMMENT, COMMENT_ID, "2024-12-05T20:50:00Z")]
    ),
    "view_updated": Outcome(
        f"{DELIVERY}8",
        "view.updated",
        [Made(SIGNAL, "/notion/views/8a6b35e6-view.json", "view/8a6b35e6-view", "2024-12-05T20:51:00Z")],
    ),
    "view_deleted": Outcome(
        f"{DELIVERY}9",
        "view.deleted",
        [Made(DELETE, "/notion/views/8a6b35e6-view.json", "view/8a6b35e6-view", "2024-12-05T20:52:00Z")],
    ),
    "handshake": Outcome("", "", failure="EVENT_MISSING"),
    "unknown": Outcome(f"{DELIVERY}7", "hologram.created"),
}


def test_every_fixture_has_its_expectation() -> None:
    assert names("notion") == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_become_what_is_written_here(name: str) -> None:
    assert outcome(NOTION, name) == EXPECTED[name]


def test_the_handshake_brings_the_token_and_nothing_else_does() -> None:
    token = "secret_written_for_this_test_0000000000000000"
    assert NOTION.handshake_secret(request("notion", "handshake")) == token
    assert NOTION.handshake_secret(request("notion", "page_created")) == ""


def test_the_signature_is_over_the_body() -> None:
    body, scheme = request("notion", "page_created").body, NOTION.scheme
    assert scheme is not None
    headers = {"x-notion-signature": sign(scheme, SignedRequest({}, body), "secret_x")}
    assert headers["x-notion-signature"].startswith("sha256=")
    assert refusal(NOTION, headers, body, ["secret_x"]) == ""
    assert refusal(NOTION, headers, body, ["secret_y"]) == "SIGNATURE_MISMATCH"
