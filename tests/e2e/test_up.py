"""`relayfile up`: data survive a restart, one system per data directory, the node count stays."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.usual_ports import choosing_ports

TIMEOUT_S = 40
RELAYFILE = (sys.executable, "-m", "relayfile")


@asynccontextmanager
async def up(folder: Path, *arguments: str) -> AsyncIterator[str]:
    """A running system; what it greeted with."""
    async with choosing_ports():
        process = await asyncio.create_subprocess_exec(
            *RELAYFILE,
            "up",
            "--data-dir",
            str(folder),
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            said = await greeting(process)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    try:
        yield said
    finally:
        process.send_signal(signal.SIGINT)
        rest = (await process.communicate())[0].decode()
        assert process.returncode == 0, said + rest


async def greeting(process: asyncio.subprocess.Process) -> str:
    """What `up` says until it runs."""
    assert process.stdout is not None
    said = ""
    async with asyncio.timeout(TIMEOUT_S):
        while "Ctrl-C stops it" not in said:
            line = await process.stdout.readline()
            assert line, said
            said += line.decode()
    return said


def run(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "RELAYFILE_DATA_DIR": str(folder)}
    done = subprocess.run([*RELAYFILE, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def until_written(path: Path) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        while not path.exists():  # noqa: ASYNC110 - a file that another process writes
            await asyncio.sleep(0.01)
    return path.read_text()


def outcomes_are_shown(data: Path) -> None:
    """What an operator sees: outcomes by provider, health, and what was refused."""
    url = f"{run(data, 'address', 'ingest-http').strip()}/v1/workspaces/demo/webhooks/github"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, b"{}", timeout=TIMEOUT_S)
    assert "SIGNATURE_MISSING" in run(data, "rejected")
    [line] = run(data, "rejected", "demo", "--json").splitlines()
    assert (json.loads(line)["provider"], json.loads(line)["http_status"]) == ("github", 401)
    assert json.loads(run(data, "status", "demo", "--json"))["providers"][0]["applied"] == "3"
    everything = run(data, "status", "--check", "--profile", "strict")
    provider = next(line.split() for line in everything.splitlines() if line.startswith("github"))
    assert provider[:6] == ["github", "healthy", "3", "0", "-", "1"], everything
    assert everything.count("shard 127.0.0.1") == 2
    never = subprocess.run(
        [*RELAYFILE, "status", "--lag-max", "soon"], capture_output=True, text=True, cwd=data, check=False
    )
    assert (never.returncode, "--lag-max" in never.stderr) == (2, True)


@pytest.mark.timeout(180)
async def test_data_and_mirrors_survive_a_restart(tmp_path: Path) -> None:
    data, mirror = tmp_path / "data", tmp_path / "mirror"
    async with up(data, "--nodes", "2") as said:
        assert re.search(r"token +ey", said)
        run(data, "mirror", "add", "demo", str(mirror), "--follow")
        run(data, "send", "demo", "--sample", "issue")
        first = await until_written(mirror / "github/repos/acme/conveyor/issues/1.json")
        second = subprocess.run(
            [*RELAYFILE, "up", "--data-dir", str(data)], capture_output=True, text=True, check=False
        )
        assert second.returncode == 2
        assert "another `relayfile up` runs on" in second.stderr
        alone = subprocess.run(
            [*RELAYFILE, "store"],
            env={**os.environ, "RELAYFILE_DATA_DIR": str(data)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert alone.returncode == 2
        assert "another process works on" in alone.stderr
    async with up(data):
        run(data, "send", "demo", "--sample", "issue", "--number", "2")
        await until_written(mirror / "github/repos/acme/conveyor/issues/2.json")
        assert (mirror / "github/repos/acme/conveyor/issues/1.json").read_text() == first
        assert "exact" in run(data, "mirror", "audit", str(mirror))
        once = tmp_path / "once"
        assert "following" not in run(data, "mirror", "add", "demo", str(once))
        run(data, "mirror", "add", "demo", str(once), "--follow")
        (once / "github/repos/acme/conveyor/issues/2.json").write_text("mine")
        async with asyncio.timeout(TIMEOUT_S):
            path = "/github/repos/acme/conveyor/issues/2.json"
            while run(data, "cat", "demo", path) != "mine":  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.1)
        run(data, "send", "demo", "--sample", "issue", "--number", "3")
        await until_written(once / "github/repos/acme/conveyor/issues/3.json")
        outcomes_are_shown(data)
    other = subprocess.run(
        [*RELAYFILE, "up", "--data-dir", str(data), "--nodes", "3"], capture_output=True, text=True, check=False
    )
    assert other.returncode == 2
    assert "belong to 2 nodes, and 3 were asked for" in other.stderr
