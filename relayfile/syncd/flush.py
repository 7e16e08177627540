"""Waiting until every local edit made so far is acknowledged, refused or listed.

Looks at the whole disk first: what the watcher has not told of yet is an edit too.
"""

import asyncio
import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final

from relayfile.syncd.audit import sweep
from relayfile.syncd.bring import bring_all
from relayfile.syncd.exchange import exchange
from relayfile.syncd.local import check_held
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.reconcile import Mode

_LOOK_S: Final = 0.2
"""What ends an edit without an answer (somebody takes it back) tells nobody."""


@dataclass(frozen=True, slots=True)
class Flushed:
    """What became of the edits."""

    acknowledged_count: int
    refused_count: int
    """The store says no, or both sides changed the file: each is listed."""
    revision: int
    """The newest that an acknowledged edit made; 0: none did."""


async def flush(
    using: Callable[[], AbstractAsyncContextManager[OpenMirror]], turn: asyncio.Lock, follows: Callable[[], bool]
) -> Flushed:
    """``using``: the mirror with its ``turn``. ``follows``: whether somebody sends already; else it is done here.

    ``MirrorRefused`` by ``using`` while deletes are held. The store's errors pass through where nobody else sends.
    """
    async with using() as mirror:
        before, open_before = mirror.rights.acknowledged_count, mirror.journal.conflicts.count()
        await sweep(mirror)
        await bring_all(mirror, Progress(mirror.clock.monotonic()))
        sequence = mirror.journal.outbox.last_sequence()
    for _ in range(2):  # an edit of a file that was under way is seen with the answer only
        while True:
            async with using() as mirror:
                check_held(mirror)
                outbox = mirror.journal.outbox
                if not follows():
                    await exchange(mirror, turn, Progress(mirror.clock.monotonic()))
                if mirror.rights.mode is Mode.READ_ONLY or not outbox.waits_up_to(sequence):
                    sequence = outbox.last_sequence()
                    break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await mirror.rights.answers()
    acknowledged = max(0, mirror.rights.acknowledged_count - before)
    collided = max(0, mirror.journal.conflicts.count() - open_before)
    revision = mirror.rights.acknowledged_revision if acknowledged else 0
    return Flushed(acknowledged, mirror.journal.outbox.totals().refused_count + collided, revision)
