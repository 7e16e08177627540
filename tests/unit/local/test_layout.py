"""The data directory of a local system: what is recorded, what is refused."""

import stat
from pathlib import Path

import pytest

from relayfile.errors import StartRefused
from relayfile.local.layout import Addresses, Layout, Runtime

RUNTIME = Runtime(
    pid=7, nodes=("a:1", "b:2"), ingest_http="http://c:3", ingest_grpc="c:4", syncd_grpc="d:5", token_file="t"
)


def test_the_node_count_of_the_first_start_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "data")
    assert layout.create(3) == 3
    assert layout.create(None) == 3
    with pytest.raises(StartRefused, match="belong to 3 nodes, and 2 were asked for"):
        layout.create(2)


def test_one_node_unless_asked(tmp_path: Path) -> None:
    assert Layout(tmp_path).create(None) == 1


def test_a_webhook_secret_is_made_once_and_private(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(None)
    secret = layout.webhook_secret("demo", "github")
    assert len(secret) >= 32
    assert layout.webhook_secret("demo", "github") == secret
    assert layout.webhook_secret("demo", "linear") != secret
    assert stat.S_IMODE((tmp_path / "secrets" / "demo" / "github").stat().st_mode) == 0o600


def test_the_newest_of_several_secrets_signs(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(None)
    path = tmp_path / "secrets" / "demo" / "github"
    path.parent.mkdir()
    path.write_text("newest\nolder\n")
    assert layout.webhook_secret("demo", "github") == "newest"


def test_runtime_and_addresses_are_read_back(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create(None)
    assert layout.read_runtime() is None
    assert layout.read_addresses("store-0") is None
    layout.write_runtime(RUNTIME)
    layout.address_file("store-0").write_text('{"grpc": "127.0.0.1:1", "admin_http": "127.0.0.1:2"}')
    assert layout.read_runtime() == RUNTIME
    assert layout.read_addresses("store-0") == Addresses(grpc="127.0.0.1:1", admin_http="127.0.0.1:2")
