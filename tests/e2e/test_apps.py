"""An app with one URL and one secret: its customers' deliveries are in their workspaces, whatever restarts."""

import asyncio
import base64
import hmac
import json
from collections.abc import AsyncIterator
from urllib.request import urlopen

import pytest
import pytest_asyncio

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem
from relayfile.v1 import ingest_pb2
from tests.support.client import Client, client_of
from tests.support.command import relayfile
from tests.support.system import started_system, workspace_on

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "one for all"
CRM = """
name = "crm"
version = "1"
[signature]
header = "X-Sign"
encoding = "base64"
[delivery]
items = "@"
id = "{eventId}"
event = "type"
[[rules]]
events = ["contact"]
object = "contact"
id = "{objectId}"
path = "/crm/contacts/{objectId}.json"
"""
ACME, BOLT = workspace_on(0, "acme"), workspace_on(1, "bolt")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    root = tmp_path_factory.mktemp("apps")
    providers, secrets = root / "providers", root / "secrets" / "_app" / "hub"
    providers.mkdir()
    (providers / "crm.toml").write_text(CRM)
    secrets.mkdir(parents=True)
    (secrets / "crm").write_text(SECRET)
    overrides = {
        "RELAYFILE_APPS": json.dumps({"hub": {"provider": "crm", "tenant": "portalId"}}),
        "RELAYFILE_PROVIDERS_DIR": str(providers),
        "RELAYFILE_CREATE_WORKSPACES": "never",
        "RELAYFILE_COALESCE_WINDOW": "100ms",
    }
    async with started_system(root, overrides=overrides, only=frozenset({"store", "ingest"})) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def client(system: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(system) as connected:
        for name in (ACME, BOLT):
            await connected.create_workspace(name)
        for tenant, workspace in (("1", ACME), ("2", BOLT)):
            told = await command(system, connected, "put", "hub", tenant, workspace, "--reason", "new customer")
            assert told == f"hub {tenant} now goes to {workspace} (revision {tenant}); 0 dead letters are tried again\n"
        await known(system, 2)
        yield connected


def contact(number: int, portal: int, state: str = "new") -> dict[str, object]:
    return {"eventId": f"{number}-{state}", "portalId": portal, "type": "contact", "objectId": number, "state": state}


def path(number: int) -> str:
    return f"/crm/contacts/{number}.json"


async def post(system: LocalSystem, *contacts: dict[str, object]) -> None:
    body = json.dumps(contacts).encode()
    signature = base64.b64encode(hmac.digest(SECRET.encode(), body, "sha256")).decode()
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        answer = await sender.post(Delivery("/v1/apps/hub/webhooks", {"x-sign": signature}, body))
        for _ in range(5):
            if answer.status != 503:
                break
            await asyncio.sleep(1)  # a slow disk, and a provider that sends again
            answer = await sender.post(Delivery("/v1/apps/hub/webhooks", {"x-sign": signature}, body))
    assert answer.status == 200, answer


async def command(system: LocalSystem, client: Client, *arguments: str) -> str:
    """What `relayfile routes ...` prints."""
    return (await relayfile(system, client, "routes", *arguments)).out.decode()


async def known(system: LocalSystem, count: int) -> None:
    """Wait until ingest knows so many routes."""
    for _ in range(200):
        address = system.addresses["ingest"].admin_http
        answer = await asyncio.to_thread(urlopen, f"http://{address}/metrics", timeout=5)
        if f"relayfile_ingest_routes {count}.0" in answer.read().decode():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"ingest never knew {count} routes")


async def dead_letters(client: Client) -> int:
    return len(await client.dead_letter_list("_app/hub"))


async def appears(client: Client, workspace: str, number: int, state: str) -> None:
    for _ in range(300):
        if path(number) in await client.tree(workspace):
            content = json.loads(await client.read(workspace, path(number)))
            if content["state"] == state:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{path(number)} of {workspace} is not {state!r}")


async def test_one_request_reaches_two_customers(system: LocalSystem, client: Client) -> None:
    dead = await dead_letters(client)
    before = {name: await client.counts(name) for name in (ACME, BOLT)}
    await post(system, *(contact(number, 1 + number % 2) for number in range(20)))
    for number in range(20):
        await appears(client, (ACME, BOLT)[number % 2], number, "new")
    for name in (ACME, BOLT):
        counts = await client.settled(name, before[name].accepted + 10)
        assert counts["applied"] == before[name]["applied"] + 10
    assert await dead_letters(client) == dead
    listed = await command(system, client, "list", "hub")
    assert [line.split()[:3] for line in listed.splitlines()][:3] == [
        ["TENANT", "WORKSPACE", "REVISION"],
        ["1", ACME, "1"],
        ["2", BOLT, "2"],
    ]
    assert json.loads(await command(system, client, "get", "hub", "2", "--json"))["workspace_id"] == BOLT


async def test_a_route_that_changes_counts_for_what_comes_after(system: LocalSystem, client: Client) -> None:
    routes = len((await command(system, client, "list", "hub", "--json")).splitlines())
    await command(system, client, "put", "hub", "3", ACME)
    await known(system, routes + 1)
    await post(system, contact(30, 3))
    await appears(client, ACME, 30, "new")
    await command(system, client, "put", "hub", "3", BOLT)
    for attempt in range(100):
        await post(system, contact(31, 3, f"try {attempt}"))
        await asyncio.sleep(0.1)
        if path(31) in await client.tree(BOLT):
            break
    assert path(31) in await client.tree(BOLT)
    assert path(30) not in await client.tree(BOLT)
    await command(system, client, "delete", "hub", "3")
    await known(system, routes)


async def test_what_had_no_route_is_there_when_the_route_is(system: LocalSystem, client: Client) -> None:
    late = workspace_on(0, "late")
    before = await client.counts("_app/hub")
    await post(system, contact(50, 5, "old"), contact(51, 5), contact(52, 6))
    await post(system, contact(50, 5))
    await client.settled("_app/hub", before.accepted + 4)
    assert (await client.counts("_app/hub"))["dead_lettered"] == before["dead_lettered"] + 4
    told = await command(system, client, "put", "hub", "5", late, "--create-workspace")
    assert told.endswith("; 3 dead letters are tried again\n")
    again = await command(system, client, "put", "hub", "5", late, "--create-workspace", "--json")
    assert json.loads(again)["revision"] == told.partition("(revision ")[2].partition(")")[0]
    for number in (50, 51):
        await appears(client, late, number, "new")
    counts = await client.settled(late, 3)
    assert counts["dead_lettered"] == 0
    after = await client.counts("_app/hub")
    for _ in range(200):
        if after["ignored"] == before["ignored"] + 3:
            break
        await asyncio.sleep(0.05)
        after = await client.counts("_app/hub")
    assert (after["dead_lettered"], after["ignored"]) == (before["dead_lettered"] + 1, before["ignored"] + 3)
    assert after.accepted == after.ended == before.accepted + 4
    assert (await client.dead_letter_list("_app/hub"))[0].delivery_id == "52-new"
    request = ingest_pb2.GetIngestStatusRequest(workspace_id="_app/hub")
    [status] = (await client.ingest().GetIngestStatus(request, metadata=client.metadata, timeout=10)).providers
    assert (status.accepted, status.ignored, status.pending) == (after.accepted, after["ignored"], 0)
    await post(system, contact(51, 5))  # the provider sends it again
    counts = await client.settled(late, 4)
    assert counts["duplicate"] == 1


async def test_a_restart_with_the_store_away_routes_by_what_was_known(system: LocalSystem, client: Client) -> None:
    dead = await dead_letters(client)
    for node in system.nodes:
        await node.stop(20)
    assert await system.processes["ingest"].stop(20) == 0
    await system.start_one("ingest")
    await post(system, contact(40, 1), contact(41, 2))
    for node in system.nodes:
        await system.start_one(node.name)
    await appears(client, ACME, 40, "new")
    await appears(client, BOLT, 41, "new")
    assert await dead_letters(client) == dead
