"""Requests of each provider on the real port: signed as the provider signs, by code that shares nothing with ours."""

import base64
import hashlib
import hmac
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


class Sender(NamedTuple):
    """How one provider proves itself."""

    provider: str
    fixture: str
    proof: Callable[[bytes, bytes, int], dict[str, str]]
    key: bytes
    is_timed: bool
    kinds: list[int]
    """Of the changes that are accepted."""


SENDERS = [
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
    proof = sender.proof(facts.body, key, NOW_S - late_s) if is_proven else {}
    target = f"/v1/workspaces/{WORKSPACE}/webhooks/{sender.provider}"
    response = await ask(front.address, request_bytes(target, facts.body + more, unsigned | proof))
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
        assert await post(front, sender, key=sender.key, late_s=301) == (401, "TIMESTAMP_STALE")
        assert await post(front, sender, key=sender.key, late_s=-301) == (401, "TIMESTAMP_STALE")
    assert front.intake.accepted == []
