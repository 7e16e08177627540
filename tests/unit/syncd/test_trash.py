"""What leaves the trash, and what its figures say."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from relayfile.syncd.apply import Trashed
from relayfile.syncd.journal import Journal
from relayfile.syncd.rows import Cursor, RemoteFile, TrashReason
from relayfile.syncd.trash import Stray, Trash


@pytest.fixture
def trash(tmp_path: Path) -> Iterator[Trash]:
    journal = Journal(tmp_path / "mirror.db", ["/"])
    yield journal.trash
    journal.close()


def trashed(number: int, size: int) -> Trashed:
    reason = TrashReason.OVERWRITTEN
    return Trashed(f"{number:03}", f"name-{number}", f"/{number}", f"{number}", bytes(32), size, number, reason)


def test_the_oldest_leave_until_the_rest_fits(trash: Trash) -> None:
    trash.add([trashed(number, 10) for number in range(5)], now_us=1_000)
    assert [each.name for each in trash.evict(bytes_max=25, made_before_us=0, limit=100)] == [
        "name-0",
        "name-1",
        "name-2",
    ]
    assert trash.totals() == (2, 20)
    assert trash.evict(bytes_max=25, made_before_us=0, limit=100) == []


def test_what_is_old_leaves_though_it_fits_and_never_more_than_the_limit(trash: Trash) -> None:
    trash.add([trashed(1, 1), trashed(2, 1), trashed(3, 1)], now_us=1_000)
    trash.add([trashed(4, 1)], now_us=2_000)
    assert [each.name for each in trash.evict(bytes_max=1 << 20, made_before_us=1_500, limit=2)] == ["name-1", "name-2"]
    assert [each.name for each in trash.evict(bytes_max=1 << 20, made_before_us=1_500, limit=2)] == ["name-3"]
    assert trash.totals() == (1, 1)


def test_i5_what_a_kill_left_unlisted_leaves_only_if_the_store_had_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "mirror.db", ["/"])
    old, edited = sha256(b"old").digest(), sha256(b"edited here").digest()
    journal.learn([RemoteFile("/a", 1, old, 3)], Cursor(1, "h"))
    hashes = {"a~1": old, "a~2": edited, "a~3": b""}

    assert journal.trash.unlisted(dict.fromkeys(hashes, 3)) == list(hashes)
    agreed, after = journal.trash.agreed(set(hashes.values()), "", 100)
    assert (agreed, after) == ({old}, "")
    assert journal.trash.agreed(set(hashes.values()), "", 1) == ({old}, "/a")
    journal.trash.add_strays([Stray(name, 3, each, each in agreed) for name, each in hashes.items()], 1_000)
    found = {each.name: (each.content_hash, each.acknowledged) for each in journal.trash.page(None, 10)}
    assert found == {"a~1": (old, True), "a~2": (edited, False), "a~3": (b"", False)}
    assert [each.name for each in journal.trash.evict(bytes_max=0, made_before_us=2_000, limit=100)] == ["a~1"]
    assert journal.trash.totals() == (2, 6)
    assert journal.trash.unlisted({"a~2": 3}) == []
    assert [each.create_time_us for each in journal.trash.page(None, 10)] == [1_000]
    journal.close()
