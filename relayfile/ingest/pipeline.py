"""The running ingest: what accepts, holds, sends and settles, and the few tasks that keep it going.

Owns the lifetime of the spool, the streams and the tasks; implements `Intake`. The tasks are: one stream for each node,
one that closes windows, one that reads the backlog, one that ticks once a second, and one that waits for the disk to
fail. None is made for a change.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

from relayfile import faults
from relayfile.data_directory import DataDirectory
from relayfile.errors import Draining, Unavailable
from relayfile.ingest.admission import Admission
from relayfile.ingest.intake import Fate, PromptIntake
from relayfile.ingest.memory import SpoolMemory
from relayfile.ingest.sending.coalesce import CoalesceLimits, Coalescer
from relayfile.ingest.sending.dispatch import Dispatcher, DispatchLimits, DispatchPorts
from relayfile.ingest.sending.flight import Workers
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.parcel import RecentPayloads
from relayfile.ingest.sending.pauses import Pauses
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.streams import Streams, Surroundings, node_stream
from relayfile.ingest.sending.traffic import Traffic
from relayfile.ingest.spool.backlog import Arrivals, Backlog
from relayfile.ingest.spool.handover import Handover
from relayfile.ingest.spool.left_spool import StoppingSpool
from relayfile.ingest.spool.open_counts import open_counts
from relayfile.ingest.spool.payload import PayloadBuilder, parse_changes, parse_charges
from relayfile.ingest.spool.spool import Spool, SpoolLimits, tell_future
from relayfile.ingest.spool.spool_commits import Done
from relayfile.ingest.spool.spool_file import Remainder
from relayfile.ingest.status.meter import Figures
from relayfile.ingest.status.refusal_reports import RefusalReports
from relayfile.settings import IngestSettings
from relayfile.v1 import types_pb2

MEMBERS_HELD_MAX = 1_000_000
"""Changes that windows hold at most; about 60 bytes each, and their notes as far as these have room."""
STREAM_QUEUE_BYTES_MAX = 32 << 20
"""What may wait in memory for one node, in its lanes."""
TICK_S = 1.0
ENCODED_ENVELOPES = 125
"""Envelopes that are encoded for the spool before others have their turn in the loop."""
EXPIRE_S_MIN = 0.005
DRAIN_POLL_S = 0.02


class Pipeline:
    """See the module. Make it in the running loop, `open` it, `run` it in a task, `drain` and then `close` it."""

    def __init__(self, settings: IngestSettings, directory: DataDirectory, around: Surroundings) -> None:
        """`directory` is locked by the caller."""
        self._settings = settings
        self._around = around
        self.router = Router(settings.nodes, settings.shard_count)
        self._state = _State()
        self._arrivals = Arrivals(lambda: self.dispatcher, self._state.fail)
        self.spool = Spool(
            directory,
            _spool_limits(settings),
            stored=self._stored,
            arrived=self._arrivals.put,
            refused=self._refused,
            reached=faults.point,
        )
        self.reader = self.spool.open()
        self.admission = Admission(
            settings.spool_bytes_max,
            settings.bodies_bytes_max,
            used_bytes=lambda: self.spool.used_bytes,
            waiting_bytes=lambda: self.spool.waiting_bytes,
        )
        self.coalescer = Coalescer(_coalesce_limits(settings))
        self._backlog = Backlog(lambda: self.dispatcher, self.reader, self._arrivals.patience)
        self._streams = Streams(self._stream)
        self._workers = Workers(settings.envelope_workers)
        self.dispatcher = Dispatcher(
            self.coalescer,
            RecentPayloads(self.reader.piece, settings.spool_read_bytes_max),
            self.router,
            DispatchLimits(settings.batch_changes_max, STREAM_QUEUE_BYTES_MAX),
            DispatchPorts(
                stream_of=self._streams.get,
                hungry=self._backlog.mark,
                has_room=self._backlog.wake,
                finished=self._finished,
                bits_of=self.spool.bits_of,
                remember=lambda pauses: self.spool.remember_pauses(pauses.rows(), pauses.table),
                clock=around.clock,
            ),
        )
        self.dispatcher.refusals = RefusalReports(self.router, around.refused)
        self.handover: Handover | None = None
        """Where what the shards do not take goes when the process stops."""
        self.memory = SpoolMemory(self.spool, self.reader)
        self.dispatcher.pauses = Pauses(self.reader.pauses())
        self.spool.paused = self.dispatcher.pauses.table
        for row in self.reader.remainders():
            self._recover(row)

    # ... Intake

    async def accept(self, envelopes: Sequence[types_pb2.Envelope]) -> Sequence[Fate]:
        """See `Intake.accept`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        raws: list[bytes] = []
        for start in range(0, len(envelopes), ENCODED_ENVELOPES):
            if start:
                await asyncio.sleep(0)
            raws += [envelope.SerializeToString() for envelope in envelopes[start : start + ENCODED_ENVELOPES]]
        self._offer(envelopes, raws, partial(tell_future, future))
        await future
        return ()

    def offer(self, envelopes: Sequence[types_pb2.Envelope], done: Done) -> None:
        """See `PromptIntake.offer`."""
        self._offer(envelopes, [envelope.SerializeToString() for envelope in envelopes], done)

    def _offer(self, envelopes: Sequence[types_pb2.Envelope], raws: Sequence[bytes], done: Done) -> None:
        if self._state.is_draining:
            raise Draining
        if not envelopes:
            done(None)
            return
        self.admission.admit(envelopes, raws)
        self.spool.offer(envelopes, raws, partial(self._ended, done), self._settings.accept_deadline_s)
        self._state.accepting += 1

    def _ended(self, done: Done, failure: Exception | None) -> None:
        self._state.accepting -= 1
        done(Unavailable(what="spool (its disk is slow)") if isinstance(failure, TimeoutError) else failure)

    # ... figures

    @property
    def ingest_id(self) -> str:
        """The name of this process, for status."""
        return self._around.ingest_id

    @property
    def pending(self) -> int:
        """Accepted changes without an outcome."""
        return self.dispatcher.pending

    @property
    def streams(self) -> Sequence[NodeStream]:
        """One for each node that is known."""
        return self._streams.all

    @property
    def prompt(self) -> PromptIntake:
        """It takes without a task, too."""
        return self

    @property
    def traffic(self) -> Traffic:
        """What is on its way."""
        return self.dispatcher

    def figures(self) -> Figures:
        """For metrics and status."""
        counters = self.dispatcher.counters
        return Figures(
            accepted=counters.accepted,
            outcomes=counters.outcomes,
            batches_sent=sum(stream.batches_sent for stream in self.streams),
            streams_open=sum(stream.is_connected for stream in self.streams),
            spool_bytes=self.admission.stored_bytes,
            spool_bytes_max=self.admission.bytes_max,
            spool_rows=len(self.dispatcher.ledger),
            spool_commits=self.spool.counters.transactions,
            unreadable=counters.unreadable,
            objects_held=self.coalescer.objects,
            in_flight_bytes=sum(stream.in_flight_bytes for stream in self.streams),
        )

    # ... life

    async def run(self) -> None:
        """Until cancelled. Raises `StorageFailed` when the spool's disk fails: the process must end then."""
        async with asyncio.TaskGroup() as tasks:
            self._streams.start(tasks)
            for address in self.router.nodes:
                self._streams.get(address)
            tasks.create_task(self._expire())
            tasks.create_task(self._backlog.run())
            tasks.create_task(self._tick())
            tasks.create_task(self._watch_spool())
            raise await self._state.failed

    async def drain(self) -> None:
        """Accept nothing more, send everything, and return when every change has its outcome, however long it takes.

        With peers: what the shards have not taken within their time goes to these, as what is paused does at once.
        What stays without hope (paused, or of damaged rows) is not waited for. Returns at once when the spool's disk
        failed: the next start goes on.
        """
        self._state.is_draining = True
        self.dispatcher.release()
        end_s = self._around.clock.monotonic() + self._settings.drain_shards_s
        while self.spool.is_sound and (self._state.accepting or self._awaits_shards()):
            if self.handover is not None and not self._state.accepting and self._around.clock.monotonic() >= end_s:
                break
            await asyncio.sleep(DRAIN_POLL_S)
            self.dispatcher.release()  # what was being accepted when draining began
        if self.handover is not None and self.spool.is_sound and self.pending > self.dispatcher.counters.unreadable:
            self.dispatcher.is_silent = True
            await self.handover.run(StoppingSpool(self))
        await self._streams.last_words()

    def _awaits_shards(self) -> bool:
        """Whether changes are left that a shard may take."""
        return self.pending > self.dispatcher.counters.unreadable + self.dispatcher.paused_pending

    async def close(self) -> int:
        """Close the spool, after `run` was cancelled; returns how many changes are left in it."""
        self.spool.settle(self.dispatcher.take_finished(), list(self.dispatcher.ledger.take_dirty()))
        await self.spool.close()
        self.reader.close()
        return self.pending

    # ... inside

    def _stored(self, rows: Sequence[PayloadBuilder]) -> None:
        self.admission.committed()
        for row in rows:
            self.dispatcher.stored(row)

    def _refused(self, rows: Sequence[PayloadBuilder]) -> None:
        for row in rows:
            self.admission.release(
                [((row.workspace_id, provider), size_bytes) for provider, size_bytes in row.charges.items()]
            )

    async def _watch_spool(self) -> None:
        self._state.fail(await self.spool.failed())

    def _finished(self, row_ids: list[int]) -> None:
        self.admission.release(self.dispatcher.ledger.take_freed())
        self.spool.settle(row_ids)

    def _recover(self, left: Remainder) -> None:
        counts = parse_changes(left.providers)
        if left.bits:
            # Which providers' changes are settled is known only after reading: a rare row, read once.
            [row] = self.reader.rows_between(left.workspace_id, left.row_id - 1, left.row_id, 1)
            counts = open_counts(row, left.workspace_id)
        self.memory.newest_received_us = max(self.memory.newest_received_us, left.received_us)
        self.admission.recovered(left.workspace_id, parse_charges(left.providers, left.payload_bytes))
        self.dispatcher.left(left.row_id, left.workspace_id, counts, left.received_us)

    def _stream(self, address: str) -> NodeStream:
        return node_stream(address, self._settings, self._around, self.dispatcher, self._workers)

    async def _expire(self) -> None:
        if not self._settings.coalesce_window_s:
            return
        while True:
            end_s = self.coalescer.next_end_s()
            if end_s is None:
                # A window that opens while this sleeps closes after it.
                await asyncio.sleep(self._settings.coalesce_window_s)
                continue
            await asyncio.sleep(max(EXPIRE_S_MIN, end_s - self._around.clock.monotonic()))
            self.dispatcher.expire()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._streams.tick()
            self.admission.tick(TICK_S)
            finished, bits = self.dispatcher.take_finished(), list(self.dispatcher.ledger.take_dirty())
            if finished or bits:
                self._finished(finished)
                self.spool.settle([], bits)


class _State:
    def __init__(self) -> None:
        self.is_draining = False
        self.accepting = 0
        self.failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """What ends the process."""

    def fail(self, error: Exception) -> None:
        if not self.failed.done():
            self.failed.set_result(error)


def _spool_limits(settings: IngestSettings) -> SpoolLimits:
    return SpoolLimits(
        commit_linger_s=settings.spool_commit_linger_s,
        commit_bytes_max=settings.spool_commit_bytes_max,
        bytes_max=settings.spool_bytes_max,
        verify=settings.spool_verify,
    )


def _coalesce_limits(settings: IngestSettings) -> CoalesceLimits:
    return CoalesceLimits(
        window_s=settings.coalesce_window_s,
        leading=settings.coalesce_leading == "on",
        objects_max=settings.envelope_queue_size,
        members_max=MEMBERS_HELD_MAX,
        fold_members_max=settings.fold_members_max,
        fold_bytes_max=settings.fold_bytes_max,
    )
