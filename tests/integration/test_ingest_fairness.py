"""Fair shares of the spool and its bounds, with a store node in memory: who is refused, and that all ends well."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from relayfile.data_directory import DataDirectory
from relayfile.errors import StorageFailed, Unavailable
from relayfile.ingest.intake import PastShare
from relayfile.ingest.pipeline import Pipeline
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.ingest.spool.spool_file import SpoolReader, SpoolWriter
from relayfile.v1 import types_pb2
from tests.integration.test_ingest_pipeline import Sender, node, running, settings, settled, until
from tests.support.envelopes import timestamp

BYTES_MAX = 2 << 20
SIZE = 40_000


async def fill(pipeline: Pipeline, sender: Sender, workspace: str, first: int = 0) -> int:
    """Send until refused; how many were accepted."""
    for number in range(first, first + 200):
        try:
            await pipeline.accept([sender.envelope(workspace, number, SIZE)])
        except PastShare:
            sender.sent.popitem()
            return number - first
    raise AssertionError("never refused")


async def fill_with_many(pipeline: Pipeline, sender: Sender) -> None:
    for number in range(20):
        await fill(pipeline, sender, f"other{number}")


async def test_the_noisy_workspace_is_refused_alone_and_all_is_applied_when_the_store_is_back(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        await store.stop()
        async with running(settings(tmp_path, store, spool_bytes_max=BYTES_MAX)) as pipeline:
            taken = await fill(pipeline, sender, "noisy")
            assert BYTES_MAX * 0.45 < pipeline.admission.stored_bytes < BYTES_MAX * 0.6
            for number in range(5):
                await pipeline.accept([sender.envelope("quiet", number, SIZE)])
            with pytest.raises(PastShare):
                await pipeline.accept([sender.envelope("noisy", taken, SIZE)])
            sender.sent.popitem()
            with pytest.raises(Unavailable, match="full"):
                await fill_with_many(pipeline, sender)
            sender.sent.popitem()
            assert pipeline.admission.stored_bytes <= BYTES_MAX
            assert (tmp_path / "spool.db").stat().st_size <= BYTES_MAX
            await store.start()
            await settled(pipeline)
            sender.check(store)
            assert not list(pipeline.admission.shares)
            await until(lambda: pipeline.spool.used_bytes < BYTES_MAX // 10)
            await pipeline.accept([sender.envelope("noisy", taken, SIZE)])
            await settled(pipeline)


async def test_shares_are_the_same_after_a_restart(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        await store.stop()
        chosen = settings(tmp_path, store, spool_bytes_max=BYTES_MAX)
        async with running(chosen) as pipeline:
            await fill(pipeline, sender, "noisy")
            await pipeline.accept([sender.envelope("quiet", 1), sender.envelope("quiet", 2), sender.envelope("x", 3)])
            before = sorted(pipeline.admission.shares)
        async with running(chosen) as pipeline:
            assert sorted(pipeline.admission.shares) == before
            with pytest.raises(PastShare):
                await pipeline.accept([sender.envelope("noisy", 999, SIZE)])
            sender.sent.popitem()
            await pipeline.accept([sender.envelope("quiet", 4)])
            await store.start()
            await settled(pipeline)
            sender.check(store)
            assert not list(pipeline.admission.shares)


async def test_the_file_stays_within_its_bound_however_rows_come_and_go(tmp_path: Path) -> None:
    """Many small rows, few large ones, drained and filled again: free pages are used again."""
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, spool_bytes_max=BYTES_MAX)) as pipeline:
        for turn in range(4):
            await store.stop()
            refused = 0
            for number in range(1_500):
                size = (30, 4_100, 9_000, 700)[(number + turn) % 4]
                try:
                    await pipeline.accept([sender.envelope(f"w{number % 11}", number, size)])
                except (PastShare, Unavailable):
                    refused += 1
                    sender.sent.popitem()
                    break
            assert refused
            assert (tmp_path / "spool.db").stat().st_size <= BYTES_MAX
            assert (tmp_path / "spool.db-wal").stat().st_size <= BYTES_MAX // 2
            await store.start()
            await settled(pipeline)


async def test_receive_times_do_not_go_back_over_a_restart(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        await store.stop()
        async with running(settings(tmp_path, store)) as pipeline:
            late = sender.envelope("acme", 1)
            late.received_at.CopyFrom(timestamp(1_900_000_000_000_000))
            await pipeline.accept([late])
            await pipeline.accept([sender.envelope("acme", 2)])
        async with running(settings(tmp_path, store)) as pipeline:
            assert pipeline.memory.newest_received_us == 1_900_000_000_000_000


async def test_a_batch_of_one_workspace_does_not_hold_up_another(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        bulk = [sender.envelope("bulk", item, 1_000) for item in range(3_000)]
        await pipeline.accept([*bulk, sender.envelope("quiet", 1)])
        await until(lambda: ("quiet", "github", "o:issue/1") in store.durable.objects)
        assert len(store.durable.objects) < 1_500
        await settled(pipeline)
        sender.check(store)


async def test_a_stalled_disk_is_answered_in_time_and_what_it_took_all_the_same_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, may_write = Sender(), threading.Event()
    write = SpoolWriter.write

    def stalled(*arguments: Any) -> None:
        may_write.wait(20)
        write(*arguments)

    async with node() as store, running(settings(tmp_path, store, accept_deadline_s=0.2)) as pipeline:
        monkeypatch.setattr(SpoolWriter, "write", stalled)
        for number in range(3):
            async with asyncio.timeout(2.5):
                with pytest.raises(Unavailable, match="slow"):
                    await pipeline.accept([sender.envelope("acme", number)])
        assert pipeline.admission.stored_bytes > 0
        may_write.set()
        await until(lambda: len(store.durable.objects) == 3)
        await settled(pipeline)
        sender.check(store)
        assert not list(pipeline.admission.shares)


async def test_a_spool_that_cannot_be_read_ends_the_process_with_its_reason(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store:
        await store.stop()
        async with running(settings(tmp_path, store)) as pipeline:
            await pipeline.accept([sender.envelope("acme", 1)])
        with DataDirectory(tmp_path) as directory:
            reader = SpoolReader(directory.path)
            reader.close()
            with pytest.raises(StorageFailed, match="spool: ConnectionClosedError"):
                reader.rows_between("acme", 0, 9, 1 << 20)


async def test_an_envelope_with_very_many_changes_is_worked_on_in_steps_and_in_order(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store, coalesce_window_s=0.3)) as pipeline:
        await pipeline.accept([sender.envelope("bulk", 7)])
        bulk = sender.envelope("bulk", 0)
        for item in range(1, 4_000):
            bulk.changes.add(
                kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{item}", provider_object_id=f"issue/{item}", content=b"b"
            )
        # Durable at the same moment, or a fast machine has worked on all of the bulk when the quiet one comes.
        await pipeline.accept([bulk, sender.envelope("bulk", 7), sender.envelope("quiet", 1)])
        await settled(pipeline)
        assert len(store.durable.objects) == 4_001
        # In the order in which they were applied: the quiet one did not wait for all of the bulk.
        assert list(store.durable.objects).index(("quiet", "github", "o:issue/1")) < 4_000
        deliveries = [applied.delivery_id for applied in store.durable.objects["bulk", "github", "o:issue/7"]]
        assert deliveries == ["d1", "d2", "d3"]


async def test_a_row_that_was_read_back_and_settled_before_its_turn_is_not_worked_on_again(tmp_path: Path) -> None:
    sender = Sender()
    async with node() as store, running(settings(tmp_path, store)) as pipeline:
        await pipeline.accept([sender.envelope("acme", 1)])
        await settled(pipeline)
        late = PayloadBuilder(1, "acme")
        pipeline.dispatcher.arrived(late)
        await until(lambda: not pipeline.dispatcher.lanes)
        pipeline.dispatcher.arrived(late)
        sender.check(store)
