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
