"""From which lag and which share of dead letters on a provider is not healthy: the named sets of limits.

Pure. Refuses to know who measures them: ingest has the lag of what waits, a store node the outcomes of its workspaces.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class AlertLimits:
    """Limits of one alert profile."""

    lag_max_s: float
    """The oldest pending change may be as old."""
    dead_lettered_ratio_max: float
    """Dead letters among all outcomes, from 0 to 1."""

    def are_too_many(self, dead_lettered: int, outcomes: int) -> bool:
        """Whether so many dead letters among so many outcomes are an error."""
        return dead_lettered > self.dead_lettered_ratio_max * outcomes

    def is_too_old(self, oldest_pending_age_us: int) -> bool:
        """Whether a provider lags whose oldest pending change is of this age."""
        return oldest_pending_age_us > self.lag_max_s * 1_000_000


STRICT: Final = AlertLimits(10.0, 0.0)
BALANCED: Final = AlertLimits(30.0, 0.01)
"""Where no profile is named."""
RELAXED: Final = AlertLimits(300.0, 0.1)
