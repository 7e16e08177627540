"""A payload that a provider file does not understand: kept, and a file as soon as the provider file does."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem
from relayfile.v1 import dead_letter_pb2
from tests.support.client import Client, client_of
from tests.support.command import relayfile
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = "shop secret"
SHOP = """
name = "shop"
version = "{version}"
[signature]
header = "X-Token"
type = "token"
[delivery]
id_headers = ["X-Delivery"]
event = "type"
kept_headers = ["x-delivery"]
[[rules]]
events = ["order"]
object = "order"
id = "{{{field}}}"
path = "/shop/orders/{{{field}}}.json"
"""
W = "dead-letters"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    root = tmp_path_factory.mktemp("dead-letters")
    write_provider(root, "1", "id")
    secrets = root / "secrets" / W
    secrets.mkdir(parents=True)
    (secrets / "shop").write_text(SECRET)
    overrides = {"RELAYFILE_PROVIDERS_DIR": str(root / "providers"), "RELAYFILE_COALESCE_WINDOW": "50ms"}
    async with started_system(root, overrides=overrides, only=frozenset({"store", "ingest"})) as running:
        yield running


def write_provider(root: Path, version: str, field: str) -> None:
    (root / "providers").mkdir(exist_ok=True)
    (root / "providers" / "shop.toml").write_text(SHOP.format(version=version, field=field))


async def post(system: LocalSystem, number: int, order: dict[str, object]) -> None:
    headers = {"x-token": SECRET, "x-delivery": f"d{number}"}
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        answer = await sender.post(Delivery(f"/v1/workspaces/{W}/webhooks/shop", headers, json.dumps(order).encode()))
    assert answer.status == 200, answer


async def command(system: LocalSystem, client: Client, *arguments: str, code: int = 0) -> str:
    """What `relayfile dead-letters ...` prints."""
    return (await relayfile(system, client, "dead-letters", *arguments, code=code)).out.decode()


def documented() -> list[list[str]]:
    """The commands of docs/operations.md, "Something could not be processed", without `relayfile dead-letters`."""
    text = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    section = text.partition("## Something could not be processed")[2].partition("\n## ")[0]
    lines = [line.strip() for line in section.splitlines() if line.startswith("    relayfile")]
    assert len(lines) == 6
    assert all(line.startswith("relayfile dead-letters ") for line in lines)
    return [shlex.split(line)[2:] for line in lines]


async def test_a_fixed_provider_file_makes_files_of_what_it_rejected(system: LocalSystem) -> None:
    order = {"type": "order", "number": 7, "state": "open"}
    async with client_of(system) as client:
        await post(system, 1, {**order, "id": 1})
        await post(system, 2, order)
        await post(system, 3, {**order, "number": 8})
        counts = await client.settled(W, 3)
        assert (counts["applied"], counts["dead_lettered"]) == (1, 2)
        newest, oldest = (letter.dead_letter_id for letter in await client.dead_letter_list(W))
        place = {"WORKSPACE": W, "ID": oldest}
        told = [await command(system, client, *(place.get(word, word) for word in words)) for words in documented()[:5]]
        lines = told[0].splitlines()
        assert lines[0].split() == ["ID", "RECEIVED", "PROVIDER", "STAGE", "STATE", "REASON", "TRIES", "ABOUT"]
        assert [line.split()[0] for line in lines[1:3]] == [newest, oldest]
        assert lines[3] == "2 pending, 2 in all"
        assert {"header x-delivery: d2", "reason: UNEXPECTED_SHAPE"} <= set(told[1].splitlines())
        assert json.loads(told[2]) == order
        assert told[3:] == ["2 would be tried again\n", "1 queued for another try\n"]
        # With the same file it fails again, and is the same dead letter.
        assert (await tried(client, oldest, 2)).reason == "UNEXPECTED_SHAPE"
        place["ID"] = newest
        done = await command(system, client, *(place.get(word, word) for word in documented()[5]))
        assert done.startswith(f"{newest} is put aside until ")

        await system.processes["ingest"].stop(20.0)
        write_provider(system.layout.root, "2", "number")
        await system.start_one("ingest")
        note = ("--note", "the file knows numbers now", "--request-id", "fix-1", "--json")
        answer = json.loads(await command(system, client, "replay", W, oldest, newest, "gone", *note, code=1))
        assert answer == {"queued_count": "2", "missing_dead_letter_ids": ["gone"]}
        for _ in range(200):
            if len(await client.tree(W)) == 3:
                break
            await asyncio.sleep(0.05)
        assert json.loads(await client.read(W, "/shop/orders/7.json")) == order
        counts = await client.settled(W, 3)
        assert counts["applied"] == 3
        assert counts.accepted == counts.ended == 3
        assert await client.dead_letter_list(W) == []
        # What the sender repeats now is known.
        await post(system, 2, order)
        counts = await client.settled(W, 4)
        assert (counts["applied"], counts["duplicate"]) == (3, 1)


async def tried(client: Client, dead_letter_id: str, times: int) -> dead_letter_pb2.DeadLetter:
    """The dead letter once it was tried so often and is pending again."""
    for _ in range(200):
        letters = {letter.dead_letter_id: letter for letter in await client.dead_letter_list(W)}
        letter = letters[dead_letter_id]
        if letter.attempt_count == times and letter.state == dead_letter_pb2.DEAD_LETTER_STATE_PENDING:
            return letter
        await asyncio.sleep(0.05)
    raise AssertionError(f"{dead_letter_id} was not tried {times} times")
