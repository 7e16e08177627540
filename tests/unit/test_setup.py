"""Holds what `make setup` promises: a too old Python is refused in one line, a second run does nothing."""

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def fake_python(folder: Path, *, version: str) -> Path:
    """A stand-in that fails the version check and prints `version`, as an old interpreter would."""
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "Python {version}" && exit 0\nexit 1\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("how", ["named", "on PATH"])
def test_a_too_old_python_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "project" / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    old = fake_python(tmp_path, version="3.9.2")
    for tool in ("dirname", "sh"):
        (tmp_path / tool).symlink_to(str(shutil.which(tool)))
    command = ["sh", "tools/setup.sh", *([str(old)] if how == "named" else [])]
    done = subprocess.run(
        command, cwd=tmp_path / "project", env={"PATH": str(tmp_path)}, check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "needs Python 3.11 or newer; found Python 3.9.2" in done.stderr
    assert not (tmp_path / "project" / ".venv").exists()


def test_the_lock_names_no_index_and_hashes_everything() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    assert "/opt" not in lock
    assert lock.count("==") > 50
    for requirement in lock.replace("\\\n", "").splitlines():
        if requirement and not requirement.lstrip().startswith("#"):
            assert "--hash=sha256:" in requirement, requirement


@pytest.mark.full
@pytest.mark.timeout(300)
def test_a_fresh_clone_sets_itself_up(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--depth=1", ROOT.as_uri(), str(clone)], check=True)
    environment = {
        name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL"}
    }

    def make_setup() -> float:
        """How many seconds it computed, which is little where there is nothing to do, however busy the machine is."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(["make", "setup"], cwd=clone, env=environment, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    make_setup()
    subprocess.run([clone / ".venv/bin/python", "-c", "import relayfile.cli"], cwd=tmp_path, check=True)
    subprocess.run([clone / ".venv/bin/pip", "check"], env=environment, check=True, stdout=subprocess.DEVNULL)
    assert make_setup() < 1.0
