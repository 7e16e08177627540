"""Linear's rules. What is expected is written here by hand, not taken from the adapter."""

import json
from typing import Final

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignatureRefused, SignedRequest, check_body_time, sign
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, UPSERT, Made, Outcome, names, outcome, refusal, request

LINEAR: Final = ProviderRegistry.load(1_000_000)["linear"]
DELIVERY: Final = "234d1a4e-b617-4388-90fe-adc3633d6b7"
ISSUE: Final = "issue/539068e2-ae88-4d09-bd75-22eb4a59612f"
PROPERTIES: Final = {"title": "Conveyor stops at noon", "state": "Todo", "team": "ENG", "assignee": "Ada"}


def data(name: str) -> dict[str, JsonValue]:
    """The object in a fixture: what a file's content is to be."""
    found: dict[str, JsonValue] = json.loads(request("linear", name).body)["data"]
    return found


EXPECTED: Final = {
    "issue_created": Outcome(
        f"{DELIVERY}0",
        "Issue.create",
        [
            Made(
                UPSERT,
                "/linear/issues/ENG-42.json",
                ISSUE,
                "2026-01-23T12:53:18.084Z",
                data("issue_created"),
                PROPERTIES,
            )
        ],
    ),
    "issue_updated": Outcome(
        f"{DELIVERY}1",
        "Issue.update",
        [
            Made(
                UPSERT,
                "/linear/issues/ENG-42.json",
                ISSUE,
                "2026-01-24T08:00:00.500Z",
                data("issue_updated"),
                PROPERTIES | {"title": "Conveyor stops at one"},
            )
        ],
    ),
    "issue_removed": Outcome(
        f"{DELIVERY}2", "Issue.remove", [Made(DELETE, "/linear/issues/ENG-42.json", ISSUE, "2026-01-25T09:00:00Z")]
    ),
    "comment_created": Outcome(
        f"{DELIVERY}3",
        "Comment.create",
        [
            Made(
                UPSERT,
                "/linear/comments/2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9.json",
                "comment/2174add1-f7c8-44e3-bbf3-2d60b5ea8bc9",
                "2026-01-23T12:53:18.084Z",
                data("comment_created"),
                {"author": "Ada"},
                ["/linear/issues/ENG-42.json"],
            )
        ],
    ),
    "label_without_time": Outcome(
        f"{DELIVERY}4",
        "IssueLabel.create",
        [
            Made(
                UPSERT,
                "/linear/labels/l1.json",
                "issue_label/l1",
                "2026-01-23T13:00:00Z",
                {"id": "l1", "name": "bug", "color": "#f00"},
                {"name": "bug"},
            )
        ],
    ),
    "issue_sla": Outcome(f"{DELIVERY}5", "IssueSLA.breached"),
    "unknown": Outcome(f"{DELIVERY}6", "Roadmap.create"),
}


def test_every_fixture_has_its_expectation() -> None:
    assert names("linear") == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_events_become_what_is_written_here(name: str) -> None:
    assert outcome(LINEAR, name) == EXPECTED[name]


def test_the_signature_is_over_the_body_and_its_time_is_in_it() -> None:
    facts, scheme = request("linear", "issue_created"), LINEAR.scheme
    assert scheme is not None
    signed = {"linear-signature": sign(scheme, SignedRequest({}, facts.body), "lin_wh_secret")}
    assert refusal(LINEAR, signed, facts.body, ["lin_wh_secret"]) == ""
    assert refusal(LINEAR, signed, facts.body, ["another"]) == "SIGNATURE_MISMATCH"
    document, sent_us = json.loads(facts.body), 1_769_172_799_000_000
    check_body_time(scheme, document, sent_us - 60_000_000)
    check_body_time(scheme, document, sent_us + 6 * 3600 * 1_000_000)  # its last attempt, as it was
    for now_us in (sent_us - 60_000_001, sent_us + 22_060_000_001):
        with pytest.raises(SignatureRefused, match="TIMESTAMP_STALE"):
            check_body_time(scheme, document, now_us)
