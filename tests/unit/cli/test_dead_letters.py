"""What the command line of dead letters refuses before it calls anybody, and how it reads times."""

import pytest
from typer.testing import CliRunner

from relayfile.cli import app
from relayfile.cli.dead_letters import moment_of
from relayfile.clock import ManualClock


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ("replay acme", "say --all"),
        ("replay acme id --all", "say --all"),
        ("replay acme id --provider github", "say --all"),
        ("replay acme --all --since nonsense", "neither a time"),
        ("replay acme --all --max 10001", "10000"),
        ("list acme --stage other", "other"),
        ("acknowledge acme id", "--reason"),
    ],
)
def test_what_is_no_selection_is_refused(arguments: str, why: str) -> None:
    done = CliRunner().invoke(app, ["dead-letters", *arguments.split()])
    assert done.exit_code == 2
    assert why in done.output


def test_a_moment_is_a_time_or_so_long_ago() -> None:
    clock = ManualClock()
    assert moment_of("--since", "2h", clock) == clock.now_us() - 7_200_000_000
    assert moment_of("--since", "1970-01-01T00:01:00Z", clock) == 60_000_000
    assert moment_of("--since", "1970-01-01T00:01:00", clock) == 60_000_000
    assert moment_of("--since", "1970-01-01T01:01:00+01:00", clock) == 60_000_000
