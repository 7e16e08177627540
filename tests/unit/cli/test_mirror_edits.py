"""Which conflicts end, and how, has to be said before anything is asked of a system."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from relayfile.cli import app


def test_files_come_back_of_a_plan_that_was_seen_only(tmp_path: Path) -> None:
    options = ["--restore", "--data-dir", str(tmp_path)]
    done = CliRunner().invoke(app, ["mirror", "approve", str(tmp_path), *options], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert "name the plan" in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--all"], "which version stays"),
        (["--id", "c1"], "which version stays"),
        (["--take", "mine"], "which conflicts"),
        (["--take", "theirs", "--all", "--path", "/notes"], "which conflicts"),
    ],
)
def test_half_a_choice_is_refused(tmp_path: Path, arguments: list[str], said: str) -> None:
    options = ["--data-dir", str(tmp_path), *arguments]
    done = CliRunner().invoke(app, ["mirror", "conflicts", str(tmp_path), *options], env={"COLUMNS": "200"})
    assert done.exit_code == 2
    assert said in done.output
