import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relayfile import faults
from relayfile.errors import SettingError

POINT = "store.commit.before_commit"


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    faults.arm("")


def test_an_unarmed_point_does_nothing() -> None:
    faults.point(POINT)


@pytest.mark.parametrize("spec", ["nowhere", POINT + ":0", POINT + ":x", POINT + ":-1", ":1"])
def test_unknown_points_are_refused(spec: str) -> None:
    with pytest.raises(SettingError, match="RELAYFILE_FAULT"):
        faults.arm(spec)


def test_another_point_is_passed() -> None:
    faults.arm(POINT)
    faults.point("store.commit.after_commit_before_ack")


def test_the_process_dies_at_the_nth_pass() -> None:
    script = (
        "from relayfile import faults\n"
        f"faults.arm('{POINT}:3')\n"
        f"for n in range(9): print(n, flush=True); faults.point('{POINT}')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["0", "1", "2"]


def test_the_code_passes_only_known_points() -> None:
    root = Path(faults.__file__).parent
    named = {
        node.args[0].value
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "faults.point"
        and isinstance(node.args[0], ast.Constant)
    }
    assert named <= faults.POINTS
