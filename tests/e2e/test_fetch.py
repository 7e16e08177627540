"""Notion and Asana say only that something changed: the node asks their API, and the files follow.

Their APIs are a real HTTP server on loopback, which this system may call.
"""

import asyncio
import hashlib
import hmac
import json
from pathlib import Path

import pytest

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem
from tests.fakes.target import FakeTarget, Reply, fake_target
from tests.support.client import Client, client_of
from tests.support.provider_fixtures import request
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="session")
W = "acme"
PAGE = "153104cd-477e-809d-8dc4-ff2d96ae3090"
PAGE_PATH = f"/notion/pages/{PAGE}.json"
SIGNATURES = {"notion": ("x-notion-signature", "sha256="), "asana": ("x-hook-signature", "")}


def targets(url: str, folder: Path) -> dict[str, str]:
    """The settings of a system that fetches."""
    for provider in SIGNATURES:
        (folder / f"{provider}.headers").write_text(
            f"Authorization: Bearer of-{provider}\nNotion-Version: 2022-06-28\n"
        )
    fetch = {
        "notion/page": {"url": url + "/v1/pages/{id}", "credential_file": str(folder / "notion.headers")},
        "asana": {
            "url": url + "/api/1.0/{folder}/{id}",
            "credential_file": str(folder / "asana.headers"),
            "rate_max": 50,
        },
    }
    return {"RELAYFILE_FETCH_TARGETS": json.dumps(fetch), "RELAYFILE_OUTWARD_NETWORKS": "127.0.0.0/8"}


async def post(system: LocalSystem, provider: str, body: bytes) -> None:
    header, before = SIGNATURES[provider]
    proof = hmac.digest(system.layout.webhook_secret(W, provider).encode(), body, hashlib.sha256).hex()
    headers = {"content-type": "application/json", header: before + proof}
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        answer = await sender.post(Delivery(f"/v1/workspaces/{W}/webhooks/{provider}", headers, body))
    assert answer.status == 200, answer


async def becomes(client: Client, expected: dict[str, bytes]) -> None:
    for _ in range(400):
        if await client.contents(W) == expected:
            return
        await asyncio.sleep(0.05)
    assert await client.contents(W) == expected


async def test_what_signals_announce_is_fetched(tmp_path: Path) -> None:
    async with fake_target() as api:
        only = frozenset({"store", "ingest"})
        overrides = targets(api.url, tmp_path)
        async with (
            started_system(tmp_path / "system", nodes=1, only=only, overrides=overrides) as system,
            client_of(system) as client,
        ):
            await client.create_workspace(W)
            await from_notion(system, client, api)
            await from_asana(system, client, api)


async def from_notion(system: LocalSystem, client: Client, api: FakeTarget) -> None:
    api.replies = [Reply(429, headers={"Retry-After": "1"}), Reply(200, b'{"title":"one"}')]
    await post(system, "notion", request("notion", "page_created").body)
    await becomes(client, {PAGE_PATH: b'{"title":"one"}'})
    assert [each.path for each in api.received] == [f"/v1/pages/{PAGE}"] * 2
    assert {each.headers["Authorization"] for each in api.received} == {"Bearer of-notion"}
    api.replies = [Reply(200, b'{"title":"two"}')]
    await post(system, "notion", request("notion", "page_properties_updated").body)
    await becomes(client, {PAGE_PATH: b'{"title":"two"}'})
    api.replies = [Reply(404, b'{"object":"error"}')]
    later = json.loads(request("notion", "page_properties_updated").body)
    later["id"], later["timestamp"] = "another-delivery", "2030-01-01T00:00:00.000Z"
    await post(system, "notion", json.dumps(later).encode())
    await becomes(client, {})


async def from_asana(system: LocalSystem, client: Client, api: FakeTarget) -> None:
    api.received.clear()
    api.replies = [Reply(200, b'{"data":{"name":"a task"}}')]
    event = {
        "action": "changed", "resource": {"gid": "1337", "resource_type": "task"},
        "change": {"field": "name", "action": "changed"}, "created_at": "2026-02-01T10:00:00.000Z", "parent": None,
    }  # fmt: skip
    await post(system, "asana", json.dumps({"events": [event]}).encode())
    await becomes(client, {"/asana/tasks/1337.json": b'{"data":{"name":"a task"}}'})
    assert [each.path for each in api.received] == ["/api/1.0/tasks/1337"]
