"""How often work on the store is tried again: without limit while it gets further, and not for ever when it does not.

What counts is what stays: files staged, learned, written or deleted, events passed. Bytes that came and led to nothing
are no progress, or a store that always breaks off at the same place would be asked for ever.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from relayfile.errors import DeadlineExpired, ExportRefused, PullStalled, RelayfileError
from relayfile.status import RETRYABLE, code_of
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress

T = TypeVar("T")

ATTEMPTS_WITHOUT_PROGRESS: Final = 6
_FIRST_DELAY_S: Final = 0.05


async def patiently(mirror: OpenMirror, progress: Progress, work: Callable[[], Awaitable[T]]) -> T:
    """The result of ``work``, which goes on where it was when it is called again.

    ``PullStalled`` after so many attempts in a row that left nothing behind; what does not pass by itself at once.
    """
    idle = 0
    while True:
        before = _reached(mirror, progress)
        try:
            return await work()
        except RelayfileError as error:
            passes = code_of(error) in RETRYABLE or isinstance(error, DeadlineExpired)
            if isinstance(error, ExportRefused) or not passes:
                raise
            idle = idle + 1 if _reached(mirror, progress) == before else 0
            if idle >= ATTEMPTS_WITHOUT_PROGRESS:
                raise PullStalled(mirror=mirror.root.marker.mirror_id, attempts=idle, last=str(error)) from error
            progress.done = progress.total = (0, 0)
            await asyncio.sleep(_FIRST_DELAY_S * 2**idle)


def _reached(mirror: OpenMirror, progress: Progress) -> object:
    """Changes exactly when something was done that the next attempt need not do."""
    journal = mirror.journal
    return journal.cursor, dict(journal.sums), progress.written, progress.deleted_count
