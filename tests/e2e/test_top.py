"""`relayfile top` on a running system: once, for machines, and on a terminal."""

import asyncio
import json
import os
import pty
import sys
import termios
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from tests.support.client import Client
from tests.support.command import relayfile

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(120)]
LEAVES_SCREEN = b"\x1b[?1049l"
READ_TIMEOUT_S = 60


async def test_once_shows_every_part(system: LocalSystem, client: Client, workspace: str, tmp_path: Path) -> None:
    await client.create_workspace(workspace)
    await client.write(workspace, "/a", b"1")
    (line,) = (await relayfile(system, client, "top", "--once", "--json", "--interval", "0.5")).lines
    told = json.loads(line)
    assert [part["name"] for part in told["parts"]] == ["shard map", "node 0", "node 1", "ingest", "syncd"]
    assert not any(part["failure"] for part in told["parts"])
    assert [(node["node_index"], node["state"], node["shard_count"]) for node in told["nodes"]] == [
        (0, "serving", 128),
        (1, "serving", 128),
    ]
    assert all(node["calls_per_s"] > 0 for node in told["nodes"]), "it asks them itself"
    assert any(each["workspace_id"] == workspace for each in told["busiest"])


async def test_a_part_that_is_away_is_named_and_the_others_are_shown(system: LocalSystem, client: Client) -> None:
    nobody = Client(client.ingest_address, client.node_addresses, "127.0.0.1:1", client.token)
    shown = await relayfile(system, nobody, "top", "--interval", "0.2", code=1)
    assert shown.lines[2].startswith("syncd: no answer (UNAVAILABLE); 4 of 5 parts answered within ")
    assert any(line.split()[:3:2] == ["0", "serving"] for line in shown.lines)


async def test_on_a_terminal_it_is_live_until_q_and_leaves_the_terminal_as_it_was(
    system: LocalSystem, client: Client
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    before = termios.tcgetattr(theirs)
    environment = {
        "PATH": os.environ["PATH"],
        "TERM": "xterm",
        "RELAYFILE_STORE": client.node_addresses[0],
        "RELAYFILE_INGEST": client.ingest_address,
        "RELAYFILE_SYNCD": client.syncd_address,
        "RELAYFILE_TOKEN": client.token,
        "RELAYFILE_DATA_DIR": str(system.layout.root),
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relayfile", "top", "--interval", "0.2"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment,
    )
    seen = b""
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    loop.add_reader(ours, lambda: chunks.put_nowait(os.read(ours, 65_536)))
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            while b"5 of 5 parts answered" not in seen:
                seen += await chunks.get()
            os.write(ours, b"q")
            while LEAVES_SCREEN not in seen:
                seen += await chunks.get()
            assert await process.wait() == 0
    finally:
        loop.remove_reader(ours)
        if process.returncode is None:
            process.kill()
            await process.wait()
        after = termios.tcgetattr(theirs)
        os.close(ours)
        os.close(theirs)
    assert after == before
