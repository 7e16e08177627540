"""How fast one target is called: so many at a time, so many a second, and not before it asked to be called. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Pace:
    """Of one target. Times are seconds, monotonic."""

    concurrency_max: int
    rate_max: float
    """Per second; 0: no limit."""
    running: int = 0
    next_at: float = 0.0
    """No request before: the rate, or the target's Retry-After."""

    def may_call(self, now: float) -> bool:
        """Whether one more request may be sent now."""
        return self.running < self.concurrency_max and now >= self.next_at

    def called(self, now: float) -> "Pace":
        """A request was sent."""
        step_s = 1 / self.rate_max if self.rate_max else 0.0
        return replace(self, running=self.running + 1, next_at=max(now, self.next_at) + step_s)

    def ended(self) -> "Pace":
        """A request has ended."""
        return replace(self, running=self.running - 1)

    def told_to_wait(self, now: float, seconds: float) -> "Pace":
        """The target wants to be left alone for so long."""
        return replace(self, next_at=max(self.next_at, now + seconds))
