"""The command line as people use it: a process of its own against a running system."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass

from relayfile.local.system import LocalSystem
from tests.support.client import Client


@dataclass(frozen=True, slots=True)
class Said:
    """What a command printed."""

    out: bytes
    error: str

    @property
    def lines(self) -> list[str]:
        return self.out.decode().splitlines()


async def relayfile(system: LocalSystem, client: Client, *arguments: str, stdin: bytes = b"", code: int = 0) -> Said:
    """Run `relayfile` and expect an exit code."""
    environment = {
        "PATH": os.environ["PATH"],
        "RELAYFILE_STORE": client.node_addresses[0],
        "RELAYFILE_INGEST": client.ingest_address,
        "RELAYFILE_SYNCD": client.syncd_address,
        "RELAYFILE_TOKEN": client.token,
        "RELAYFILE_DATA_DIR": str(system.layout.root),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "relayfile", *arguments),
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, error = await asyncio.wait_for(process.communicate(stdin), 30)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code, (arguments, process.returncode, out, error.decode())
    return Said(out, error.decode())
