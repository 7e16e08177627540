"""The public port of apps: one URL and one secret, and each delivery where its customer's route leads."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from relayfile.errors import Overloaded
from relayfile.ingest.apps.app_deliveries import accept_apart
from relayfile.ingest.intake import Fate, PastShare
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.providers.provider_file import load_provider
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from relayfile.route_file import TENANT_HEADER
from relayfile.v1 import types_pb2
from tests.unit.ingest.front import NOW_US, FakeIntake, Front, Response, ask, request_bytes, running_front

CRM = """
name = "crm"
version = "1"
[signature]
header = "X-Sign"
signed = "{method}{url}{body}"
[challenge]
events = ["hello"]
answer = "word"
[delivery]
items = "@"
id = "{eventId}"
event = "type"
kept_headers = ["x-batch"]
[[rules]]
events = ["contact"]
object = "contact"
id = "{objectId}"
path = "/crm/contacts/{objectId}.json"
"""
APPS = json.dumps(
    {
        "crm": {"provider": "crm", "tenant": "portalId"},
        "gh": {"provider": "github", "tenant": "installation.id"},
        "bare": {"provider": "github", "tenant": "installation.id"},
    }
)
ROUTES = {"crm": {"1": "acme", "2": "bolt"}, "gh": {"77": "acme"}}
HOOK = "/v1/apps/crm/webhooks"
URL = "https://hooks.example" + HOOK
GITHUB = ProviderRegistry.load(1_000)["github"]


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    (tmp_path / "providers").mkdir()
    (tmp_path / "providers" / "crm.toml").write_text(CRM)
    for app, provider in (("crm", "crm"), ("gh", "github")):
        folder = tmp_path / "secrets" / "_app" / app
        folder.mkdir(parents=True)
        (folder / provider).write_text("newest\nolder\n")
    async with running_front(
        tmp_path,
        providers_dir=tmp_path / "providers",
        public_url="https://hooks.example",
        apps=APPS,
        routes=ROUTES,
        body_bytes_max=2_000_000,
        bodies_bytes_max=8_000_000,
    ) as running:
        yield running


def crm(tmp_path: Path) -> Provider:
    return Provider(load_provider(tmp_path / "providers" / "crm.toml"), 10_000)


def contact(event_id: int, portal: object, kind: str = "contact") -> dict[str, object]:
    return {"eventId": event_id, "portalId": portal, "type": kind, "objectId": event_id}


async def post(front: Front, tmp_path: Path, body: bytes, secret: str = "newest", hook: str = HOOK) -> Response:
    scheme = crm(tmp_path).scheme
    assert scheme is not None
    headers = {"x-sign": sign(scheme, SignedRequest({}, body, "POST", URL), secret), "x-batch": "b-1"}
    return await ask(front.address, request_bytes(hook, body, headers))


async def post_github(front: Front, event: str, document: object, app: str = "gh") -> Response:
    body = json.dumps(document).encode()
    assert GITHUB.scheme is not None
    headers = {
        "x-github-event": event,
        "x-github-delivery": "d-1",
        "x-hub-signature-256": sign(GITHUB.scheme, SignedRequest({}, body), "older"),
    }
    return await ask(front.address, request_bytes(f"/v1/apps/{app}/webhooks", body, headers))


def placed(envelopes: list[types_pb2.Envelope]) -> list[tuple[str, str, str, int]]:
    return [(each.workspace_id, each.delivery_id, each.failure.reason, len(each.changes)) for each in envelopes]


async def test_each_element_goes_to_its_customer_in_one_accept(front: Front, tmp_path: Path) -> None:
    body = json.dumps([contact(10, 1), contact(11, "2"), contact(12, 3), contact(13, 1)]).encode()
    assert (await post(front, tmp_path, body)).status == 200
    assert front.intake.calls == 1
    assert placed(front.intake.accepted) == [
        ("acme", "10", "", 1),
        ("bolt", "11", "", 1),
        ("_app/crm", "12", "UNROUTED", 0),
        ("acme", "13", "", 1),
    ]
    assert {each.provider for each in front.intake.accepted} == {"crm"}
    assert front.store.asked == [], "the routes say which workspaces exist"


async def test_an_unrouted_element_keeps_what_a_redo_needs(front: Front, tmp_path: Path) -> None:
    body = json.dumps([contact(10, 1), contact(12, "Ä 3")]).encode()
    await post(front, tmp_path, body)
    kept = front.intake.accepted[1]
    assert kept.raw.headers == {"x-batch": "b-1", TENANT_HEADER: "Ä 3"}
    assert kept.failure.message == "The customer 'Ä 3' of the app 'crm' has no route."
    [again] = crm(tmp_path).normalise(RequestFacts(kept.raw.headers, kept.raw.body))
    assert (again.envelope.delivery_id, again.envelope.changes[0].path) == ("12", "/crm/contacts/12.json")
    assert again.document == contact(12, "Ä 3")


@pytest.mark.parametrize("portal", [None, "", [], {}, True, 1.5, "x" * 257, "a\x00b"])
async def test_what_is_no_tenant_has_no_route(front: Front, tmp_path: Path, portal: object) -> None:
    assert (await post(front, tmp_path, json.dumps([contact(10, portal)]).encode())).status == 200
    [kept] = front.intake.accepted
    assert placed([kept]) == [("_app/crm", "10", "UNROUTED", 0)]
    assert kept.raw.headers == {"x-batch": "b-1"}
    assert kept.failure.message == "The delivery names no customer where the app 'crm' looks for one."


async def test_a_body_that_is_no_list_of_one(front: Front) -> None:
    label = {
        "action": "created",
        "label": {"id": 7, "name": "bug"},
        "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
    }
    for installation in (77, 78):
        assert (await post_github(front, "label", {**label, "installation": {"id": installation}})).status == 200
    assert placed(front.intake.accepted) == [("acme", "d-1", "", 1), ("_app/gh", "d-1", "UNROUTED", 0)]
    kept = front.intake.accepted[1]
    assert json.loads(kept.raw.body)["installation"] == {"id": 78}
    assert kept.raw.headers["x-github-event"] == "label"
    assert kept.raw.headers[TENANT_HEADER] == "78"


async def test_what_the_rules_ignore_is_only_counted(front: Front) -> None:
    assert (await post_github(front, "ping", {"zen": "z"})).status == 200
    assert (await post_github(front, "ping", {"zen": "z", "installation": {"id": 77}})).status == 200
    assert placed(front.intake.accepted) == [("_app/gh", "d-1", "", 0), ("acme", "d-1", "", 0)]


@pytest.mark.parametrize(
    ("body", "reason", "workspace"),
    [
        (b"", "MALFORMED_JSON", "_app/crm"),
        (b"[", "MALFORMED_JSON", "_app/crm"),
        (b'{"portalId": 1}', "UNEXPECTED_SHAPE", "acme"),
        (b"[7]", "UNEXPECTED_SHAPE", "_app/crm"),
        (b'[{"portalId": 1}]', "EVENT_MISSING", "acme"),
        (b'[{"portalId": 9}]', "EVENT_MISSING", "_app/crm"),
        (b'[{"portalId": 1, "type": "contact"}]', "UNEXPECTED_SHAPE", "acme"),
        (b"[" * 2_000, "MALFORMED_JSON", "_app/crm"),
        (b'"\xff"', "MALFORMED_JSON", "_app/crm"),
        (json.dumps([contact(n, 1) for n in range(10_001)]).encode(), "TOO_LARGE", "_app/crm"),
    ],
)
async def test_what_cannot_be_normalised_is_kept(
    front: Front, tmp_path: Path, body: bytes, reason: str, workspace: str
) -> None:
    response = await post(front, tmp_path, body)
    assert response.status == 200
    [kept] = front.intake.accepted
    assert (kept.workspace_id, kept.failure.reason) == (workspace, reason)
    assert bool(kept.raw.body) is bool(body)


@pytest.mark.parametrize(
    ("hook", "secret", "status", "error", "reason"),
    [
        ("/v1/apps/nobody/webhooks", "newest", 404, "APP_NOT_FOUND", "APP_NOT_FOUND"),
        ("/v1/apps/_app%2Fcrm/webhooks", "newest", 404, "NOT_FOUND", "NOT_FOUND"),
        ("/v1/apps//webhooks", "newest", 404, "NOT_FOUND", "NOT_FOUND"),
        ("/v1/apps/crm/webhooks/crm", "newest", 404, "NOT_FOUND", "NOT_FOUND"),
        ("/v1/workspaces/_app%2Fcrm/webhooks/crm", "newest", 404, "NOT_FOUND", "NOT_FOUND"),
        ("/v1/workspaces/_app/webhooks/crm", "newest", 404, "WORKSPACE_NOT_FOUND", "WORKSPACE_NOT_FOUND"),
        (HOOK, "wrong", 401, "UNAUTHENTICATED", "SIGNATURE_MISMATCH"),
        (HOOK + "?a=1", "newest", 401, "UNAUTHENTICATED", "SIGNATURE_MISMATCH"),
        ("/v1/apps/bare/webhooks", "newest", 401, "UNAUTHENTICATED", "SECRET_MISSING"),
    ],
)
async def test_what_is_refused(
    front: Front, tmp_path: Path, hook: str, secret: str, status: int, error: str, reason: str
) -> None:
    response = await post(front, tmp_path, json.dumps([contact(1, 1)]).encode(), secret, hook)
    assert (response.status, json.loads(response.body)["error"]) == (status, error)
    assert front.intake.accepted == []
    [refused] = front.rejected.newest("", 0, 10)
    assert refused.reason == reason


async def test_a_challenge_is_answered_and_leaves_nothing(front: Front, tmp_path: Path) -> None:
    response = await post(front, tmp_path, b'{"type": "hello", "word": "friend"}')
    assert (response.status, response.body) == (200, b"friend")
    assert front.intake.accepted == []


async def test_secrets_rotate(front: Front, tmp_path: Path) -> None:
    body = json.dumps([contact(1, 1)]).encode()
    assert (await post(front, tmp_path, body, "older")).status == 200
    (tmp_path / "secrets" / "_app" / "crm" / "crm").write_text("next\nnewest\n")
    front.clock.advance(1.5)
    assert [(await post(front, tmp_path, body, secret)).status for secret in ("older", "newest", "next")] == [
        401,
        200,
        200,
    ]


async def test_a_customer_past_its_share_does_not_hold_up_the_others() -> None:
    full = {"acme", "cosy"}

    class Bounded(FakeIntake):
        async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
            past = {(each.workspace_id, each.provider): 2.0 for each in envelopes if each.workspace_id in full}
            if past:
                raise PastShare(past)
            return await super().accept(envelopes)

    intake = Bounded()
    names = ("acme", "bolt", "cosy", "acme", "_app/crm")
    envelopes = [types_pb2.Envelope(workspace_id=name, provider="crm") for name in names]
    with pytest.raises(PastShare) as refused:
        await accept_apart(intake, envelopes)
    assert refused.value.retry_after_s == 2.0
    assert [each.workspace_id for each in intake.accepted] == ["bolt", "_app/crm"]
    full.clear()
    await accept_apart(intake, envelopes)
    assert len(intake.accepted) == 7


async def test_what_has_its_own_fate_is_offered_once() -> None:
    """Without a spool each envelope is accepted or refused by itself."""

    class Single(FakeIntake):
        async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
            await super().accept(envelopes)
            return [PastShare({("acme", "crm"): 1.0}), [types_pb2.OUTCOME_APPLIED]]

    intake = Single()
    with pytest.raises(PastShare):
        await accept_apart(intake, [types_pb2.Envelope(workspace_id=name, provider="crm") for name in ("acme", "bolt")])
    assert intake.calls == 1


async def test_hubspot_is_an_app(tmp_path: Path) -> None:
    """The real provider: it signs method and URL, and one request holds events of several portals."""
    hook = "/v1/apps/hs/webhooks"
    provider = ProviderRegistry.load(10_000)["hubspot"]
    now_ms = str(NOW_US // 1_000)
    events = [
        {
            "eventId": 100 + portal,
            "portalId": portal,
            "subscriptionType": "contact.creation",
            "objectId": 7,
            "occurredAt": NOW_US // 1_000,
        }
        for portal in (1, 2, 3)
    ]
    body = json.dumps(events).encode()
    (tmp_path / "secrets" / "_app" / "hs").mkdir(parents=True)
    (tmp_path / "secrets" / "_app" / "hs" / "hubspot").write_text("secret")
    async with running_front(
        tmp_path,
        public_url="https://hooks.example",
        apps='{"hs": {"provider": "hubspot", "tenant": "portalId"}}',
        routes={"hs": {"1": "acme", "2": "bolt"}},
    ) as front:
        scheme = provider.scheme_for({"x-hubspot-signature-v3": ""})
        assert scheme is not None
        headers = {"x-hubspot-request-timestamp": now_ms}
        signed = SignedRequest(headers, body, "POST", "https://hooks.example" + hook)
        headers |= {"x-hubspot-signature-v3": sign(scheme, signed, "secret", now_ms)}
        response = await ask(front.address, request_bytes(hook, body, headers))
        assert response.status == 200
        assert [(each.workspace_id, each.failure.reason) for each in front.intake.accepted] == [
            ("acme", ""),
            ("bolt", ""),
            ("_app/hs", "UNROUTED"),
        ]


async def test_our_trouble_is_ours(front: Front, tmp_path: Path) -> None:
    front.intake.failure = Overloaded(what="share of a workspace", retry_after_s=2.0)
    response = await post(front, tmp_path, json.dumps([contact(1, 1), contact(2, 2)]).encode())
    assert (response.status, response.headers["retry-after"]) == (429, "2")
