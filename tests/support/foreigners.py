"""Others who work in a mirror's directory while syncd does."""

import asyncio
import os
import pathlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from relayfile.syncd import descriptors

_WRITES = """
import os, sys
root, count = sys.argv[1], int(sys.argv[2])
for turn in range(count):
    kept = f"{root}/d{turn % 5}/own-{turn:04}"
    with open(kept + ".tmp", "w") as file:
        file.write(f"foreign {turn}")
    os.rename(kept + ".tmp", kept)
    try:
        with open(f"{root}/d{turn % 5}/f{turn % 40:03}", "r+") as file:
            file.read(1)
    except OSError:
        pass
"""


def written(count: int) -> dict[str, bytes]:
    """What ``writing`` leaves behind, by remote path."""
    return {f"/d{turn % 5}/own-{turn:04}": f"foreign {turn}".encode() for turn in range(count)}


async def writing(root: pathlib.Path, count: int) -> asyncio.subprocess.Process:
    """A process that saves ``count`` new files in `d0` to `d4` as editors do, and opens others."""
    return await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITES, str(root), str(count))


@contextmanager
def swapping(directory: pathlib.Path, outside: pathlib.Path) -> Iterator[None]:
    """Somebody who makes ``directory`` a link to ``outside`` and a directory again, all the time."""
    link = directory.with_name("link")
    link.symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        base = os.open(directory.parent, os.O_RDONLY)
        while not over.is_set():
            descriptors.exchange(base, directory.name, base, link.name)
            descriptors.exchange(base, directory.name, base, link.name)
        os.close(base)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        link.unlink()
