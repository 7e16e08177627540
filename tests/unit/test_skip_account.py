"""Holds tests/conftest.py to its word: a skip is listed with its reason, and fails under RELAYFILE_TEST_STRICT=1."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
SAMPLE = """
import pytest

def test_inside():
    pytest.skip("no such tool")

@pytest.mark.skipif(True, reason="other system")
def test_condition():
    pass

@pytest.mark.needs_data
def test_data():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_known():
    assert False

def test_passes():
    pass
"""


def run_sample(folder: Path, *, strict: bool) -> subprocess.CompletedProcess[str]:
    """Run SAMPLE under the project's conftest, in a folder that has no ../shared/data."""
    tests = folder / "project" / "tests"
    tests.mkdir(parents=True)
    (tests / "conftest.py").write_text((TESTS / "conftest.py").read_text())
    (tests / "test_sample.py").write_text(SAMPLE)
    (folder / "project" / "pytest.ini").write_text("[pytest]\nmarkers = needs_data\n")
    environment = {**os.environ, "RELAYFILE_TEST_STRICT": "1" if strict else "0"}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(
        command, cwd=folder / "project", env=environment, check=False, capture_output=True, text=True, timeout=50
    )


def test_skips_are_listed_with_their_reasons(tmp_path: Path) -> None:
    done = run_sample(tmp_path, strict=False)
    assert done.returncode == 0, done.stdout
    assert "3 skipped: not checked in this run" in done.stdout
    for reason in ("no such tool", "other system", "../shared/data is not there"):
        assert reason in done.stdout


def test_a_skip_is_a_failure_when_strict(tmp_path: Path) -> None:
    done = run_sample(tmp_path, strict=True)
    assert done.returncode == 1
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 1 error" in done.stdout  # a skip mark fails in set-up
    assert "1 skipped: not checked in this run" in done.stdout
