"""The targets of a node, and which of them may be called now.

Owns one pace and one breaker for each. Times are seconds, monotonic; refuses to read a clock.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from relayfile.settings.targets import TargetDefinition
from relayfile.store.outward.answers import TargetFault
from relayfile.store.outward.breaker import Breaker
from relayfile.store.outward.pace import Pace
from relayfile.store.outward.requests import object_id_of
from relayfile.store.plan.writeback.rows import OperationKind, OperationRow

EDITS = frozenset({OperationKind.WRITE, OperationKind.DELETE, OperationKind.MOVE})
FETCHES = frozenset({OperationKind.FETCH})


@dataclass(slots=True)
class Target:
    """One URL and how it is."""

    definition: TargetDefinition
    pace: Pace
    breaker: Breaker = field(default_factory=Breaker)

    def may_call(self, now: float) -> bool:
        """Whether it takes one more request."""
        return self.pace.may_call(now) and self.breaker.may_call(now)

    def free_at(self, now: float) -> float:
        """The earliest time at which it may take another one, as far as time alone decides."""
        return max(now, self.pace.next_at, self.breaker.open_until)

    def called(self, now: float) -> None:
        """A request was sent."""
        self.pace, self.breaker = self.pace.called(now), self.breaker.called()

    def ended(self, now: float, fault: TargetFault | None) -> None:
        """A request has ended."""
        self.pace = self.pace.ended()
        if fault is None or not fault.of_target:
            self.breaker = self.breaker.succeeded() if fault is None or fault.status else self.breaker.gave_up()
        else:
            self.breaker = self.breaker.failed(now)
        if fault is not None and fault.of_target and fault.retry_after_s:
            self.pace = self.pace.told_to_wait(now, fault.retry_after_s)


class Targets:
    """Of one kind: writers, or fetchers."""

    def __init__(self, definitions: Iterable[TargetDefinition], kinds: frozenset[OperationKind]) -> None:
        self.kinds = kinds
        self._by_provider: dict[str, dict[str, Target]] = {}
        for each in definitions:
            pace = Pace(each.concurrency_max, each.rate_max)
            self._by_provider.setdefault(each.provider, {})[each.object_type] = Target(each, pace)

    def ready(self, now: float) -> frozenset[str]:
        """Providers of which a target takes one more request."""
        return frozenset(
            provider
            for provider, targets in self._by_provider.items()
            if any(target.may_call(now) for target in targets.values())
        )

    def of(self, row: OperationRow) -> Target | None:
        """Where an operation goes; None: nowhere."""
        targets = self._by_provider.get(row.provider, {})
        return targets.get(object_id_of(row).partition("/")[0]) or targets.get("")

    def breakers_open(self) -> dict[str, int]:
        """Provider -> how many of its targets failed until they were left in peace, and have not answered since."""
        return {
            provider: sum(target.breaker.rest_s > 0 for target in targets.values())
            for provider, targets in self._by_provider.items()
        }

    def next_at(self, now: float) -> float | None:
        """When a target that takes none now may take one; None: not unless a request ends."""
        times = [
            at
            for targets in self._by_provider.values()
            for target in targets.values()
            if not target.may_call(now) and (at := target.free_at(now)) > now
        ]
        return min(times, default=None)
