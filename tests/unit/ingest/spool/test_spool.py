import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from structlog.testing import capture_logs

from relayfile.data_directory import DataDirectory
from relayfile.errors import StartRefused, StorageFailed, Unavailable
from relayfile.ingest.admission import Admission
from relayfile.ingest.spool import spool as spool_module
from relayfile.ingest.spool import spool_checkpoints, spool_file
from relayfile.ingest.spool.payload import ENVELOPE_OVERHEAD_BYTES, PayloadBuilder, read_payload
from relayfile.ingest.spool.spool import Spool, SpoolLimits
from relayfile.ingest.spool.spool_file import SpoolFull, SpoolReader, SpoolWriter
from relayfile.v1 import types_pb2


def envelope(number: int, workspace: str = "w", size: int = 100) -> types_pb2.Envelope:
    made = types_pb2.Envelope(envelope_id=f"e{number}", workspace_id=workspace, provider="p")
    made.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path=f"/{number}", content=b"x" * size)
    return made


async def append(spool: Spool, envelopes: list[types_pb2.Envelope]) -> None:
    await spool.append(envelopes, [each.SerializeToString() for each in envelopes])


class Opened:
    def __init__(self, path: Path, linger_s: float = 0.002) -> None:
        self.rows: list[PayloadBuilder] = []
        self.reached: list[str] = []
        self.directory = DataDirectory(path)
        limits = SpoolLimits(commit_linger_s=linger_s, commit_bytes_max=1 << 20, bytes_max=1 << 30, verify=True)
        self.spool = Spool(
            self.directory, limits, stored=lambda rows: None, arrived=self.arrived, reached=self.reached.append
        )
        self.reader: SpoolReader = self.spool.open()

    def arrived(self, rows: Sequence[PayloadBuilder]) -> None:
        self.rows += rows


@asynccontextmanager
async def opened(path: Path, linger_s: float = 0.002) -> AsyncIterator[Opened]:
    one = Opened(path, linger_s)
    try:
        yield one
    finally:
        await one.spool.close()
        one.reader.close()


async def test_what_was_accepted_is_there_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1), envelope(2, "v"), envelope(3)])
        await append(one.spool, [envelope(4)])
    async with opened(tmp_path) as two:
        left = list(two.reader.remainders())
        charge = len(envelope(1).SerializeToString()) + ENVELOPE_OVERHEAD_BYTES
        assert [(row.row_id, row.workspace_id, row.member_count, row.providers) for row in left] == [
            (1, "w", 2, f"p=2:{2 * charge}"),
            (2, "v", 1, f"p=1:{charge}"),
            (3, "w", 1, f"p=1:{charge}"),
        ]
        rows = two.reader.rows_between("w", 0, 9, 1 << 20)
        sent = [envelope.envelope_id for row in rows for envelope, _, _ in read_payload(row.payload)]
        assert sent == ["e1", "e3", "e4"]
        assert two.reader.rows_between("w", 1, 9, 1 << 20) == rows[1:]
        assert two.reader.rows_between("w", 0, 9, 1) == two.reader.rows_between("w", 0, 1, 1 << 20) == rows[:1]


async def test_ten_thousand_envelopes_cost_few_transactions(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        # More requests at once than one commit takes, each with one envelope.
        async def client(first: int) -> None:
            for number in range(first, first + 10):
                await append(one.spool, [envelope(number, f"w{number % 5}")])

        async with asyncio.TaskGroup() as clients:
            for first in range(0, 10_000, 10):
                clients.create_task(client(first))
        assert one.spool.counters.envelopes == 10_000
        assert one.spool.counters.transactions <= 200
        assert sum(row.member_count for row in one.rows) == 10_000
        assert sorted(row.row_id for row in one.rows) == list(range(1, len(one.rows) + 1))
        for workspace in {row.workspace_id for row in one.rows}:
            ids = [row.row_id for row in one.rows if row.workspace_id == workspace]
            assert ids == sorted(ids), "rows of one workspace become durable in their order"


async def test_settled_rows_go_and_their_ids_never_come_back(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1), envelope(2), envelope(3, "v")])
        one.spool.settle([2], [(1, 0b10)])
    async with opened(tmp_path) as two:
        (left,) = two.reader.remainders()
        assert (left.row_id, left.bits) == (1, 0b10)
        two.spool.settle([1])
    async with opened(tmp_path) as three:
        assert not list(three.reader.remainders())
        await append(three.spool, [envelope(4)])
        assert three.rows == [] or three.rows[0].row_id == 3
        assert [row.row_id for row in three.reader.remainders()] == [3]


async def test_known_workspaces_are_durable(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await one.spool.add_known(["a", "b"], 5)
        await one.spool.add_known(["a"], 6)
    async with opened(tmp_path) as two:
        assert two.reader.known_workspaces() == {"a", "b"}


async def test_a_piece_of_a_row_is_read_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(number, size=5_000) for number in range(20)])
        await asyncio.sleep(0)  # rows are handed on after the answers
        (row,) = one.rows
        for sent, offset, length in row.placed:
            raw = one.reader.piece(row.row_id, offset, length)
            assert types_pb2.Envelope.FromString(raw) == sent


async def test_after_a_failed_fsync_nothing_is_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageFailed(what="fsync")

    one = Opened(tmp_path)
    monkeypatch.setattr(SpoolWriter, "write", fail)
    with pytest.raises(StorageFailed):
        await append(one.spool, [envelope(1)])
    monkeypatch.undo()
    with pytest.raises(StorageFailed):
        await append(one.spool, [envelope(2)])
    assert (await one.spool.failed()).what == "fsync"
    assert one.rows == []
    await one.spool.close()
    one.reader.close()
    assert one.directory.failure() is not None
    async with opened(tmp_path) as two:  # verified, and found to be sound
        assert two.directory.failure() is None
        assert not list(two.reader.remainders())


async def test_after_a_failed_disk_the_file_is_read_from_the_disk_before_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    monkeypatch.setattr(DataDirectory, "drop_cached_pages", lambda _, names: happened.extend(names))
    monkeypatch.setattr(spool_module, "prepare", lambda path, verify: happened.append(f"verify={verify}"))
    spool_file.prepare(tmp_path, verify=False)
    for failed in (False, True):
        if failed:
            DataDirectory(tmp_path).mark_failed("fsync")
        async with opened(tmp_path):
            pass
    assert happened == ["verify=True", "spool.db", "spool.db-wal", "verify=True"]


async def test_who_waits_for_the_next_commit_is_told_of_the_failure_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_writing, may_fail = threading.Event(), threading.Event()

    def fail(*_: object) -> None:
        is_writing.set()
        may_fail.wait(10)
        raise StorageFailed(what="fsync")

    one = Opened(tmp_path)
    monkeypatch.setattr(SpoolWriter, "write", fail)
    first = asyncio.ensure_future(append(one.spool, [envelope(1)]))
    await asyncio.to_thread(is_writing.wait, 10)
    next_ones = [asyncio.ensure_future(append(one.spool, [envelope(2 + number)])) for number in range(3)]
    await asyncio.sleep(0)
    may_fail.set()
    told = await asyncio.gather(first, *next_ones, return_exceptions=True)
    assert [type(each) for each in told] == [StorageFailed] * 4
    await one.spool.close()
    one.reader.close()


async def test_what_was_settled_while_the_disk_was_full_is_removed_when_it_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1)])
        await append(one.spool, [envelope(2), envelope(3)])
        is_full = threading.Event()

        def full(*_: object) -> None:
            is_full.set()
            raise SpoolFull

        monkeypatch.setattr(SpoolWriter, "write", full)
        one.spool.settle([1], [(2, 0b01)])
        await asyncio.to_thread(is_full.wait, 10)
        monkeypatch.undo()
    async with opened(tmp_path) as two:
        assert [(row.row_id, row.bits) for row in two.reader.remainders()] == [(2, 0b01)]


async def test_a_full_disk_refuses_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log has two lines of it, however many were refused."""

    def full(*_: object) -> None:
        raise SpoolFull

    async with opened(tmp_path) as one:
        monkeypatch.setattr(SpoolWriter, "write", full)
        with capture_logs() as logs:
            for _ in range(3):
                with pytest.raises(Unavailable, match="full"):
                    await append(one.spool, [envelope(1)])
            monkeypatch.undo()
            await append(one.spool, [envelope(2)])
        (row,) = one.reader.remainders()
        assert row.row_id == 4
        assert [line["log_level"] for line in logs] == ["error", "info"]


async def test_what_was_settled_while_the_disk_was_full_is_not_unsettled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1), envelope(2)])
        is_writing, may_fail = threading.Event(), threading.Event()

        def full(*_: object) -> None:
            is_writing.set()
            may_fail.wait(10)
            raise SpoolFull

        monkeypatch.setattr(SpoolWriter, "write", full)
        # What is settled must ride along with the append, however busy the machine is.
        monkeypatch.setattr(spool_module, "SETTLE_LINGER_S", 30.0)
        one.spool.settle([], [(1, 0b01)])
        refused = asyncio.ensure_future(append(one.spool, [envelope(3)]))
        await asyncio.to_thread(is_writing.wait, 10)
        one.spool.settle([], [(1, 0b11)])
        monkeypatch.undo()
        may_fail.set()
        with pytest.raises(Unavailable):
            await refused
    async with opened(tmp_path) as two:
        assert [(row.row_id, row.bits) for row in two.reader.remainders()] == [(1, 0b11)]


async def test_what_senders_gave_up_on_still_counts_until_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as one:
        may_write = threading.Event()
        write = SpoolWriter.write

        def slow(*arguments: Any) -> None:
            may_write.wait(10)
            write(*arguments)

        monkeypatch.setattr(SpoolWriter, "write", slow)
        for number in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(append(one.spool, [envelope(number, size=1_000)]), 0.001)
        assert 3_000 < one.spool.waiting_bytes < 4_000
        admission = Admission(
            1 << 30, 4_000, used_bytes=lambda: one.spool.used_bytes, waiting_bytes=lambda: one.spool.waiting_bytes
        )
        admission.admit([envelope(1)], [b"x" * 100])
        with pytest.raises(Unavailable, match="slow"):
            admission.admit([envelope(1)], [b"x" * 1_000])
        may_write.set()
        await append(one.spool, [envelope(4)])
        assert one.spool.waiting_bytes == 0
        admission.admit([envelope(1)], [b"x" * 1_000_000])
        assert sum(row.member_count for row in one.reader.remainders()) == 4


async def test_load_starts_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 20)
    async with opened(tmp_path) as one:
        begun = set(threading.enumerate())
        for number in range(10):
            await append(one.spool, [envelope(number, size=20 * 4096)])
        assert set(threading.enumerate()) == begun


class FailingCheckpoints:
    """A connection whose checkpoints fail, as SQLite's own do inside a commit, without a word."""

    def __init__(self, connection: apsw.Connection, error: type[apsw.Error]) -> None:
        self._connection = connection
        self._error = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def wal_checkpoint(self, **_: object) -> None:
        raise self._error("injected")


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError])
async def test_a_failed_checkpoint_ends_the_promises_and_a_full_disk_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    def failing(directory: Path) -> FailingCheckpoints:
        return FailingCheckpoints(open_connection(directory), error)

    open_connection = spool_file._open
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 20)
    async with opened(tmp_path):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(spool_file, "_open", failing)
        one = Opened(tmp_path)
    try:
        await append(one.spool, [envelope(1)])
        large = [envelope(2, size=20 * 8192)]
        if error is apsw.FullError:
            await append(one.spool, large)
            assert one.spool.is_sound
        else:
            await append(one.spool, large)  # durable in the log; it is being written back when the next one comes
            with pytest.raises(StorageFailed):
                await append(one.spool, large)
            assert one.directory.failure() is not None
    finally:
        await one.spool.close()
        one.reader.close()


async def test_a_checkpoint_that_failed_behind_the_last_commit_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes any more who would hear of it, and the disk must not be asked for another fsync."""
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 20)
    write_back = spool_checkpoints.write_back

    def failing(connection: apsw.Connection) -> tuple[int, int]:
        if threading.current_thread().name.startswith("spool-checkpoint"):
            raise apsw.IOError("injected")
        return write_back(connection)

    monkeypatch.setattr(spool_checkpoints, "write_back", failing)
    one = Opened(tmp_path)
    await append(one.spool, [envelope(1, size=20 * 8192)])
    with pytest.raises(StorageFailed):
        await one.spool.close()
    one.reader.close()
    assert one.directory.failure() is not None
    assert (tmp_path / "spool.db-wal").stat().st_size > 20 * 8192
    monkeypatch.undo()
    async with opened(tmp_path) as again:
        assert sum(row.member_count for row in again.reader.remainders()) == 1


async def test_the_log_is_written_back_when_it_is_long_and_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 20)
    async with opened(tmp_path) as one:
        for number in range(20):
            await append(one.spool, [envelope(number, size=10 * 8192)])
        assert (tmp_path / "spool.db-wal").stat().st_size < 60 * 8192
    assert (tmp_path / "spool.db").stat().st_size > 200 * 8192
    assert (tmp_path / "spool.db-wal").stat().st_size == 0


async def test_commits_go_on_while_a_long_log_is_written_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 2 * spool_checkpoints.NEAR_PAGES)
    may_end = threading.Event()
    write_back = spool_checkpoints.write_back

    def slow(connection: apsw.Connection) -> tuple[int, int]:
        if threading.current_thread().name.startswith("spool-checkpoint"):
            assert may_end.wait(10)
        return write_back(connection)

    monkeypatch.setattr(spool_checkpoints, "write_back", slow)
    async with opened(tmp_path) as one:
        large = [envelope(1, size=spool_checkpoints.NEAR_PAGES * 8192)]
        await append(one.spool, large)
        for number in range(2, 6):
            await append(one.spool, [envelope(number)])
        assert (tmp_path / "spool.db").stat().st_size < spool_checkpoints.NEAR_PAGES * 8192
        may_end.set()
        sent = 5
        async with asyncio.timeout(20):
            while (tmp_path / "spool.db").stat().st_size <= spool_checkpoints.NEAR_PAGES * 8192:
                sent += 1
                await append(one.spool, [envelope(sent)])
        assert sum(row.member_count for row in one.reader.remainders()) == sent


async def test_a_log_at_its_bound_waits_until_it_is_written_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_file, "CHECKPOINT_PAGES", 20)
    may_end = threading.Event()
    write_back = spool_checkpoints.write_back

    def slow(connection: apsw.Connection) -> tuple[int, int]:
        if threading.current_thread().name.startswith("spool-checkpoint"):
            assert may_end.wait(10)
        return write_back(connection)

    monkeypatch.setattr(spool_checkpoints, "write_back", slow)
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1, size=20 * 8192)])
        following = asyncio.ensure_future(append(one.spool, [envelope(2)]))
        done, _ = await asyncio.wait((following,), timeout=0.05)
        assert not done
        may_end.set()
        await following


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(number, size=3_000) for number in range(50)])
    file = tmp_path / "spool.db"
    data = bytearray(file.read_bytes())
    data[8192 * 3 : 8192 * 6] = b"\xff" * 8192 * 3
    file.write_bytes(data)
    with pytest.raises(StartRefused, match="spool"):
        Opened(tmp_path)


async def test_fault_points_are_passed_in_order(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        await append(one.spool, [envelope(1)])
        assert one.reached == ["ingest.spool.after_insert_before_fsync", "ingest.spool.after_fsync_before_answer"]


async def test_a_caller_that_goes_away_does_not_disturb_the_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as one:
        gone = asyncio.ensure_future(append(one.spool, [envelope(1)]))
        kept = asyncio.ensure_future(append(one.spool, [envelope(2)]))
        await asyncio.sleep(0)
        gone.cancel()
        await kept
        with contextlib.suppress(asyncio.CancelledError):
            await gone


@pytest.mark.parametrize("error", [apsw.IOError, apsw.FullError, apsw.BusyError])
async def test_a_log_that_cannot_be_emptied_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[apsw.Error]
) -> None:
    """A failing disk is told and marked; want of room, or a reader of old pages, leaves the log for the next start."""

    def failing(directory: Path) -> FailingCheckpoints:
        return FailingCheckpoints(open_connection(directory), error)

    open_connection = spool_file._open
    async with opened(tmp_path):
        pass
    with monkeypatch.context() as patch:
        patch.setattr(spool_file, "_open", failing)
        one = Opened(tmp_path)
    await append(one.spool, [envelope(1)])
    if error is apsw.IOError:
        with pytest.raises(StorageFailed):
            await one.spool.close()
    else:
        await one.spool.close()
    one.reader.close()
    assert (one.directory.failure() is not None) is (error is apsw.IOError)
    async with opened(tmp_path) as again:
        assert sum(row.member_count for row in again.reader.remainders()) == 1
