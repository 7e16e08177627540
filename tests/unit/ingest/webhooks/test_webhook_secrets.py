import os
from pathlib import Path

from relayfile.clock import ManualClock
from relayfile.ingest.webhooks.webhook_secrets import WebhookSecrets
from relayfile.settings import ProviderSecrets

CONFIGURED = (ProviderSecrets("w", "github", ("from settings",)),)


def test_settings_alone() -> None:
    secrets = WebhookSecrets(CONFIGURED, None, ManualClock())
    assert secrets.of("w", "github") == ("from settings",)
    assert secrets.of("w", "gitlab") == secrets.of("v", "github") == ()


def test_the_directory_comes_first_and_is_read_again_when_it_changed(tmp_path: Path) -> None:
    clock = ManualClock()
    secrets = WebhookSecrets(CONFIGURED, tmp_path, clock)
    assert secrets.of("w", "github") == ("from settings",)
    path = tmp_path / "w" / "github"
    path.parent.mkdir()
    path.write_text("# newest first\nnew\n\n old \n")
    assert secrets.of("w", "github") == ("from settings",), "looked at once a second"
    clock.advance(1)
    assert secrets.of("w", "github") == ("new", "old", "from settings")
    path.unlink()
    clock.advance(1)
    assert secrets.of("w", "github") == ("from settings",)


def test_a_swapped_link_is_noticed_although_size_and_time_are_equal(tmp_path: Path) -> None:
    # As Kubernetes replaces a mounted secret.
    clock = ManualClock()
    for version in ("1", "2"):
        (tmp_path / version / "w").mkdir(parents=True)
        (tmp_path / version / "w" / "github").write_text(f"secret {version}\n")
        os.utime(tmp_path / version / "w" / "github", (1, 1))
    (tmp_path / "live").symlink_to("1")
    secrets = WebhookSecrets((), tmp_path / "live", clock)
    assert secrets.of("w", "github") == ("secret 1",)
    (tmp_path / "next").symlink_to("2")
    (tmp_path / "next").replace(tmp_path / "live")
    clock.advance(1)
    assert secrets.of("w", "github") == ("secret 2",)


def test_no_more_than_sixteen(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "github").write_text("\n".join(str(number) for number in range(40)))
    assert WebhookSecrets(CONFIGURED, tmp_path, ManualClock()).of("w", "github") == tuple(map(str, range(16)))


def test_nothing_shows_a_secret() -> None:
    assert "from settings" not in repr(CONFIGURED)
