"""What options are refused before anybody is called, so that none is passed over in silence."""

import pytest
from typer.testing import CliRunner

from relayfile.cli import app


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        # A route that is there is never at revision 0: this would once have removed it whatever its revision was.
        ("routes delete bot 1 --if-revision 0", "--if-revision"),
        ("routes put bot 1 acme --if-revision -1", "--if-revision"),
        ("status --dead-lettered-max -1", "--dead-lettered-max"),
        ("status --dead-lettered-max 1.5", "--dead-lettered-max"),
        ("status --lag-max soon", "--lag-max"),
        ("rejected --max 0", "--max"),
        ("ls acme --depth 99999999999", "--depth"),
    ],
)
def test_a_value_out_of_range_is_refused(arguments: str, option: str) -> None:
    done = CliRunner().invoke(app, arguments.split())
    assert done.exit_code == 2
    assert option in done.output
