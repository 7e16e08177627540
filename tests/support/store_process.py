"""`python -m tests.support.store_process DIR`: a store node in a process of its own, whose memory can be watched.

Prints one JSON line with its address and a token, then answers each line on its input: `mark` makes the present
resident memory the base, `peak` prints by how many bytes it was exceeded since, `cpu` how many microseconds it has
computed so far. Ends with its input.
"""

import asyncio
import gc
import json
import sys
import time
from pathlib import Path

import uvloop

from relayfile.auth import EVERY_SCOPE
from tests.support.store_node import started_nodes

_STATUS = Path("/proc/self/status")


def _kib(name: str) -> int:
    return next(int(line.split()[1]) for line in _STATUS.read_text().splitlines() if line.startswith(name + ":"))


def _start_again() -> int:
    """The peak starts again at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _kib("VmRSS")


async def main(directory: Path) -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with started_nodes(directory) as [node]:
        token = node.signer.mint("test", workspaces="*", ttl_s=3600, scopes=(EVERY_SCOPE,))
        print(json.dumps({"address": node.address, "token": token}), flush=True)
        base = _kib("VmRSS")
        while line := (await lines.readline()).strip():
            if line == b"mark":
                gc.collect()
                base = _start_again()
                print(base, flush=True)
            elif line == b"cpu":
                print(time.process_time_ns() // 1_000, flush=True)
            else:
                print((_kib("VmHWM") - base) * 1024, flush=True)


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
