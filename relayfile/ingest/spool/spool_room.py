"""What must be free on the spool's disk so that what is in the spool can leave it again.

To remove a row takes room too: in the log first, and in the file when the log is written back into it. A spool that
filled its disk to the last byte could never be emptied, however much of it was sent. Pure, but for what it
asks of the disk.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

PAGE_BYTES: Final = 8192
FRAME_BYTES: Final = PAGE_BYTES + 24
"""A page in the log."""
ROW_PAGES: Final = 2
"""What a row may take beside its payload: its place in the table and in the index."""
SETTLING_PART: Final = 2
"""A log of this part more may be written before it is written back: by what settles rows."""
SLACK_BYTES: Final = 256 << 10
"""For the index of the log, and what the file system keeps of all this."""


class Occupancy(NamedTuple):
    """What the spool takes up."""

    file_bytes: int
    log_bytes: int
    pages: int
    """Of the file, with those that are in the log alone."""
    free_pages: int
    log_pages: int
    """Frames of the log that are not in the file yet."""


def row_pages(payload_sizes: Iterable[int]) -> int:
    """About how many pages rows with such payloads take."""
    return sum(size // PAGE_BYTES + 1 + ROW_PAGES for size in payload_sizes)


def needed_bytes(now: Occupancy, new_pages: int, checkpoint_pages: int) -> int:
    """What must be free on the disk for rows of `new_pages` to be taken in and removed again."""
    pages = now.pages + max(0, new_pages - now.free_pages)
    log_pages = max(checkpoint_pages, now.log_pages + new_pages)
    log_pages += checkpoint_pages // SETTLING_PART
    growth = max(0, pages * PAGE_BYTES - now.file_bytes) + max(0, log_pages * FRAME_BYTES - now.log_bytes)
    return growth + SLACK_BYTES


def disk_bytes(directory: Path) -> int | None:
    """How large the disk is; None where the file system does not say."""
    found = os.statvfs(directory)
    return found.f_blocks * found.f_frsize or None


def free_bytes(directory: Path) -> int | None:
    """What the disk has free; None where the file system does not say."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def size_bytes(path: Path) -> int:
    """Of a file; 0 when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
