"""Ingest without a spool: nothing is kept, and an answer waits for the commit (D4).

Implements `Intake`, as `pipeline` does with a spool. A call is answered when the owning shard committed its changes, or
refused when the deadline passes before. Owns the bound of what waits, and the streams. Has no state on disk: the
process may run anywhere and in any number.
"""

import asyncio
from collections.abc import Mapping, Sequence

from relayfile.errors import Draining, Paused, RelayfileError, Unavailable
from relayfile.ingest.intake import Fate, PastShare
from relayfile.ingest.memory import NoMemory
from relayfile.ingest.sending.flight import Workers
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.streams import Streams, Surroundings, node_stream
from relayfile.ingest.sending.traffic import Traffic
from relayfile.ingest.sending.waits import Wait, Waits
from relayfile.ingest.shares import Account, Shares
from relayfile.ingest.status.meter import Figures
from relayfile.ingest.status.refusal_reports import RefusalReports
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2

TICK_S = 1.0
RETRY_AFTER_S = 1.0
"""Who is refused comes back when those who wait now have their answers, or have left."""


class Through:
    """See the module. Make it in the running loop, `run` it in a task, `drain` and then `close` it."""

    def __init__(self, settings: IngestSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around
        self.router = Router(settings.nodes, settings.shard_count)
        self._streams = Streams(self._stream)
        self._workers = Workers(settings.envelope_workers)
        shares = Shares(settings.through_queue_bytes_max)
        self.waits = Waits(self.router, settings.batch_changes_max, self._streams.get, shares)
        self.memory = NoMemory()
        self.waits.refusals = RefusalReports(self.router, around.refused)
        self._left = asyncio.Event()
        """Somebody who waited has left."""
        self._is_draining = False

    # ... Intake

    async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
        """See `Intake.accept`. The workspaces of a call wait side by side; none fails for another's node or share."""
        if self._is_draining:
            raise Draining
        groups: dict[Account, list[types_pb2.Envelope]] = {}
        for envelope in envelopes:
            groups.setdefault((envelope.workspace_id, envelope.provider), []).append(envelope)
        waits: dict[Account, Wait | RelayfileError] = {}
        try:
            for account, group in groups.items():
                waits[account] = self._enter(account, group)
            async with asyncio.timeout(self._settings.accept_deadline_s):
                for wait in waits.values():
                    if isinstance(wait, Wait):
                        await wait.done
        except TimeoutError:
            pass  # said below, of what is undecided
        finally:
            for wait in waits.values():
                if isinstance(wait, Wait):
                    self.waits.leave(wait)
            self._left.set()
        return _fates(envelopes, waits)

    # ... what the process around it asks

    @property
    def ingest_id(self) -> str:
        """The name of this process, for status."""
        return self._around.ingest_id

    @property
    def prompt(self) -> None:
        """Every caller waits in a task of its own."""
        return None

    @property
    def traffic(self) -> Traffic:
        """What is on its way."""
        return self.waits

    def figures(self) -> Figures:
        """For metrics and status. A change counts as accepted when its outcome is durable."""
        counters = self.waits.counters
        return Figures(
            accepted=counters.outcomes.total(),
            outcomes=counters.outcomes,
            batches_sent=sum(stream.batches_sent for stream in self._streams.all),
            streams_open=sum(stream.is_connected for stream in self._streams.all),
            spool_bytes=self.waits.shares.size_bytes,
            spool_bytes_max=self._settings.through_queue_bytes_max,
            in_flight_bytes=sum(stream.in_flight_bytes for stream in self._streams.all),
        )

    # ... life

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            self._streams.start(tasks)
            for address in self.router.nodes:
                self._streams.get(address)
            tasks.create_task(self._tick())

    async def drain(self) -> None:
        """Accept nothing more, and return when every call has its answer: at the latest after the deadline."""
        self._is_draining = True
        while len(self.waits):
            self._left.clear()
            await self._left.wait()

    async def close(self) -> int:
        """Nothing is ever left."""
        return 0

    # ... inside

    def _enter(self, account: Account, envelopes: Sequence[types_pb2.Envelope]) -> Wait | RelayfileError:
        if self.waits.pauses.is_paused(*account):
            return _paused(account)
        size_bytes = sum(envelope.ByteSize() for envelope in envelopes)
        if self.waits.shares.size_bytes + size_bytes > self._settings.through_queue_bytes_max:
            return Unavailable(what="queue of changes that wait for the store (it is full)")
        if self.waits.shares.excess(*account, size_bytes):
            return PastShare({account: RETRY_AFTER_S})
        return self.waits.enter(account, envelopes, size_bytes)

    def _stream(self, address: str) -> NodeStream:
        return node_stream(address, self._settings, self._around, self.waits, self._workers)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._streams.tick()


def _fates(envelopes: Sequence[types_pb2.Envelope], waits: Mapping[Account, Wait | RelayfileError]) -> list[Fate]:
    places = dict.fromkeys(waits, 0)
    fates: list[Fate] = []
    for envelope in envelopes:
        account = (envelope.workspace_id, envelope.provider)
        wait = waits[account]
        if isinstance(wait, RelayfileError):
            fates.append(wait)
            continue
        start = places[account]
        end = places[account] = start + (len(envelope.changes) or 1)
        outcomes = wait.outcomes[start:end]
        if all(outcomes):
            fates.append(outcomes)
        else:
            fates.append(_paused(account) if wait.is_paused else Unavailable(what="store (no commit in time)"))
    return fates


def _paused(account: Account) -> Paused:
    workspace_id, provider = account
    return Paused(what=f"provider {provider!r} of workspace {workspace_id!r}")
