"""Times order what providers send: whichever way deliveries of one object arrive, the same tree is left.

The fixtures become changes by the adapters, and a tree by the planner on the store in memory.
"""

import json
from collections.abc import Sequence
from itertools import permutations

import pytest

from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.model import MemberKind
from relayfile.v1 import types_pb2
from tests.fakes.model_store import Deliveries, ModelStore
from tests.support.provider_fixtures import request

PROVIDERS = ProviderRegistry.load(1_000_000)
KINDS = {
    types_pb2.CHANGE_KIND_UPSERT: MemberKind.UPSERT,
    types_pb2.CHANGE_KIND_DELETE: MemberKind.DELETE,
    types_pb2.CHANGE_KIND_PATCH: MemberKind.PATCH,
    types_pb2.CHANGE_KIND_SIGNAL: MemberKind.SIGNAL,
}
RECEIVED_US = 1_900_000_000_000_000
ISSUE = "/gitlab/projects/15/issues/23.json"
HUBSPOT_CONTACT = "/hubspot/12345678/contacts/65059681032.json"
HUBSPOT = {
    "/hubspot/12345678/2-1234567/77.json": ("depth", "5"),
    "/hubspot/12345678/tickets/8.json": ("hs_object_id", None),
}
JIRA_ISSUE = "/jira/issues/99291.json"
LINEAR_ISSUE = "/linear/issues/ENG-42.json"
SLACK_CHANNEL = "/slack/channels/C024BE91L/channel.json"
SLACK_MESSAGE = "/slack/channels/C123ABC456/messages/1355517523.000005.json"
CUSTOMER = "/stripe/customers/cus_9s6XKzkNRiz8i3.json"
ORDER = "/shopify/orders/820982911946154508.json"
CONTACT = "/intercom/contacts/6961d4041c1e12de4c5499cc.json"
PART = "/intercom/conversations/21322009097/parts/2824391734.json"
STANDARD = "/standard-webhooks/contact/1f81eb52-5198-4599-803e-771906343485.json"


def tree_after(provider: str, names: Sequence[str]) -> dict[str, object]:
    """The files that are left when the fixtures arrive in this order."""
    store, make = ModelStore(), Deliveries()
    for number, name in enumerate(names):
        for made in PROVIDERS[provider].normalise(request(provider, name)):
            for change in made.envelope.changes:
                member = make.member(
                    KINDS[change.kind],
                    change.path,
                    change.content,
                    occurred_us=change.occurred_at.ToMicroseconds() if change.HasField("occurred_at") else None,
                    received_us=RECEIVED_US + number,
                    object_id=change.provider_object_id,
                )
                store.apply(make.fold(change.provider_object_id, [member]))
    store.check()
    return {path: json.loads(content) for path, content in store.tree().items()}


@pytest.mark.parametrize(
    ("provider", "names", "left"),
    [
        ("gitlab", ["issue_open", "issue_update"], {ISSUE: ("title", "Another title")}),
        ("hubspot", ["created", "properties_changed"], HUBSPOT | {HUBSPOT_CONTACT: ("firstname", "Ada")}),
        ("hubspot", ["created", "properties_changed", "deleted"], HUBSPOT),
        ("linear", ["issue_created", "issue_updated"], {LINEAR_ISSUE: ("title", "Conveyor stops at one")}),
        ("linear", ["issue_created", "issue_updated", "issue_removed"], {}),
        ("notion", ["page_created", "page_properties_updated", "page_deleted"], {}),
        ("asana", ["events", "project_deleted"], {}),
        ("hubspot", ["created", "merged", "restored"], {HUBSPOT_CONTACT: ("hs_object_id", "65059681032")}),
        ("slack", ["channel_created", "channel_archive"], {SLACK_CHANNEL: ("name", "fun")}),
        ("slack", ["file_shared", "file_deleted"], {}),
        ("slack", ["message", "message_changed"], {SLACK_MESSAGE: ("text", "Hello, world!")}),
        ("slack", ["message", "message_changed", "message_deleted"], {}),
        ("slack", ["reaction_added", "reaction_removed"], {}),
        ("slack", ["member_joined", "member_left"], {}),
        ("slack", ["channel_created", "channel_rename"], {SLACK_CHANNEL: ("name", "more-fun")}),
        ("slack", ["channel_created", "channel_rename", "channel_deleted"], {}),
        ("jira", ["issue_created", "issue_moved"], {JIRA_ISSUE: ("key", "OPS-7")}),
        ("jira", ["issue_created", "issue_moved", "issue_deleted"], {}),
        ("jira", ["comment_created", "comment_deleted_without_issue"], {}),
        ("jira", ["project_trashed", "project_restored"], {"/jira/projects/12345.json": ("key", "ACTP")}),
        ("stripe", ["customer_created", "customer_updated"], {CUSTOMER: ("name", "J. Rosen")}),
        ("stripe", ["customer_created", "customer_updated", "customer_deleted"], {}),
        ("shopify", ["order_created", "order_paid"], {ORDER: ("updated_at", "2025-04-22T14:30:05-05:00")}),
        ("shopify", ["order_created", "order_paid", "order_deleted"], {}),
        ("intercom", ["contact_created", "contact_updated"], {CONTACT: ("name", "Another Name")}),
        ("intercom", ["contact_created", "contact_updated", "contact_deleted"], {}),
        (
            "intercom",
            ["conversation_created", "conversation_replied", "conversation_deleted"],
            {PART: ("part_type", "comment")},
        ),
        ("standard-webhooks", ["created", "updated"], {STANDARD: ("fullName", "J. Smith")}),
    ],
)
def test_the_newest_is_left_in_whichever_order_they_arrive(
    provider: str, names: list[str], left: dict[str, tuple[str, str | None]]
) -> None:
    for order in permutations(names):
        tree = tree_after(provider, order)
        assert tree.keys() == left.keys(), order
        for path, (member, value) in left.items():
            content = tree[path]
            assert isinstance(content, dict)
            assert content.get(member) == value, order


def test_a_delivery_that_comes_twice_changes_nothing() -> None:
    once = tree_after("intercom", ["conversation_created", "conversation_replied"])
    assert tree_after("intercom", ["conversation_created", "conversation_replied", "conversation_created"]) == once
