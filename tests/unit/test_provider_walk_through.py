"""docs/providers/your-own.md does what it says."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from relayfile.cli import app
from relayfile.errors import StartRefused
from relayfile.ingest.providers.provider_file import parse_provider

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "providers" / "your-own.md").read_text()


def block(language: str, number: int = 0) -> str:
    found: str = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[number]
    return found


def test_its_file_makes_of_its_payload_what_it_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deskly.toml").write_text(block("toml"))
    (tmp_path / "payload.json").write_text(block("json"))
    export, command, *printed = block("console").splitlines()
    variable, _, value = export.removeprefix("$ export ").partition("=")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, value)
    done = CliRunner().invoke(app, shlex.split(command)[2:])
    assert done.exit_code == 0
    assert done.stdout.splitlines() == printed


def test_a_broken_file_is_refused_as_it_says() -> None:
    text = block("toml").replace('time = "ticket.changed_at"', 'time = "ticket[0"')
    with pytest.raises(StartRefused) as refused:
        parse_provider(text, "deskly.toml")
    assert f"relayfile: {refused.value.why}." == block("console", 1).splitlines()[1]


def test_the_functions_that_it_names_are_there() -> None:
    providers = Path(__file__).resolve().parents[2] / "relayfile" / "ingest" / "providers"
    assert (providers / "functions.py").exists()
    assert len((providers / "hubspot.py").read_text().splitlines()) < 90
