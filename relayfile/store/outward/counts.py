"""What is counted of requests to targets: how they ended, how long they took, which targets are left in peace."""

from collections.abc import Callable
from typing import Final

from relayfile.store.outward.answers import TargetFault
from relayfile.store.outward.caller import Done
from relayfile.store.outward.targets import EDITS, Targets
from relayfile.store.plan.writeback.rows import OperationRow
from relayfile.telemetry import WritebackInstruments
from relayfile.telemetry.exemplars import observe


class OutwardCounts:
    """Of one node. Providers are those that have targets: few."""

    def __init__(self, instruments: WritebackInstruments) -> None:
        self._instruments = instruments

    def ended(self, row: OperationRow, done: Done | TargetFault, seconds: float) -> None:
        """The request of an operation to its target has ended, or could not be made."""
        result = result_of(done)
        self._instruments.requests_total.labels(row.provider, result).inc()
        if result not in _NOT_ANSWERED:
            observe(self._instruments.request_seconds.labels(row.provider), seconds, row.traceparent)

    def workers(self, busy: Callable[[], int], limit: int) -> None:
        """`busy` tells how many requests are under way, of at most `limit`."""
        self._instruments.workers_busy.set_function(busy)
        self._instruments.workers_limit.set(limit)

    def breakers(self, targets: Targets) -> None:
        """How the targets are now."""
        way = "edits" if targets.kinds == EDITS else "fetches"
        for provider, number in targets.breakers_open().items():
            self._instruments.breakers_open.labels(provider, way).set(number)


_NOT_ANSWERED: Final = frozenset({"unreachable", "not_done"})


def result_of(done: Done | TargetFault) -> str:
    """`succeeded`; `failed`: worth another try; `refused`: not; `unreachable`: no answer came;
    `not_done`: for a reason on our side, a credential that is missing or the node's stop."""
    if isinstance(done, Done):
        return "succeeded"
    if done.status:
        return "failed" if done.retryable else "refused"
    return "unreachable" if done.of_target else "not_done"
