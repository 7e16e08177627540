"""Edits without end: old contents go while new ones come, so that a node's files stay near the size of what lives."""

from dataclasses import replace
from pathlib import Path

from relayfile.clock import ManualClock
from relayfile.store.sqlite.engine import SqliteLimits
from tests.support.running_node import POLICY, Sender, fold, running_node, sub_batch, upsert

OBJECTS = 300
CONTENT_BYTES = 16 << 10
SECONDS = 600
STEP_S = 2
EDITS_PER_STEP = 10
"""Each object once a minute, as a thousand objects with seventeen edits a second."""
RARELY = replace(POLICY, expiry_interval_s=3_600.0)
LIMITS = SqliteLimits(wal_bytes_max=1 << 20)


def size_of(directory: Path) -> int:
    return sum(file.stat().st_size for file in directory.glob("store.db*"))


async def test_ten_minutes_of_edits_grow_the_files_by_less_than_half_of_what_lives(tmp_path: Path) -> None:
    clock = ManualClock()
    async with running_node(tmp_path, RARELY, clock, LIMITS) as running, Sender(running.address) as sender:

        async def edit(first: int, count: int, sequence: int) -> None:
            changes = []
            for number in range(first, first + count):
                change = upsert(number % OBJECTS, b"%08d" % sequence * (CONTENT_BYTES // 8))
                change.delivery_id, change.envelope_id = f"{sequence}/{number}", f"envelope-{sequence:06d}-{number:06d}"
                change.received_unix_us = clock.now_us()
                changes.append(fold(change))
            await sender.send(batch := sub_batch("acme", sequence, changes, epoch=1))
            await sender.answered(batch)

        for part in range(6):
            await edit(part * OBJECTS // 6, OBJECTS // 6, part + 1)
        start = size_of(tmp_path)
        for step in range(SECONDS // STEP_S):
            clock.advance(STEP_S)
            await edit(step * EDITS_PER_STEP, EDITS_PER_STEP, step + 7)
        live = OBJECTS * CONTENT_BYTES
        written = SECONDS // STEP_S * EDITS_PER_STEP * CONTENT_BYTES
        grown = size_of(tmp_path) - start
        print(f"live {live}, written {written}, grown {grown}: {grown / live:.2f} of what lives")
        assert written > 9 * live
        assert grown < live // 2
