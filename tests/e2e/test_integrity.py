"""`relayfile audit` and `scrub` as commands: on a running system of two nodes, and on its files when it is stopped."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from relayfile.local.system import LocalSystem
from relayfile.v1 import types_pb2
from tests.support.client import Client, client_of
from tests.support.envelopes import upsert
from tests.support.system import owner_index, started_system, workspace_on

pytestmark = pytest.mark.asyncio(loop_scope="session")
WORKSPACES = [workspace_on(index, "checked") for index in range(2)]


def delivery(workspace: str, number: int) -> types_pb2.Envelope:
    change = upsert(f"/desk/{number % 3}/{number}.txt", b"%d" % number, object_id=f"item/{number}")
    return types_pb2.Envelope(workspace_id=workspace, provider="desk", delivery_id=f"desk-{number}", changes=[change])


async def relayfile(*arguments: str, client: Client | None = None) -> tuple[int, list[str]]:
    """(exit code, lines)."""
    environment = dict(os.environ)
    if client is not None:
        environment |= {"RELAYFILE_STORE": client.node_addresses[0], "RELAYFILE_TOKEN": client.token}
    command = [sys.executable, "-m", "relayfile", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, command, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, done.stdout.splitlines()


def spoil(system: LocalSystem, workspace: str) -> None:
    path = system.layout.data(f"store-{owner_index(workspace)}") / "store.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "UPDATE content SET data = CAST('!' AS BLOB) WHERE content_id ="
        " (SELECT content_id FROM file WHERE workspace_id = ? AND path = '/desk/1/7.txt')",
        (workspace,),
    )
    assert connection.changes() == 1
    connection.close()


async def test_what_is_stored_is_checked_running_and_stopped(tmp_path: Path) -> None:
    only = frozenset({"store", "ingest"})
    async with started_system(tmp_path, nodes=2, only=only) as system, client_of(system) as client:
        for workspace in WORKSPACES:
            await client.create_workspace(workspace)
            await client.publish(*(delivery(workspace, number) for number in range(12)))
            await client.settled(workspace, 12)
        code, lines = await relayfile("audit", "--strict", client=client)
        assert code == 0, lines
        assert [line.split(" in ")[0] for line in lines] == [
            f"node {index}: clean; 1 workspaces, 12 files, 12 events, 12 changes" for index in range(2)
        ]
        spoil(system, WORKSPACES[1])
        code, lines = await relayfile("scrub", "--workspace", WORKSPACES[1], "--rate", "1MiB", client=client)
        assert code == 1
        assert lines[0].startswith(f"HASH_MISMATCH  {WORKSPACES[1]}  /desk/1/7.txt  (content): ")
        assert lines[1].startswith(f"{WORKSPACES[1]}: 1 finding; 12 contents, 14 bytes in ")
    code, lines = await relayfile("audit", "--strict", "--stopped", str(tmp_path))
    assert code == 1
    assert [line.split("  ")[0].split(": ")[-1].split(";")[0] for line in lines] == [
        "clean",
        "HASH_MISMATCH",
        "1 finding",
    ]


async def test_a_system_is_copied_while_it_runs_and_restored(tmp_path: Path) -> None:
    only = frozenset({"store", "ingest"})
    copy, again = tmp_path / "copy", tmp_path / "again"
    async with started_system(tmp_path / "live", nodes=2, only=only) as system, client_of(system) as client:
        for workspace in WORKSPACES:
            await client.create_workspace(workspace)
            await client.publish(*(delivery(workspace, number) for number in range(12)))
            await client.settled(workspace, 12)
        code, lines = await relayfile("backup", str(copy), "--quiet", "--reason", "a test", client=client)
        assert code == 0
        assert [line.partition(",")[0] for line in lines] == [f"node {index}: 1 workspaces" for index in range(2)]
        kept = {workspace: await client.contents(workspace) for workspace in WORKSPACES}
        await client.publish(*(delivery(workspace, 50) for workspace in WORKSPACES))
        for workspace in WORKSPACES:
            await client.settled(workspace, 13)
    code, lines = await relayfile("restore", str(copy), str(again))
    assert code == 0
    assert [line.partition(",")[0] for line in lines] == [f"{again}/store-{index}: 1 workspaces" for index in range(2)]
    async with started_system(again, nodes=2, only=only) as system, client_of(system) as client:
        assert {workspace: await client.contents(workspace) for workspace in WORKSPACES} == kept
        code, lines = await relayfile("audit", "--strict", client=client)
        assert code == 0, lines
        # What came after the copy was made is applied when it is sent again, and what came before is not.
        await client.publish(*(delivery(workspace, number) for number in (3, 50) for workspace in WORKSPACES))
        for workspace in WORKSPACES:
            await client.settled(workspace, 14)
            assert (await client.contents(workspace)).keys() - kept[workspace].keys() == {"/desk/2/50.txt"}
