"""A disk whose power can be cut: an ext4 image on a loop device, and copies of it as the device had it at one moment.

What a process wrote and did not fsync is in the page cache of the mounted file system alone: ext4 writes nothing back
by itself for ten minutes here, so that a copy of the image has what an fsync brought there, and little else.
"""

import asyncio
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

IMAGE_BYTES = 192 << 20
_QUIET_S = 0.05
"""A stopped process has no system call left on its way to the disk after this."""


@dataclass(slots=True)
class Disk:
    """An image and where it is mounted."""

    image: Path
    place: Path

    @classmethod
    def made(cls, folder: Path, size_bytes: int = IMAGE_BYTES) -> "Disk":
        """A new, empty one in `folder`, not mounted."""
        image, place = folder / "disk-0.img", folder / "disk"
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(size_bytes)
        _run("mkfs.ext4", "-q", "-F", str(image))
        return cls(image, place)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """Mounted in the block. Nothing may use it any more at the end: that is an error, and it goes all the same."""
        _run("mount", "-o", "loop,commit=600", str(self.image), str(self.place))
        try:
            yield
        finally:
            try:
                _run("umount", str(self.place))
            except AssertionError:
                _run("umount", "--lazy", str(self.place))
                raise

    def settle(self) -> None:
        """Everything so far is on the disk."""
        _run("sync", "-f", str(self.place))

    def cut(self) -> "Disk":
        """The disk as it would be found after a power cut now. Its writers must be stopped meanwhile."""
        number = int(self.image.stem.rpartition("-")[2]) + 1
        copy = self.image.with_name(f"disk-{number}.img")
        _run("cp", "--sparse=always", str(self.image), str(copy))
        return Disk(copy, self.place)


async def until_stopped(pids: Sequence[int]) -> None:
    """Return when these processes, which were sent SIGSTOP, do nothing any more."""
    deadline = time.monotonic() + 10
    while not all(_is_stopped(task) for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()):
        assert time.monotonic() < deadline, "a process does not stop"
        await asyncio.sleep(0.005)
    await asyncio.sleep(_QUIET_S)


def _is_stopped(task: Path) -> bool:
    return (task / "stat").read_text().rpartition(")")[2].split()[0] == "T"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
