import os
from pathlib import Path

import pytest

from relayfile.data_directory import DataDirectory
from relayfile.errors import StartRefused


def test_two_owners_at_once_are_refused(tmp_path: Path) -> None:
    with DataDirectory(tmp_path / "a"), pytest.raises(StartRefused, match="another process works on"):
        DataDirectory(tmp_path / "a").acquire()
    with DataDirectory(tmp_path / "a"):
        pass  # released above, so that the next owner gets in


def test_the_marker_of_a_failed_disk_stays_until_it_is_cleared(tmp_path: Path) -> None:
    with DataDirectory(tmp_path) as directory:
        assert directory.failure() is None
        directory.mark_failed("fsync of spool.db")
    with DataDirectory(tmp_path) as directory:
        assert directory.failure() == "fsync of spool.db"
        directory.clear_failure()
        assert directory.failure() is None


def test_dropping_cached_pages_keeps_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"kept")
    DataDirectory(tmp_path).drop_cached_pages(["x", "missing"])
    assert (tmp_path / "x").read_bytes() == b"kept"


def test_a_new_directory_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directory is an entry of the one above, which has to be synced as files have to."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with DataDirectory(tmp_path / "a" / "b") as directory:
        assert set(synced) == {tmp_path.stat().st_ino, (tmp_path / "a").stat().st_ino}
        synced.clear()
        directory.sync()
        assert synced == [directory.path.stat().st_ino]
        synced.clear()
    with DataDirectory(tmp_path / "a" / "b"):
        assert not synced, "it was there"
