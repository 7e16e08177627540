"""The client in Node of examples/node, as docs/grpc.md says, while the store ends connections again and again."""

import asyncio
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from tests.support.client import client_of
from tests.support.system import started_system

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "node"
AGE = {"RELAYFILE_STREAM_AGE_MAX": "300ms", "RELAYFILE_STREAM_AGE_GRACE": "300ms"}
NOTES = 60
"""Each takes 20 ms and more: two connections' time."""


async def run(*command: str, folder: Path, variables: Mapping[str, str] | None = None) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env={**os.environ, **(variables or {})},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    printed = (await process.communicate())[0].decode()
    assert process.returncode == 0, printed
    return printed


async def example(system: LocalSystem, folder: Path, workspace: str) -> str:
    async with client_of(system) as client:
        variables = {
            "STORE": client.node_addresses[0],
            "INGEST": client.ingest_address,
            "TOKEN": client.token,
            "NOTES": str(NOTES),
            "RELAYFILE_ROOT": str(ROOT),
        }
    return await run("node", "example.mjs", workspace, folder=folder, variables=variables)


@pytest.mark.full
@pytest.mark.needs_node
@pytest.mark.timeout(240)
async def test_it_publishes_reads_watches_and_settles_conflicts(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    await run("npm", "ci", "--no-audit", "--no-fund", folder=folder)
    async with started_system(tmp_path / "data", overrides=AGE, only=frozenset({"store", "ingest"})) as system:
        async with client_of(system) as client:
            await client.create_workspace("demo")
        told = [await example(system, folder, "demo") for _ in range(2)]
    for printed in told:
        assert "added 3 lines, with" in printed
        assert re.search(r"^REVISION_CONFLICT: expected 0, current \d+$", printed, re.MULTILINE)
        resumed = re.search(rf"^saw {NOTES} notes in order, resumed (\d+) times$", printed, re.MULTILINE)
        assert resumed is not None, printed
        assert int(resumed[1]) >= 1
        assert re.search(r"^/tickets/issues/1\.json at revision \d+: A door squeaks$", printed, re.MULTILINE)


def test_its_lock_file_names_no_registry_and_hashes_everything() -> None:
    lock = (EXAMPLE / "package-lock.json").read_text()
    assert "http" not in re.sub(r'"(url|funding)": ".*"', "", lock)
    assert lock.count('"integrity": "sha512-') == lock.count('"node_modules/')
