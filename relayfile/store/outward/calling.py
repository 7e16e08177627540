"""Everything of this package put together: what a node runs when it has targets."""

from dataclasses import dataclass

from relayfile.clock import Clock
from relayfile.settings.targets import TargetDefinition
from relayfile.store.engine import Engine
from relayfile.store.operations.desk import OperationDesk
from relayfile.store.outward.caller import Caller
from relayfile.store.outward.counts import OutwardCounts
from relayfile.store.outward.http import HttpLimits, HttpSender
from relayfile.store.outward.targets import EDITS, FETCHES, Targets
from relayfile.store.outward.workers import OutwardWorkers
from relayfile.telemetry import Tracing, WritebackInstruments


@dataclass(frozen=True, slots=True)
class OutwardPolicy:
    """Whom the node calls, and within which limits."""

    writers: tuple[TargetDefinition, ...]
    fetchers: tuple[TargetDefinition, ...]
    workers_max: int
    http: HttpLimits
    name: str
    """Of the node as a worker, shown in operations."""

    @property
    def has_targets(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.writers or self.fetchers)


async def call_targets(
    desk: OperationDesk,
    engine: Engine,
    clock: Clock,
    policy: OutwardPolicy,
    instruments: WritebackInstruments,
    tracing: Tracing,
) -> None:
    """Bring edits to their targets and fetch from them, until cancelled."""
    sender = HttpSender(policy.http)
    workers = OutwardWorkers(
        desk,
        Caller(engine, sender, tracing),
        clock,
        (Targets(policy.writers, EDITS), Targets(policy.fetchers, FETCHES)),
        OutwardCounts(instruments),
        workers_max=policy.workers_max,
        name=policy.name,
    )
    try:
        await workers.run()
    finally:
        await sender.close()
