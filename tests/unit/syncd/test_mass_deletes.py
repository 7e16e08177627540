"""Many deletes at once: what each batch of them costs does not grow with how many there are."""

import pathlib
import shutil
from collections.abc import Callable
from hashlib import sha256
from unittest import mock

import apsw
import pytest

from relayfile.errors import MirrorRefused
from relayfile.settings import SyncdSettings
from relayfile.syncd import journal_outbox
from relayfile.syncd.delivery import ITEMS_MAX
from relayfile.syncd.journal import Journal
from relayfile.syncd.progress import Via
from relayfile.syncd.rows import Answered, Cursor, DiskStat, Edit, EntryState, RemoteFile, Settled
from tests.fakes.registry import add, serving
from tests.fakes.store import FakeStore

DELETED = 1_050


def steps(journal: Journal, work: Callable[[], object]) -> int:
    """Steps that SQLite makes: what work costs, however fast the machine is."""
    made = 0

    def hear(event: dict[str, object]) -> None:
        nonlocal made
        status = event["stmt_status"]
        assert isinstance(status, dict)
        made += status["SQLITE_STMTSTATUS_VM_STEP"]

    journal._db.trace_v2(apsw.SQLITE_TRACE_PROFILE, hear)
    work()
    journal._db.trace_v2(0)
    return made


def deletes_under_way(tmp_path: pathlib.Path, count: int) -> tuple[int, int, int]:
    """Steps of: taking an answer, asking what waits, and hearing of one, with ``count`` deletes answered before."""
    journal = Journal(tmp_path / f"{count}.db", ["/"])
    digest = sha256(b"x").digest()
    paths = [f"/d/{number}" for number in range(count + 1)]
    journal.learn([RemoteFile(path, 1, digest, 1) for path in paths], Cursor(1, "h"))
    journal.settle([Settled(path, digest, DiskStat(1, 1 + at, 1, 1, 1)) for at, path in enumerate(paths)])
    journal.outbox.queue([Edit(path, path[1:], None) for path in paths], 0)
    entries = journal.outbox.in_state(EntryState.QUEUED, "", count + 1)
    journal.outbox.sent(entries)
    journal.outbox.acknowledged([Answered(each, 5) for each in entries[1:]], 0)
    answer = steps(journal, lambda: journal.outbox.acknowledged([Answered(entries[0], 5)], 0))
    pending = steps(journal, lambda: journal.has_pending())
    heard = steps(journal, lambda: journal.learn([RemoteFile(paths[0], 2, None)], Cursor(2, "h")))
    journal.close()
    return answer, pending, heard


def test_an_answer_costs_the_same_however_many_came_before(tmp_path: pathlib.Path) -> None:
    few, many = deletes_under_way(tmp_path, 20), deletes_under_way(tmp_path, 1_000)
    assert all(more <= less + 100 for less, more in zip(few, many, strict=True)), (few, many)


async def test_i4_many_local_deletes_are_held_and_go_out_in_full_requests(tmp_path: pathlib.Path) -> None:
    store = FakeStore()
    store.fill({f"/d{number % 3}/{number}": "x" for number in range(DELETED)} | {"/kept": "x"})
    settings = SyncdSettings(data_dir=tmp_path)
    with mock.patch.object(journal_outbox, "DELETE_LINGER_US", 0):
        async with store.served() as address, serving(address, tmp_path, settings) as registry:
            mirror = add(registry, tmp_path, follow=False, read_only=False)
            await mirror.pull(full=False, via=Via.ANY)
            for directory in (tmp_path / "mirror").glob("d*"):
                shutil.rmtree(directory)
            mirror.cadence.swept_at = float("-inf")
            with pytest.raises(MirrorRefused, match=f"OVER_COUNT: {DELETED} of {DELETED + 1}"):
                await mirror.pull(full=False, via=Via.ANY)
            halt = mirror.seen.halt
            assert halt is not None
            assert halt.plan is not None
            assert (halt.plan.delete_count, halt.plan.delete_bytes, len(halt.plan.sample_paths)) == (
                DELETED,
                DELETED,
                100,
            )
            await mirror.approve_deletes(halt.plan.plan_id)
            await mirror.pull(full=False, via=Via.ANY)
            assert store.files.keys() == {"/kept"}
            assert len(store.requests) == -(-DELETED // ITEMS_MAX)
