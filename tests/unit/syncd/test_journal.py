import hashlib
import pathlib
from collections.abc import Iterator

import apsw
import pytest

from relayfile.errors import StartRefused
from relayfile.syncd.digest import EMPTY, TreeSum
from relayfile.syncd.journal import Journal
from relayfile.syncd.journal_pull import PullPhase
from relayfile.syncd.rows import Cursor, DiskStat, Edit, FileState, Problem, RemoteFile, Settled

STAT = DiskStat(1, 2, 3, 4, 5)


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def upsert(path: str, revision: int, text: str = "") -> RemoteFile:
    return RemoteFile(path, revision, sha(text), len(text))


@pytest.fixture
def journal(tmp_path: pathlib.Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal.db", ["/"])
    yield journal
    journal.close()


def summed(*files: RemoteFile) -> TreeSum:
    total = EMPTY
    for file in files:
        assert file.content_hash is not None
        total = total.with_file(file.path, file.content_hash, file.size)
    return total


def test_a_commit_waits_for_the_disk_only_where_it_has_to(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[apsw.Connection] = []

    def connect(path: str) -> apsw.Connection:
        opened.append(connection(path))
        return opened[-1]

    connection = apsw.Connection
    monkeypatch.setattr("relayfile.syncd.journal.apsw.Connection", connect)
    journal = Journal(tmp_path / "journal.db", ["/"])
    [database] = opened
    settings = ("journal_mode", "synchronous", "wal_autocheckpoint")
    assert [database.execute(f"PRAGMA {each}").get for each in settings] == ["wal", 1, 8000]
    journal.close()


def test_the_digest_moves_with_the_cursor(journal: Journal, tmp_path: pathlib.Path) -> None:
    a, b, newer = upsert("/a", 1, "a"), upsert("/b", 2, "bb"), upsert("/a", 3, "aaa")
    assert journal.learn([a, b], Cursor(2, "h")) == ["/a", "/b"]
    assert journal.sums["/"] == summed(a, b)
    journal.learn([newer, RemoteFile("/b", 4, None)], Cursor(4, "h"))
    assert journal.sums["/"] == summed(newer)
    journal.close()
    again = Journal(tmp_path / "journal.db", ["/"])
    assert (again.sums["/"], again.cursor) == (summed(newer), Cursor(4, "h"))
    journal._db = again._db


def test_a_file_settles_only_with_the_hash_that_the_store_has(journal: Journal) -> None:
    journal.learn([upsert("/a", 1, "a")], Cursor(1, "h"))
    journal.settle([Settled("/a", sha("newer"), STAT)])
    assert journal.load(["/a"])["/a"].state is FileState.PENDING
    assert journal.learn([upsert("/a", 2, "newer")], Cursor(2, "h")) == ["/a"], "only a look at the disk settles it"
    journal.settle([Settled("/a", sha("newer"), STAT)])
    row = journal.load(["/a"])["/a"]
    assert (row.state, row.disk_stat, row.disk_hash) == (FileState.MATERIALISED, STAT, sha("newer"))


def test_a_deleted_file_is_known_until_it_is_gone_from_the_disk(journal: Journal) -> None:
    journal.learn([upsert("/a", 1, "a"), upsert("/b", 2, "b")], Cursor(2, "h"))
    journal.settle([Settled("/a", sha("a"), STAT)])
    assert journal.learn([RemoteFile("/a", 3, None), RemoteFile("/b", 4, None)], Cursor(4, "h")) == ["/a"]
    assert journal.sums["/"] == EMPTY
    assert [row.path for row in journal.rows("", 10, state=FileState.PENDING)] == ["/a"]
    journal.settle([Settled("/a", None)])
    assert journal.rows("", 1) == []


def test_what_is_not_settled_is_found_without_looking_at_what_is(journal: Journal) -> None:
    files = [upsert(f"/{number:05}", number + 1, "x") for number in range(5_000)]
    journal.learn(files, Cursor(5_000, "h"))
    journal.settle([Settled(file.path, sha("x"), STAT) for file in files])
    journal.learn([upsert("/new", 5_001, "y"), RemoteFile("/00007", 5_002, None)], Cursor(5_002, "h"))
    steps = 0

    def step() -> bool:
        nonlocal steps
        steps += 1
        return False

    journal._db.set_progress_handler(step, 100)
    assert [row.path for row in journal.rows("", 10, state=FileState.PENDING)] == ["/00007", "/new"]
    assert [row.path for row in journal.pending_deletes(10)] == ["/00007"]
    assert journal.unsettled().files == {FileState.PENDING: 1}
    assert steps < 20, "each hundred instructions is a step: a look at every row would be over 500"


def test_ignored_and_refused_names_count_in_the_digest_and_are_not_pending(journal: Journal) -> None:
    files = [upsert("/.git/x", 1, "x"), upsert("/a/../b", 2, "y"), upsert("/c\x00", 3, "z")]
    assert journal.learn(files, Cursor(3, "h")) == []
    assert journal.sums["/"] == summed(*files)
    assert journal.unsettled().files == {FileState.IGNORED: 1, FileState.PROBLEM: 2}
    assert {problem.reason for problem in journal.problems.listed(10)} == {"NAME_REFUSED"}


def test_each_remote_path_has_its_own_digest(tmp_path: pathlib.Path) -> None:
    journal = Journal(tmp_path / "j.db", ["/github", "/linear/a"])
    inside, sibling, other = upsert("/github/x", 1), upsert("/github-2/x", 2), upsert("/linear/a", 3)
    journal.learn([inside, sibling, other], Cursor(3, "h"))
    assert journal.sums == {"/github": summed(inside), "/linear/a": summed(other)}
    assert [row.path for row in journal.rows("", 9, below="/github")] == ["/github/x"]
    assert [row.path for row in journal.rows("", 9, below="/linear/a")] == ["/linear/a"]
    journal.close()


def test_a_problem_is_kept_once_with_its_count(journal: Journal) -> None:
    journal.learn([upsert("/a", 1)], Cursor(1, "h"))
    for time_us in (10, 20):
        journal.list_problems([Problem("/a", "DISK_FULL", "full", 1, time_us)])
    assert journal.problems.listed(10) == [Problem("/a", "DISK_FULL", "full", 1, 10, 2, 20)]
    journal.try_again(["/a"])
    assert journal.load(["/a"])["/a"].state is FileState.PENDING
    journal.settle([Settled("/a", sha(""), STAT)])
    assert journal.problems.count() == 0


def test_staging_goes_on_where_it_was_and_forgets_what_is_not_there(journal: Journal) -> None:
    journal.first_pull.start(Cursor(7, "h"))
    files = [upsert(f"/f{index}", index + 1, str(index)) for index in range(4)]
    for file in files:
        row = (file.path, file.revision, file.content_hash, file.size, 1, None, file.content_hash, 1, 2, 3, 4, 5)
        journal.first_pull.stage("/", [(*row, journal.first_pull.mark().barrier)], summed(file))
        if file.path == "/f1":
            journal.first_pull.passed_barrier()
    assert journal.first_pull.staged_after("/") == "/f3"
    assert [row.path for row in journal.first_pull.staged_since_barrier(10, "")] == ["/f2", "/f3"]
    journal.first_pull.unstage(["/f3"])
    assert journal.first_pull.staged_after("/") == "/f2"
    assert journal.sums["/"] == summed(*files[:3])
    journal.first_pull.staged_all()
    journal.first_pull.finish(now_us=9)
    assert journal.cursor == Cursor(7, "h")
    assert journal.first_pull.mark().phase is PullPhase.NONE


def test_a_listing_finds_what_it_did_not_name(journal: Journal) -> None:
    journal.learn([upsert("/a", 1), upsert("/b", 2), upsert("/c", 3)], Cursor(3, "h"))
    journal.listing.start()
    journal.listing.named(["/a", "/c"])
    assert journal.listing.unnamed("/", 10) == ["/b"]
    assert journal.has_remote_below("/")
    assert not journal.has_remote_below("/d")


def test_a_journal_of_a_newer_release_is_refused(tmp_path: pathlib.Path) -> None:
    Journal(tmp_path / "j.db", ["/"]).close()
    db = apsw.Connection(str(tmp_path / "j.db"))
    db.execute("UPDATE mirror SET format = 4")
    db.close()
    with pytest.raises(StartRefused, match="has format 4, this release knows 3"):
        Journal(tmp_path / "j.db", ["/"])


_FORMAT_1 = (pathlib.Path(__file__).parents[2] / "fixtures" / "journal_format_1.sql").read_text()


def test_a_journal_of_format_1_is_brought_up_in_place(tmp_path: pathlib.Path) -> None:
    db = apsw.Connection(str(tmp_path / "j.db"))
    db.execute(_FORMAT_1)
    db.execute("INSERT INTO mirror (id, format, revision, history_id) VALUES (1, 1, 7, 'h')")
    db.execute("INSERT INTO file (path, revision, remote_hash, size, state) VALUES ('/a', 7, zeroblob(32), 1, 5)")
    db.close()
    for opened in range(2):
        journal = Journal(tmp_path / "j.db", ["/"])
        assert journal.cursor == Cursor(7, "h")
        assert journal.load(["/a"])["/a"].state is FileState.PROBLEM
        assert journal.outbox.totals().pending_count == opened
        assert journal.conflicts.count() == 0
        journal.outbox.queue([Edit("/b", "b", bytes(32), DiskStat(1, 2, 3, 4, 5))], 1)
        assert [each.path for each in journal.outbox.due(1, 7, 10)] == ["/b"]
        journal.learn([upsert("/c", 8 + opened)], None)  # the columns that came later are there
        journal.close()
