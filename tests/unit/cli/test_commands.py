"""Commands as a person runs them: what they print, and their exit codes."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relayfile.auth import KeyStore, TokenVerifier
from relayfile.clock import SystemClock

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/bin:/bin", "RELAYFILE_DATA_DIR": str(tmp_path), **variables}
        command = [sys.executable, "-m", "relayfile", *arguments]
        return subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)

    return call


def test_config_says_where_a_value_comes_from(run: Run) -> None:
    done = run("config", "--json", RELAYFILE_COALESCE_WINDOW="250ms")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    window = rows["RELAYFILE_COALESCE_WINDOW"]
    assert (window["value"], window["default"], window["source"]) == ("250ms", "3s", "environment")
    assert rows["RELAYFILE_ENVELOPE_WORKERS"]["source"] == "default"


def test_the_service_config_is_printed_for_clients_and_for_a_name_server(run: Run) -> None:
    config = json.loads(run("service-config").stdout)
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]
    strings = shlex.split(run("service-config", "--dns").stdout)
    assert all(len(each) <= 255 for each in strings)
    name, _, choices = "".join(strings).partition("=")
    assert name == "grpc_config"
    assert json.loads(choices) == [{"serviceConfig": config}]


@pytest.mark.parametrize("command", ["config", "store"])
def test_a_bad_setting_is_one_line_that_names_it(run: Run, command: str) -> None:
    done = run(command, RELAYFILE_CALL_TIMEOUT="soon")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "RELAYFILE_CALL_TIMEOUT is 'soon', which is not a duration" in done.stderr


def test_token_is_verified_by_the_same_directory(run: Run, tmp_path: Path) -> None:
    done = run("token", "--workspace", "demo", "--subject", "ada", "--scope", "relayfile:fs:read:*")
    store = KeyStore(tmp_path / "keys")
    principal = TokenVerifier(store.public_file, SystemClock()).verify(done.stdout.strip())
    assert principal.subject == "ada"
    assert principal.may_use("demo")
    assert not principal.may_use("other")


def test_token_wants_a_workspace(run: Run) -> None:
    done = run("token")
    assert done.returncode == 2
    assert "--workspace" in done.stderr


def test_without_a_running_system_the_way_out_is_named(run: Run) -> None:
    done = run("mirror", "list")
    assert done.returncode == 2
    assert "start one with `relayfile up" in done.stderr


@pytest.mark.parametrize("raw", ["a b", "../up", ""])
def test_what_cannot_be_a_workspace_is_refused_before_anything_is_made_of_it(
    run: Run, tmp_path: Path, raw: str
) -> None:
    for done in (run("send", raw, "--sample", "issue"), run("token", "--workspace", raw)):
        assert done.returncode == 2
        assert "must have 1 to 128 characters" in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_payload_whose_name_tells_no_event_wants_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    done = run("send", "demo", "broken.json")
    assert done.returncode == 2
    assert "--event" in done.stderr


def test_a_command_without_a_system_says_how_to_start_one(run: Run) -> None:
    done = run("status")
    assert done.returncode == 2
    assert done.stderr.startswith("relayfile: no running system is recorded")
    assert "relayfile up" in done.stderr


def test_a_system_that_was_killed_is_not_called(run: Run, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    runtime = {"pid": gone.pid, "nodes": ["127.0.0.1:1"], "token_file": ""}
    addresses = dict.fromkeys(("ingest_http", "ingest_grpc", "syncd_grpc"), "127.0.0.1:1")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "runtime.json").write_text(json.dumps({**runtime, **addresses}))
    done = run("status")
    assert done.returncode == 2
    assert "no longer running" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("-w", "demo", "--service", "ingest"), "all workspaces"),
        (("-w", "demo", "--scope", "nonsense"), "relayfile:RESOURCE:ACTION"),
        (("-w", "demo", "--scope", "relayfile:fs:reed"), "fs:read"),
        (("-w", "demo", "--scope", "fs"), "grants nothing"),
        (("-w", "demo", "--scope", "relayfile:fs:read:docs/**"), "grants nothing"),
        (("-w", "demo", "--scope", "relayfile:fs:read", "--scope", "relayfile:fs:read:/a/**/b"), "/a/**/b"),
    ],
)
def test_a_token_that_would_not_be_what_was_asked_for_is_refused(run: Run, options: list[str], said: str) -> None:
    done = run("token", *options, COLUMNS="1000")
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_scopes_of_every_form_and_of_rules_are_taken(run: Run, tmp_path: Path) -> None:
    scopes = ["relayfile:*:*", "fs:read", "*:ops:manage", "workspace:any:read:/a/*", "relayfile:sync:trigger"]
    options = [word for scope in scopes for word in ("--scope", scope)]
    done = run("token", "-w", "demo", *options, "--rule-scope", "team-a")
    principal = TokenVerifier(KeyStore(tmp_path / "keys").public_file, SystemClock()).verify(done.stdout.strip())
    assert principal.scopes == (*scopes, "team-a")


def test_a_size_of_a_quota_that_is_none_is_refused(run: Run) -> None:
    done = run("workspaces", "create", "demo", "--bytes-max", "much", COLUMNS="1000")
    assert done.returncode == 2
    assert "10GiB" in done.stderr
