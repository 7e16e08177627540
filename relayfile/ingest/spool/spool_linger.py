"""Whether a commit of the spool waits for company. Pure: time is an argument.

A commit costs about as much as ten appends (its thread, its statements, its fsync), so that waiting a few milliseconds
pays while appends keep coming, and only then: a lone one goes at once. What tells is how many came of late, and not
whether somebody waits already.
"""

from math import exp
from typing import Final

MEMORY_S: Final = 0.25
"""How far back appends count; those of so long ago count for a third."""
COMPANY_APPENDS_MIN: Final = 4
"""Appends that must be expected within the longest wait: fewer save less than the wait is worth."""


class Linger:
    """How long the next commit waits, by the appends of those before."""

    def __init__(self, linger_max_s: float) -> None:
        self._linger_max_s = linger_max_s
        self._per_s = 0.0
        self._at_s = 0.0

    def came(self, appends: int, now_s: float) -> None:
        """A commit with so many appends begins. `now_s` never goes back."""
        self._per_s = self.per_s(now_s) + appends / MEMORY_S
        self._at_s = now_s

    def per_s(self, now_s: float) -> float:
        """Appends in a second, of late."""
        return self._per_s * exp((self._at_s - now_s) / MEMORY_S)

    def wait_s(self, now_s: float) -> float:
        """The longest wait of a commit that could begin now; 0: none."""
        expected = self.per_s(now_s) * self._linger_max_s
        return self._linger_max_s if expected >= COMPANY_APPENDS_MIN else 0.0
