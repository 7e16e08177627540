"""A checkpoint's end is seen by somebody, whoever was cancelled while it ran."""

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from relayfile.clock import SystemClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import StorageFailed
from relayfile.store.sqlite.checkpoints import Checkpoints
from relayfile.store.sqlite.engine import SqliteLimits, open_engine
from relayfile.store.sqlite.schema import NodeIdentity
from tests.support.running_node import open_test_engine

SHARDS = [0]


async def test_a_failed_checkpoint_is_seen_after_its_waiter_was_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_fail = threading.Event()

    def fail(_: Checkpoints, restarts: bool) -> int:
        may_fail.wait(10)
        raise apsw.IOError("fsync")

    monkeypatch.setattr(Checkpoints, "_write_back", fail)
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory, limits=SqliteLimits(wal_bytes_max=1))
        await engine.acquire_shards(SHARDS, 0, "here:1")
        waiting = asyncio.ensure_future(engine.acquire_shards(SHARDS, 0, "here:1"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait((waiting,))
        may_fail.set()
        with pytest.raises(StorageFailed):
            await engine.acquire_shards(SHARDS, 0, "here:1")
        assert directory.failure() is not None
        await engine.close()


@pytest.mark.parametrize("error", [apsw.FullError, apsw.IOError])
async def test_the_file_is_closed_when_the_last_checkpoint_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    def fail(_: Checkpoints, restarts: bool) -> int:
        raise error("checkpoint")

    monkeypatch.setattr(Checkpoints, "_write_back", fail)
    with DataDirectory(tmp_path) as directory:
        engine = open_test_engine(directory, limits=SqliteLimits(wal_bytes_max=1))
        await engine.acquire_shards(SHARDS, 0, "here:1")
        if error is apsw.FullError:
            await engine.close()
            assert directory.failure() is None
        else:
            with pytest.raises(StorageFailed):
                await engine.close()
            assert directory.failure() is not None
            assert (tmp_path / "store.db-wal").stat().st_size > 0, "the log was not written back after the failure"
        with pytest.raises(apsw.ConnectionClosedError):
            engine._writer.execute("SELECT 1")
        monkeypatch.undo()
        again = open_test_engine(directory)
        assert [row.epoch for row in await again.acquire_shards(SHARDS, 0, "here:1")] == [2]
        await again.close()


async def test_transactions_go_on_while_the_log_is_written_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    write_back = Checkpoints._write_back

    def slow(checkpoints: Checkpoints, restarts: bool) -> int:
        assert may_end.wait(10)
        return write_back(checkpoints, restarts)

    monkeypatch.setattr(Checkpoints, "_write_back", slow)
    log_bytes: list[int] = []
    with DataDirectory(tmp_path) as directory:
        identity = NodeIdentity(256, 0, 1)
        engine = open_engine(directory, identity, SystemClock(), SqliteLimits(wal_bytes_max=400_000), log_bytes.append)
        while not log_bytes or log_bytes[-1] <= 200_000:
            await engine.acquire_shards(range(256), 0, "here:1")
        for _ in range(3):
            await engine.acquire_shards(SHARDS, 0, "here:1")
        assert log_bytes[-1] > 200_000
        may_end.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            await engine.acquire_shards(SHARDS, 0, "here:1")
            if log_bytes[-1] < 100_000:
                break
        assert log_bytes[-1] < 100_000, "the log begins anew"
        await engine.close()
