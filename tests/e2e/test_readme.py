"""The README's tour, pasted as it stands."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.support.usual_ports import choosing_ports

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```sh (terminal-\d)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
UP_TIMEOUT_S = 30


def blocks(terminal: str) -> list[str]:
    """The shell blocks of one terminal, in order."""
    return [text for name, text in BLOCK.findall((ROOT / "README.md").read_text()) if name == terminal]


async def shell(script: str, folder: Path) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return await asyncio.create_subprocess_exec(
        "bash",
        "-euo",
        "pipefail",
        "-c",
        script,
        cwd=folder,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )


async def until_greeted(up: asyncio.subprocess.Process) -> None:
    """`up` says that it runs."""
    assert up.stdout is not None
    said = b""
    async with asyncio.timeout(UP_TIMEOUT_S):
        while b"Ctrl-C stops it" not in said:
            line = await up.stdout.readline()
            assert line, f"`up` ended: {said.decode()}"
            said += line


@pytest.mark.timeout(150)
async def test_the_tour_works_when_pasted(tmp_path: Path) -> None:
    # A folder that looks like a checkout after `make setup`: the virtual environment is this one.
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    (tmp_path / "Makefile").write_text("setup:\n")
    (first,) = blocks("terminal-1")
    async with choosing_ports():
        up = await shell(first, tmp_path)
        try:
            await until_greeted(up)
        except BaseException:
            os.killpg(up.pid, signal.SIGKILL)
            raise
    try:
        tour = await shell("".join(blocks("terminal-2")), tmp_path)
        printed = (await tour.communicate())[0].decode()
        assert tour.returncode == 0, printed
    finally:
        os.killpg(up.pid, signal.SIGINT)
        remaining = (await up.communicate())[0].decode()
    assert up.returncode == 0, remaining
    assert "mirror/github/repos/acme/conveyor/issues/1.json" in printed
    assert "(edit 1)" in printed
    assert "relayfile.v1.FileService" in printed
    assert "exact" in printed
    assert '"/github/repos/acme/conveyor/issues/1.json"' in printed
