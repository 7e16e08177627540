"""`make demo`'s command: everything it promises is shown, and nothing is left."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
def test_the_demonstration_shows_what_it_promises(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "relayfile", "demo"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"first edit on disk after \d+ ms, 49 folded, 1 more write after the window", done.stdout)
    assert "were answered 200 meanwhile" in done.stdout
    assert "what happened" in done.stdout
    pids = [int(pid) for pid in re.findall(r"\(pid (\d+)\)", done.stdout)]
    assert len(pids) == 4
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.timeout(120)
def test_a_step_that_does_not_happen_ends_with_its_reason(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "relayfile", "demo", "--payloads", str(tmp_path)],
        env={**os.environ, "TMPDIR": tempfile.mkdtemp(dir=tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"there are no EVENT__NAME.json files in {tmp_path}" in done.stderr
