"""Whether what halted a mirror is over: files that a plan would delete may come back, in the store or in the directory.

Looks and learns only: nothing is deleted, written or sent, on either side. Refuses to decide about a plan that waits.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

from relayfile.errors import CursorExpired, RelayfileError
from relayfile.syncd.bring import delete_plan
from relayfile.syncd.catch_up import prove, relearn
from relayfile.syncd.local import held_plan, take_local
from relayfile.syncd.local_changes import LocalChanges
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.root import RootLost

_PATHS: Final = 2_000


async def until_over(stuck_no_more: asyncio.Event, turn: asyncio.Lock, halted: Callable[[], OpenMirror | None]) -> None:
    """Wait until somebody says so, or a look in each cycle finds that no plan of many deletes is left.

    ``halted``: the mirror while it is open and halted; another one waits for somebody only.
    """
    while not stuck_no_more.is_set():
        mirror = halted()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if mirror is None else mirror.settings.mount_interval_s):
                await stuck_no_more.wait()
            return
        with contextlib.suppress(RelayfileError, RootLost, OSError):  # not to be told now: the next look may
            async with turn:
                mirror = halted()
                if mirror is not None and await is_over(mirror):
                    return


async def is_over(mirror: OpenMirror) -> bool:
    """Whether no plan of many deletes is left, with the mirror's turn. Errors of store and disk pass through."""
    for disk_paths in _held(mirror):
        await take_local(mirror, LocalChanges(disk_paths))  # a file that is back is no delete any more
    if held_plan(mirror) is not None:
        return False
    progress = Progress(mirror.clock.monotonic())
    try:
        result = await prove(mirror, progress, repair=False)
    except CursorExpired:
        await relearn(mirror, progress, bring=False, expired=True)
    else:
        if not result.equal:
            await relearn(mirror, progress, bring=False)
    return delete_plan(mirror, {}) is None


def _held(mirror: OpenMirror) -> Iterator[tuple[str, ...]]:
    """Places of files whose delete waits, a part at a time."""
    paths = [path for path, _, _ in mirror.journal.outbox.held()]
    rest = iter(paths)
    while part := list(islice(rest, _PATHS)):
        rows = mirror.journal.load(part)
        yield tuple(rows[path].disk_path if path in rows else path[1:] for path in part)
