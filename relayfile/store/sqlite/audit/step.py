"""What a step of an audit is: a generator over one snapshot.

It yields findings, and None wherever others may have a turn, and returns the step that goes on, or None at its end. A
step can be run again: a finding counts when a second look, in a later snapshot, finds it too.
"""

from collections.abc import Generator
from typing import Protocol, TypeAlias

import apsw

from relayfile.store.integrity.finding import Finding, Tally

ROWS_PER_TURN = 100
"""Looked at between two chances for others: well under a millisecond."""
ROWS_PER_STEP = 5_000
"""Looked at in one snapshot, where the step can stop there."""

Look: TypeAlias = "Generator[Finding | None, None, Step | None]"


class Step(Protocol):
    """One snapshot's part of an audit."""

    def __call__(self, cursor: apsw.Cursor, tally: Tally) -> Look:
        """Look. `tally` is added to; of a second look it is thrown away."""
        ...
