"""`relayfile providers` as a person runs it, without a system."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relayfile.cli import app
from relayfile.clock import SystemClock
from relayfile.errors import SettingError
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks import secret_file
from relayfile.ingest.webhooks.signature import SignedRequest, sign

LABEL = {
    "action": "created",
    "label": {"id": 7, "name": "bug"},
    "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["providers", *arguments])


def payload(body: object) -> str:
    Path("payload.json").write_text(json.dumps(body))
    return "payload.json"


def test_list_is_a_table_and_json() -> None:
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "VERSION", "EVENTS", "TITLE", "PROVEN", "BY"]
    assert any(line.startswith("slack ") and "signature x-slack-signature" in line for line in lines)
    rows = {row["name"]: row for row in json.loads(run("list", "--json").stdout)}
    assert rows["generic"]["proof"] == "signature webhook-signature, bearer token"
    assert rows["github"]["file"].endswith("providers/github.toml")


def test_show_says_which_event_becomes_which_file() -> None:
    shown = run("show", "asana").stdout
    assert "proven by      signature x-hook-signature" in shown
    assert "handshake      brings the secret: relayfile providers await WORKSPACE asana" in shown
    assert "signal  /asana/stories/{resource.gid}.json  (resource/{resource.gid})" in shown
    assert "delete when deleted" in shown
    assert json.loads(run("show", "slack", "--json").stdout)["lost_events"] == ["app_rate_limited"]


@pytest.mark.parametrize(
    "arguments", [("show", "nobody"), ("test", "nobody", "payload.json"), ("await", "w", "nobody")]
)
def test_an_unknown_provider_is_refused_with_the_list(arguments: tuple[str, ...]) -> None:
    payload({})
    done = run(*arguments)
    assert done.exit_code == 2
    assert "'nobody' is none of" in done.output
    assert "linear, notion" in done.output.replace("\n", " ")


def test_what_a_payload_becomes() -> None:
    done = run("test", "github", payload(LABEL), "--headers", "X-GitHub-Event=label", "--content")
    assert done.exit_code == 0
    assert "signature: not checked" in done.stdout
    assert "label.created  delivery (a new id each time)" in done.stdout
    assert "  upsert  /github/repos/o/r/labels/7.json  label/7  no time" in done.stdout
    assert '      "name": "bug"' in done.stdout


def test_what_a_payload_becomes_for_machines() -> None:
    Path("head").write_text("X-GitHub-Event: label\nX-GitHub-Delivery: d-1\n")
    done = run("test", "github", payload(LABEL), "--headers", "head", "--json")
    (delivery,) = json.loads(done.stdout)["deliveries"]
    assert (delivery["delivery_id"], delivery["event"], delivery["ignored"]) == ("d-1", "label.created", False)
    assert delivery["changes"][0]["path"] == "/github/repos/o/r/labels/7.json"
    Path("head").write_text('{"X-GitHub-Event": "ping"}')
    (delivery,) = json.loads(run("test", "github", payload({}), "--headers", "head", "--json").stdout)["deliveries"]
    assert delivery["ignored"]


def test_what_cannot_be_understood_is_exit_code_1() -> None:
    done = run("test", "hubspot", payload([{"portalId": 1, "subscriptionType": "contact.merge"}, {}]))
    assert done.exit_code == 1
    assert "contact.merge  delivery" in done.stdout
    assert "dead letter UNEXPECTED_SHAPE: contact.merge: primaryObjectId or mergedObjectIds" in done.stdout
    assert "dead letter EVENT_MISSING" in done.stdout


def test_the_signature_is_checked_with_a_secret() -> None:
    scheme = ProviderRegistry.load(1000)["github"].scheme
    assert scheme is not None
    path = payload(LABEL)
    signature = sign(scheme, SignedRequest({}, Path(path).read_bytes()), "s1")
    head = ("--headers", "x-github-event=label", "--headers", f"x-hub-signature-256={signature}")
    good = run("test", "github", path, *head, "--secret", "s0", "--secret", "s1")
    assert (good.exit_code, good.stdout.splitlines()[0]) == (0, "signature: verified")
    bad = run("test", "github", path, *head, "--secret", "s2")
    assert (bad.exit_code, bad.stdout.splitlines()[0]) == (1, "signature: SIGNATURE_MISMATCH")
    assert "s2" not in bad.output
    assert run("test", "github", path, "--secret", "s1").stdout.startswith("signature: SIGNATURE_MISSING")


def test_a_recorded_signature_is_good_however_old_it_is() -> None:
    scheme = ProviderRegistry.load(1000)["slack"].scheme
    assert scheme is not None
    path = payload({"type": "url_verification", "challenge": "c1"})
    signature = sign(scheme, SignedRequest({}, Path(path).read_bytes()), "s1", "1531420618")
    head = {"X-Slack-Signature": signature, "X-Slack-Request-Timestamp": "1531420618"}
    Path("head").write_text(json.dumps(head))
    done = run("test", "slack", path, "--headers", "head", "--secret", "s1")
    assert done.exit_code == 0
    assert 'challenge: answered with "c1"; nothing is stored' in done.stdout


def test_a_handshake_is_named() -> None:
    done = run("test", "notion", payload({"verification_token": "secret_abcdefgh"}))
    assert (done.exit_code, "handshake: brings a secret" in done.stdout) == (0, True)
    assert "abcdefgh" not in done.stdout


@pytest.mark.parametrize("headers", ["no-such-file", "broken"])
def test_headers_that_are_none_are_refused(headers: str) -> None:
    Path("broken").write_text("no colon\n")
    done = run("test", "github", payload({}), "--headers", headers)
    assert (done.exit_code, "no name=value and no file of headers" in done.output.replace("\n", " ")) == (2, True)


def test_await_opens_the_window(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAYFILE_WEBHOOK_SECRETS_DIR", str(tmp_path / "secrets"))
    path = tmp_path / "secrets" / "acme" / "notion"
    path.parent.mkdir(parents=True)
    path.write_text("an-older-one\n")
    done = run("await", "acme", "notion", "--for", "15m")
    assert done.exit_code == 0
    assert "its URL ends in /v1/workspaces/acme/webhooks/notion" in done.stdout
    found, now_us = secret_file.read(path), SystemClock().now_us()
    assert found.secrets == ("an-older-one",)
    assert 890_000_000 < found.awaits_until_us - now_us <= 900_000_000
    assert run("await", "acme", "notion").exit_code == 0
    assert path.read_text().count("awaiting") == 1


def test_await_for_an_app(tmp_path: Path) -> None:
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    done = run("await", "_app/wiki", "notion", "--data-dir", "data")
    assert "its URL ends in /v1/apps/wiki/webhooks\n" in done.stdout
    assert secret_file.read(tmp_path / "data" / "secrets" / "_app" / "wiki" / "notion").awaits_until_us


def test_await_finds_the_directory_of_a_local_system(tmp_path: Path) -> None:
    (tmp_path / "data" / "secrets").mkdir(parents=True)
    assert run("await", "acme", "asana", "--data-dir", "data").exit_code == 0
    assert (tmp_path / "data" / "secrets" / "acme" / "asana").exists()


def test_await_without_a_directory_names_the_setting() -> None:
    done = run("await", "acme", "asana")
    assert isinstance(done.exception, SettingError)
    assert "RELAYFILE_WEBHOOK_SECRETS_DIR is not set" in str(done.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("acme", "github"), "github sends no handshake; these do: asana, notion"),
        (("a b", "notion"), "must have 1 to 128 characters"),
        (("acme", "notion", "--for", "25h"), "at most 24h"),
        (("acme", "notion", "--for", "0s"), "more than 0s"),
        (("acme", "notion", "--for", "soon"), "not a duration"),
    ],
)
def test_await_refuses_what_makes_no_sense(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    (tmp_path / "relayfile-data" / "secrets").mkdir(parents=True)
    done = run("await", *arguments)
    assert done.exit_code == 2
    assert words in " ".join(done.output.replace("│", " ").split())
    assert not any((tmp_path / "relayfile-data" / "secrets").iterdir())
