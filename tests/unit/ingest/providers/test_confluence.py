"""Confluence's rules. The expected files are written here by hand.

Payloads: captured deliveries of Confluence Data Center (May 2026, ids only) and one with details as versions before
8.x send; labels, attachments, spaces and users after what Confluence's own source writes (9.x); the connection test is
unverified. Names of events: https://confluence.atlassian.com/doc/managing-webhooks-1021225606.html, which also says how
requests are signed, without a test vector; the form `sha256=<hex>` is that of Atlassian's other products. Confluence
Cloud's own page was not found in a copy: unverified.
"""

import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from tests.support.provider_fixtures import DELETE, SIGNAL, UPSERT, Made, Outcome, names, outcome, refusal

CONFLUENCE = ProviderRegistry.load(1_000_000)["confluence"]
WHEN = "2026-05-06T12:42:45.412Z"
PAGE = ("/confluence/pages/123456.json", "page/123456", WHEN)

EXPECTED = {
    "page_created": Outcome("", "page.created", [Made(SIGNAL, *PAGE)]),
    "page_updated_with_details": Outcome("", "page.updated", [Made(SIGNAL, *PAGE)]),
    "page_moved": Outcome("", "page.moved", [Made(SIGNAL, *PAGE)]),
    "page_trashed": Outcome("", "page.trashed", [Made(DELETE, *PAGE)]),
    "blog_removed": Outcome("", "blog.removed", [Made(DELETE, "/confluence/blogs/4711.json", "blog/4711", WHEN)]),
    "comment_updated": Outcome(
        "", "comment.updated", [Made(SIGNAL, "/confluence/comments/789012.json", "comment/789012", WHEN)]
    ),
    "attachments_created": Outcome(
        "",
        "attachment.created",
        [
            Made(SIGNAL, "/confluence/attachments/1.json", "attachment/1", WHEN),
            Made(SIGNAL, "/confluence/attachments/2.json", "attachment/2", WHEN),
        ],
    ),
    "label_added": Outcome(
        "",
        "label.added",
        [
            Made(
                UPSERT,
                "/confluence/labels/123456.json",
                "labels/123456",
                WHEN,
                {"id": 123456, "labels": [{"name": "howto"}, {"name": "ops"}]},
                {},
                ["/confluence/pages/123456.json"],
            )
        ],
    ),
    "label_removed_last": Outcome(
        "",
        "label.removed",
        [
            Made(
                UPSERT,
                "/confluence/labels/123456.json",
                "labels/123456",
                WHEN,
                {"id": 123456, "labels": []},
                {},
                ["/confluence/pages/123456.json"],
            )
        ],
    ),
    "space_updated": Outcome("", "space.updated", [Made(SIGNAL, "/confluence/spaces/98306.json", "space/98306", WHEN)]),
    "user_removed": Outcome("", "user.removed", [Made(DELETE, "/confluence/users/def456.json", "user/def456", WHEN)]),
    "user_removed_without_profile": Outcome("", "user.removed"),
    "connection_test": Outcome("", "test"),
    "unknown": Outcome("", "something_of_the.future"),
}


@pytest.mark.parametrize("name", names("confluence"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(CONFLUENCE, name) == EXPECTED[name]


def test_the_signature() -> None:
    body = b'{"event":"page_created"}'
    good = "sha256=" + hmac.new(b"a-secret-string", body, hashlib.sha256).hexdigest()
    assert refusal(CONFLUENCE, {"x-hub-signature": good}, body, ["newer", "a-secret-string"]) == ""
    assert refusal(CONFLUENCE, {"x-hub-signature": good}, body + b"\n", ["a-secret-string"]) == "SIGNATURE_MISMATCH"
    assert refusal(CONFLUENCE, {}, body, ["a-secret-string"]) == "SIGNATURE_MISSING"
    assert CONFLUENCE.accepts_token
