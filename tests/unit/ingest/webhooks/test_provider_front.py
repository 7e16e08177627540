"""Requests of each provider on the real port: signed as the provider signs, by code that shares nothing with ours."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.provider_fixtures import request
from tests.unit.ingest.front import NOW_US, WORKSPACE, Front, ask, request_bytes, running_front

NOW_S = NOW_US // 1_000_000
SECRET = "whsec_c2VjcmV0LW9mLXRoZS1zaG9w"
KEY = b"secret-of-the-shop"


def hub(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-hub-signature": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()}


def hub_sha1(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-hub-signature": "sha1=" + hmac.new(key, body, hashlib.sha1).hexdigest()}


def shopify(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-shopify-hmac-sha256": base64.b64encode(hmac.new(key, body, hashlib.sha256).digest()).decode()}


def stripe(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    signed = hmac.new(key, b"%d.%b" % (at_s, body), hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at_s},v1={signed}"}


def standard(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    signed = hmac.new(key, b"m-1.%d.%b" % (at_s, body), hashlib.sha256).digest()
    return {
        "webhook-id": "m-1",
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }


def gitlab_token(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-gitlab-token": key.decode()}


def asana(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-hook-signature": hmac.new(key, body, hashlib.sha256).hexdigest()}


def hubspot(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    url = f"https://test/v1/workspaces/{WORKSPACE}/webhooks/hubspot".encode()
    signed = hmac.new(key, b"POST%b%b%d000" % (url, body, at_s), hashlib.sha256).digest()
    return {
        "x-hubspot-signature-v3": base64.b64encode(signed).decode(),
        "x-hubspot-request-timestamp": f"{at_s}000",
    }


def linear(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"linear-signature": hmac.new(key, body, hashlib.sha256).hexdigest()}


def notion(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    return {"x-notion-signature": "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()}


def slack(body: bytes, key: bytes, at_s: int) -> dict[str, str]:
    signed = hmac.new(key, b"v0:%d:%b" % (at_s, body), hashlib.sha256).hexdigest()
    return {"x-slack-signature": f"v0={signed}", "x-slack-request-timestamp": str(at_s)}


class Sender(NamedTuple):
    """How one provider proves itself."""

    provider: str
    fixture: str
    proof: Callable[[bytes, bytes, int], dict[str, str]]
    key: bytes
    is_timed: bool
    kinds: list[int]
    """Of the changes that are accepted."""
    stamp: str = ""
    """The member of the body that says, in milliseconds, when it was sent."""
    repeats_for_s: int = 0


SENDERS = [
    Sender("asana", "project_deleted", asana, SECRET.encode(), False, [2]),
    Sender("hubspot", "created", hubspot, SECRET.encode(), True, [3]),
    Sender("linear", "issue_created", linear, SECRET.encode(), True, [1], "webhookTimestamp", 22_000),
    Sender("notion", "page_created", notion, SECRET.encode(), False, [4]),
    Sender("slack", "message_changed", slack, SECRET.encode(), True, [1]),
    Sender("gitlab", "issue_open", gitlab_token, SECRET.encode(), False, [1]),
    Sender("gitlab", "issue_open", standard, KEY, True, [1]),
    Sender("jira", "issue_deleted", hub, SECRET.encode(), False, [2]),
    Sender("confluence", "attachments_created", hub, SECRET.encode(), False, [4, 4]),
    Sender("stripe", "invoice_paid", stripe, SECRET.encode(), True, [1]),
    Sender("shopify", "customer_consent", shopify, SECRET.encode(), False, [3]),
    Sender("intercom", "conversation_replied", hub_sha1, SECRET.encode(), False, [1, 1]),
    Sender("standard-webhooks", "created", standard, KEY, True, [1]),
]
every_sender = pytest.mark.parametrize(
    "sender", SENDERS, ids=[f"{each.provider}-{each.proof.__name__}" for each in SENDERS]
)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    directory = tmp_path / "secrets" / WORKSPACE
    directory.mkdir(parents=True)
    for sender in SENDERS:
        (directory / sender.provider).write_text(f"a newer one\n{SECRET}\n")
    async with running_front(tmp_path) as running:
        yield running


async def post(
    front: Front, sender: Sender, *, key: bytes, late_s: int = 0, more: bytes = b"", is_proven: bool = True
) -> tuple[int, str]:
    """The status, and why a refused one was refused."""
    facts = request(sender.provider, sender.fixture)
    unsigned = {
        name: value
        for name, value in facts.headers.items()
        if "signature" not in name and "hmac" not in name and not name.startswith("webhook-")
    }
    body = facts.body
    if sender.stamp:
        body = json.dumps(json.loads(body) | {sender.stamp: (NOW_S - late_s) * 1000}).encode()
    proof = sender.proof(body, key, NOW_S - late_s) if is_proven else {}
    target = f"/v1/workspaces/{WORKSPACE}/webhooks/{sender.provider}"
    response = await ask(front.address, request_bytes(target, body + more, unsigned | proof))
    newest = front.rejected.newest("", 0, 1)
    return response.status, newest[0].reason if newest else ""


@every_sender
async def test_a_proven_request_is_accepted(front: Front, sender: Sender) -> None:
    assert await post(front, sender, key=sender.key) == (200, "")
    (envelope,) = front.intake.accepted
    assert [change.kind for change in envelope.changes] == sender.kinds
    assert all(change.path.startswith(f"/{sender.provider}/") for change in envelope.changes)
    assert envelope.delivery_id


@every_sender
async def test_any_other_is_refused_and_leaves_nothing(front: Front, sender: Sender) -> None:
    assert await post(front, sender, key=b"another secret") == (401, "SIGNATURE_MISMATCH")
    assert await post(front, sender, key=sender.key, is_proven=False) == (401, "SIGNATURE_MISSING")
    if sender.proof is not gitlab_token:
        assert await post(front, sender, key=sender.key, more=b" ") == (401, "SIGNATURE_MISMATCH")
    if sender.is_timed:
        assert await post(front, sender, key=sender.key, late_s=301 + sender.repeats_for_s) == (401, "TIMESTAMP_STALE")
        assert await post(front, sender, key=sender.key, late_s=-301) == (401, "TIMESTAMP_STALE")
    assert front.intake.accepted == []
