"""Room in the file that is given back to the file system, a little at a time.

Owns how much free room a file keeps for what is written next, and the size of a step. Files are made with
`auto_vacuum=INCREMENTAL`, which SQLite takes only before the first table: one made by an earlier release keeps the size
that it once had, and nothing here does anything to it.
"""

from collections.abc import Callable
from typing import Final

import apsw

KEPT_BYTES: Final = 16 << 20
"""Free room that is never given back."""
KEPT_SHARE: Final = 4
"""A file keeps so much of itself free, as a fraction: a quarter. Moving pages costs as much as writing them."""
PAGES_PER_STEP: Final = 250
"""Moved in one transaction, at most: a mebibyte of the log, and where little is free a millisecond."""
STEP_S: Final = 0.005
"""Nor for longer. For each page SQLite goes through its list of free ones, which is long where much is free: a hundred
times longer a page, of some tens of gigabytes."""

_INCREMENTAL: Final = 2


def prepare_shrinking(connection: apsw.Connection) -> None:
    """Before the first table is made, and before the log is on; nothing for a file that is there.

    Saying it again would write to the file, which a full disk refuses: a node could not be started on it any more.
    """
    if not connection.execute("PRAGMA page_count").get:
        connection.execute("PRAGMA auto_vacuum=INCREMENTAL")


def shrink(connection: apsw.Connection, monotonic: Callable[[], float], pages: int = PAGES_PER_STEP) -> bool:
    """Inside the caller's transaction, move what is last in the file to free room before it, for `STEP_S` and up to
    `pages` of it.

    Whether something was moved: then there may be more. The file itself gets shorter with the next whole checkpoint.
    """
    page_bytes, page_count, free_count, mode = (
        int(connection.execute(f"PRAGMA {name}").get)
        for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
    )
    surplus = free_count - max(KEPT_BYTES // page_bytes, page_count // KEPT_SHARE)
    if mode != _INCREMENTAL or surplus <= 0:
        return False
    until_s = monotonic() + STEP_S
    for _ in range(min(surplus, pages)):
        connection.execute("PRAGMA incremental_vacuum(1)").fetchall()
        if monotonic() >= until_s:
            break
    return True
