"""A circuit breaker: a target that fails again and again is left in peace, and tried by one request at a time. Pure.

The time is an argument (seconds, monotonic).
"""

from dataclasses import dataclass, replace
from typing import Final

FAILURES_MAX: Final = 5
"""In a row, until it opens."""
REST_FIRST_S: Final = 5.0
REST_MAX_S: Final = 300.0


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is known of a target's health."""

    failures: int = 0
    """In a row."""
    rest_s: float = 0.0
    """How long it rests when it fails next; 0: it is closed."""
    open_until: float = 0.0
    probing: bool = False
    """One request is on its way to find out."""

    def may_call(self, now: float) -> bool:
        """Whether a request may be sent now."""
        return not self.rest_s or (now >= self.open_until and not self.probing)

    def called(self) -> "Breaker":
        """A request was sent."""
        return replace(self, probing=True) if self.rest_s else self

    def succeeded(self) -> "Breaker":
        """The target answered; also with a refusal of what was asked."""
        return Breaker()

    def failed(self, now: float) -> "Breaker":
        """The target could not be reached, or failed itself."""
        failures = self.failures + 1
        if failures < FAILURES_MAX:
            return replace(self, failures=failures, probing=False)
        rest_s = min(REST_MAX_S, self.rest_s * 2) if self.rest_s else REST_FIRST_S
        return Breaker(failures, rest_s, now + rest_s)

    def gave_up(self) -> "Breaker":
        """A request ended without telling anything of the target."""
        return replace(self, probing=False)
