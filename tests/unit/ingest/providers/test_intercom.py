"""Intercom's rules. The expected files are written here by hand.

Payloads: captured notifications of 2019 (conversations) and of January and May 2026 (contacts, companies, tickets,
admins, articles), shortened; contact_unarchived and ticket_contact_detached are unverified. Topics:
https://developers.intercom.com/docs/references/2.16/webhooks/webhook-models (copy read in November 2026, undated).
Signature: https://developers.intercom.com/docs/webhooks and the older page "Signed Notifications", whose example comes
without its key.
"""

import hashlib
import hmac

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.pinned_json import JsonValue
from tests.support.provider_fixtures import DELETE, PATCH, SIGNAL, UPSERT, Made, Outcome, names, outcome, refusal

INTERCOM = ProviderRegistry.load(1_000_000)["intercom"]
CONTACT_PATH = "/intercom/contacts/6961d4041c1e12de4c5499cc.json"
CONTACT_ID = "contact/6961d4041c1e12de4c5499cc"
CONTACT: dict[str, JsonValue] = {
    "type": "contact",
    "id": "6961d4041c1e12de4c5499cc",
    "external_id": "24",
    "role": "user",
    "email": "user@example.com",
    "name": "Sample User",
    "updated_at": "2026-01-10T04:22:28.238+00:00",
}
CONTACT_PROPERTIES = {"name": "Sample User", "email": "user@example.com", "role": "user", "external_id": "24"}
COMPANY_PATH = "/intercom/companies/6961d175205cf6a4438f0c21.json"
COMPANY_ID = "company/6961d175205cf6a4438f0c21"
CONVERSATION_PATH = "/intercom/conversations/21322009097.json"
CONVERSATION_ID = "conversation/21322009097"
CONVERSATION: JsonValue = {
    "type": "conversation",
    "id": "21322009097",
    "created_at": 1553290933,
    "updated_at": 1553291307,
    "assignee": {"type": "admin", "id": "1957471", "name": "Ann"},
    "conversation_message": {"type": "conversation_message", "id": "331499307", "body": "<p>Hello</p>"},
    "state": "open",
    "open": True,
    "read": True,
}
CONVERSATION_PROPERTIES = {"state": "open", "open": "true", "read": "true", "assignee": "Ann"}
TICKET_PATH = "/intercom/tickets/215472629311235.json"
TICKET_ID = "ticket/215472629311235"
TICKET: JsonValue = {
    "type": "ticket",
    "id": "215472629311235",
    "ticket_id": "66040342",
    "ticket_attributes": {"_default_title_": "Cannot log in"},
    "ticket_state": {
        "type": "ticket_state",
        "id": "4517893",
        "category": "submitted",
        "internal_label": "Submitted",
    },
    "ticket_parts": {"type": "ticket_part.list", "ticket_parts": [], "total_count": 0},
    "open": True,
}
TICKET_PROPERTIES = {"title": "Cannot log in", "state": "submitted", "number": "66040342", "open": "true"}
WHEN = "2026-01-10T04:22:28Z"

EXPECTED = {
    "contact_created": Outcome(
        "notif_1",
        "contact.user.created",
        [Made(UPSERT, CONTACT_PATH, CONTACT_ID, WHEN, CONTACT, CONTACT_PROPERTIES)],
    ),
    "contact_updated": Outcome(
        "notif_2",
        "contact.user.updated",
        [
            Made(
                UPSERT,
                CONTACT_PATH,
                CONTACT_ID,
                "2026-01-10T04:22:30Z",
                {**CONTACT, "name": "Another Name"},
                {**CONTACT_PROPERTIES, "name": "Another Name"},
            )
        ],
    ),
    "contact_deleted": Outcome(
        "notif_3", "contact.deleted", [Made(DELETE, CONTACT_PATH, CONTACT_ID, "2026-01-10T04:37:49Z")]
    ),
    "contact_unarchived": Outcome(
        "notif_4",
        "contact.unarchived",
        [
            Made(
                PATCH,
                CONTACT_PATH,
                CONTACT_ID,
                WHEN,
                {"id": "6961d4041c1e12de4c5499cc", "type": "contact", "archived": False},
            )
        ],
    ),
    # What is deleted here is the tag.
    "contact_tagged": Outcome(
        "notif_5",
        "contact.lead.tag.deleted",
        [
            Made(
                UPSERT,
                CONTACT_PATH,
                CONTACT_ID,
                WHEN,
                {**CONTACT, "role": "lead"},
                {**CONTACT_PROPERTIES, "role": "lead"},
            )
        ],
    ),
    "company_contact_attached": Outcome(
        "notif_6",
        "company.contact.attached",
        [Made(UPSERT, CONTACT_PATH, CONTACT_ID, WHEN, CONTACT, CONTACT_PROPERTIES)],
    ),
    "company_updated": Outcome(
        "notif_7",
        "company.updated",
        [
            Made(
                UPSERT,
                COMPANY_PATH,
                COMPANY_ID,
                WHEN,
                {
                    "type": "company",
                    "id": "6961d175205cf6a4438f0c21",
                    "company_id": "6",
                    "name": "Blue Sun",
                    "monthly_spend": 0,
                },
                {"name": "Blue Sun", "external_id": "6"},
            )
        ],
    ),
    "company_deleted": Outcome("notif_8", "company.deleted", [Made(DELETE, COMPANY_PATH, COMPANY_ID, WHEN)]),
    # The conversation without parts, and the part that came with it.
    "conversation_replied": Outcome(
        "notif_9",
        "conversation.user.replied",
        [
            Made(
                UPSERT,
                CONVERSATION_PATH,
                CONVERSATION_ID,
                "2019-03-22T21:48:28Z",
                CONVERSATION,
                CONVERSATION_PROPERTIES,
            ),
            Made(
                UPSERT,
                "/intercom/conversations/21322009097/parts/2824391734.json",
                "conversation_part/2824391734",
                "2019-03-22T21:48:28Z",
                {
                    "type": "conversation_part",
                    "id": "2824391734",
                    "part_type": "comment",
                    "body": "<p>I need some help.</p>",
                    "created_at": 1553291307,
                    "author": {"type": "user", "id": "5c9553cb27e377f24eed49f7", "name": "Ann Lee"},
                },
                {"type": "comment", "author": "Ann Lee"},
                [CONVERSATION_PATH],
            ),
        ],
    ),
    "conversation_created": Outcome(
        "notif_10",
        "conversation.user.created",
        [
            Made(
                UPSERT,
                CONVERSATION_PATH,
                CONVERSATION_ID,
                "2019-03-22T21:42:13Z",
                CONVERSATION,
                CONVERSATION_PROPERTIES,
            )
        ],
    ),
    "conversation_deleted": Outcome(
        "notif_11",
        "conversation.deleted",
        [Made(DELETE, CONVERSATION_PATH, CONVERSATION_ID, "2026-01-11T06:14:57Z")],
    ),
    "conversation_contact_attached": Outcome(
        "notif_12",
        "conversation.contact.attached",
        [Made(SIGNAL, CONVERSATION_PATH, CONVERSATION_ID, "2026-01-10T08:10:15Z")],
    ),
    "ticket_created": Outcome(
        "notif_13",
        "ticket.created",
        [Made(UPSERT, TICKET_PATH, TICKET_ID, "2026-01-11T06:50:51Z", TICKET, TICKET_PROPERTIES)],
    ),
    "ticket_note_created": Outcome(
        "notif_14",
        "ticket.note.created",
        [Made(UPSERT, TICKET_PATH, TICKET_ID, "2026-01-11T07:41:59Z", TICKET, TICKET_PROPERTIES)],
    ),
    "ticket_contact_detached": Outcome(
        "notif_15", "ticket.contact.detached", [Made(SIGNAL, TICKET_PATH, TICKET_ID, "2026-01-11T07:48:44Z")]
    ),
    "admin_removed": Outcome(
        "notif_16",
        "admin.removed_from_workspace",
        [Made(DELETE, "/intercom/admins/1234567.json", "admin/1234567", WHEN)],
    ),
    "article_published": Outcome(
        "notif_17",
        "article.published",
        [
            Made(
                UPSERT,
                "/intercom/articles/15147051.json",
                "article/15147051",
                "2026-05-16T15:07:07Z",
                {
                    "id": "15147051",
                    "type": "article",
                    "title": "How to",
                    "state": "published",
                    "author_id": 10628207,
                    "updated_at": "2026-05-16T15:06:43.000Z",
                },
                {"title": "How to", "state": "published"},
            )
        ],
    ),
    "ping": Outcome("", "ping"),
    "unknown": Outcome("notif_18", "something.of_the_future"),
}


@pytest.mark.parametrize("name", names("intercom"))
def test_an_event_becomes_what_is_written_here(name: str) -> None:
    assert outcome(INTERCOM, name) == EXPECTED[name]


def test_the_signature() -> None:
    body = b'{"type":"notification_event"}'
    good = "sha1=" + hmac.new(b"client-secret", body, hashlib.sha1).hexdigest()
    assert refusal(INTERCOM, {"x-hub-signature": good}, body, ["newer", "client-secret"]) == ""
    assert refusal(INTERCOM, {"x-hub-signature": good}, body + b" ", ["client-secret"]) == "SIGNATURE_MISMATCH"
    longer = "sha256=" + hmac.new(b"client-secret", body, hashlib.sha256).hexdigest()
    assert refusal(INTERCOM, {"x-hub-signature": longer}, body, ["client-secret"]) == "SIGNATURE_MALFORMED"
    assert refusal(INTERCOM, {}, body, ["client-secret"]) == "SIGNATURE_MISSING"
