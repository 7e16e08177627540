import os
from pathlib import Path
from unittest.mock import Mock

import pytest

from relayfile.clock import ManualClock
from relayfile.errors import Unavailable
from relayfile.ingest.webhooks import webhook_secrets
from relayfile.ingest.webhooks.secret_file import (
    HandshakeRefused,
    SecretFile,
    SecretsFull,
    await_handshake,
    read,
    take_over,
)
from relayfile.ingest.webhooks.webhook_secrets import WebhookSecrets

NOW_US = 1_800_000_000_000_000
LATER_US = NOW_US + 60_000_000


def test_what_a_file_says(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_text("# relayfile: awaiting the handshake until 2027-01-15T08:00:01Z\n# note\nnew\n\n old \n")
    assert read(path) == SecretFile(("new", "old"), 1_800_000_001_000_000)
    path.write_text("# relayfile: awaiting the handshake until tomorrow\nnew\n")
    assert read(path) == SecretFile(("new",), 0)
    assert "new" not in repr(read(path))


def test_a_handshake_is_taken_over_once_and_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "acme" / "notion"
    path.parent.mkdir()
    path.write_text("# ours\nolder-secret\n")
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    await_handshake(tmp_path, "acme", "notion", LATER_US + 1_000_000)
    assert read(path) == SecretFile(("older-secret",), LATER_US + 1_000_000)
    take_over(tmp_path, "acme", "notion", "newer-secret", NOW_US)
    assert path.read_text() == "newer-secret\n# ours\nolder-secret\n"
    with pytest.raises(HandshakeRefused, match="HANDSHAKE_NOT_AWAITED"):
        take_over(tmp_path, "acme", "notion", "third-secret", NOW_US)


def test_the_same_secret_again_is_there_once(tmp_path: Path) -> None:
    for _ in range(2):
        await_handshake(tmp_path, "acme", "notion", LATER_US)
        take_over(tmp_path, "acme", "notion", "the-secret", NOW_US)
    assert read(tmp_path / "acme" / "notion").secrets == ("the-secret",)


@pytest.mark.parametrize(
    "secret", ["", "short", "two lines\nof-it", "with a space", "#a-comment", "x" * 513, "nön-ascii", "tab\there"]
)
def test_what_could_not_be_a_line_is_no_secret(tmp_path: Path, secret: str) -> None:
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    with pytest.raises(HandshakeRefused, match="HANDSHAKE_MALFORMED"):
        take_over(tmp_path, "acme", "notion", secret, NOW_US)


def test_the_seventeenth_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / "asana").write_text("".join(f"secret-number-{number}\n" for number in range(16)))
    await_handshake(tmp_path, "acme", "asana", LATER_US)
    with pytest.raises(SecretsFull):
        take_over(tmp_path, "acme", "asana", "one-too-many", NOW_US)


def test_only_its_owner_may_read_a_new_file_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    path = tmp_path / "acme" / "notion"
    assert [each.stat().st_mode & 0o777 for each in (path, path.parent)] == [0o600, 0o700]
    path.chmod(0o640)
    take_over(tmp_path, "acme", "notion", "the-secret", NOW_US)
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in path.parent.iterdir()) == [".lock", "notion"]


@pytest.mark.needs_root
def test_what_root_makes_belongs_to_whom_the_directory_belongs(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12346)
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    made = [tmp_path / "acme", tmp_path / "acme" / ".lock", tmp_path / "acme" / "notion"]
    assert [(each.stat().st_uid, each.stat().st_gid) for each in made] == [(12345, 12346)] * 3


async def test_every_process_of_the_directory_has_it_within_a_second(tmp_path: Path) -> None:
    clock = ManualClock(NOW_US)
    one, other = (WebhookSecrets((), tmp_path, clock) for _ in range(2))
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    assert one.awaits_handshake("acme", "notion")
    assert other.awaits_handshake("acme", "notion")
    await one.take_over("acme", "notion", "the-secret")
    assert one.of("acme", "notion") == ("the-secret",)
    assert not one.awaits_handshake("acme", "notion")
    clock.advance(1)
    assert other.of("acme", "notion") == ("the-secret",)
    assert not other.awaits_handshake("acme", "notion")


async def test_a_file_that_cannot_be_replaced_is_our_trouble_and_stands_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Mock()
    monkeypatch.setattr(webhook_secrets, "_log", log)
    secrets = WebhookSecrets((), tmp_path, ManualClock(NOW_US))
    await_handshake(tmp_path, "acme", "notion", LATER_US)
    (tmp_path / "acme" / ".notion.new").mkdir()
    with pytest.raises(Unavailable):
        await secrets.take_over("acme", "notion", "the-secret")
    assert secrets.awaits_handshake("acme", "notion"), "it may be tried again"
    (line,) = log.error.call_args_list
    assert line.args == ("a handshake's secret cannot be stored",)
    assert line.kwargs["workspace"] == "acme"
    assert "the-secret" not in str(line)


async def test_without_a_directory_nothing_is_awaited() -> None:
    secrets = WebhookSecrets((), None, ManualClock(NOW_US))
    assert not secrets.awaits_handshake("acme", "notion")
    with pytest.raises(HandshakeRefused):
        await secrets.take_over("acme", "notion", "the-secret")
