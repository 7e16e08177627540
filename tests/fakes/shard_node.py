"""A store node in memory: speaks `ApplyEnvelopes` over a real socket, and misbehaves when it is told to."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import grpc
import grpc.aio

from relayfile.v1 import shard_pb2, shard_pb2_grpc, types_pb2

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Object = tuple[str, str, str]  # workspace, provider, change key


class Applied(NamedTuple):
    """One change that had an effect."""

    delivery_id: str
    content: bytes
    elided: bool


@dataclass
class Durable:
    """What survives a restart of the node."""

    deliveries: dict[tuple[str, str, str, str], tuple[str, int]] = field(default_factory=dict)
    objects: dict[Object, list[Applied]] = field(default_factory=lambda: defaultdict(list))
    reports: dict[tuple[str, str], int] = field(default_factory=dict)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)


@dataclass
class Faults:
    """What goes wrong; everything counts down to zero and is over then."""

    cut_before_answer: int = 0
    """Streams to cut after a sub-batch was applied, without its answer."""
    cut_before_apply: int = 0
    refuse: int = 0
    """Sub-batches to refuse, for a moment."""
    ask_for_content: int = 0
    """Folds with elided contents to ask for again."""
    delay_s: float = 0.0
    hold: asyncio.Event | None = None
    """Nothing is applied while this is set and not yet fired."""


class ShardNode(shard_pb2_grpc.ShardServiceServicer):
    """One node; `stop` and `start` it again on the same port as often as needed."""

    def __init__(self, durable: Durable | None = None, credit_bytes: int = 16 << 20) -> None:
        self.durable = durable or Durable()
        self.faults = Faults()
        self.address = "127.0.0.1:0"
        self.streams = 0
        self.sub_batches = 0
        self.folds: list[list[int]] = []
        """Members of each fold and how many of them were elided."""
        self.finished: list[tuple[shard_pb2.RedoHead, shard_pb2.WorkspaceFolds]] = []
        """Results of redos."""
        self.redos: list[shard_pb2.Redo] = []
        """Handed over with the welcome."""
        self.workspaces_in_flight_max = 0
        self.owner_elsewhere: Callable[[int], tuple[int, str] | None] = lambda shard: None
        self.paused: dict[str, Sequence[str]] = {}
        self._open: dict[Context, asyncio.Lock] = {}
        """Streams, each with what is held while something is written to it."""
        self._credit_bytes = credit_bytes
        self._server: grpc.aio.Server | None = None
        self._expected: dict[tuple[str, int], int] = {}

    async def start(self) -> None:
        """Listen; the first time on any free port."""
        self._expected.clear()
        limit = 5 << 20
        self._server = grpc.aio.server(
            options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", limit)],
        )
        shard_pb2_grpc.add_ShardServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port(self.address)
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Cut every stream and stop listening."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def ApplyEnvelopes(  # type: ignore[override]  # it writes itself, so that pauses can be told meanwhile
        self,
        request_iterator: AsyncIterator[shard_pb2.ApplyEnvelopesRequest],
        context: "grpc.aio.ServicerContext[shard_pb2.ApplyEnvelopesRequest, shard_pb2.ApplyEnvelopesResponse]",
    ) -> None:
        self._open[context] = asyncio.Lock()
        try:
            await self._serve(request_iterator, context)
        finally:
            del self._open[context]

    async def _serve(
        self,
        request_iterator: AsyncIterator[shard_pb2.ApplyEnvelopesRequest],
        context: "grpc.aio.ServicerContext[shard_pb2.ApplyEnvelopesRequest, shard_pb2.ApplyEnvelopesResponse]",
    ) -> None:
        self.streams += 1
        session = ""
        partial: shard_pb2.ApplyEnvelopesRequest | None = None
        async for request in request_iterator:
            if request.HasField("hello"):
                session = request.hello.session_id
                welcome = shard_pb2.StreamWelcome(shard_count=256, credit_bytes=self._credit_bytes)
                await self._write(context, shard_pb2.ApplyEnvelopesResponse(welcome=welcome, redos=self.redos))
                await self._write(context, self._pauses())
                continue
            for report in request.reports:
                key = (report.workspace_id, report.provider)
                if report.refused:
                    self.durable.refused[key] = report.refused
                else:
                    self.durable.reports[key] = report.pending
            if request.HasField("chunk"):
                assert partial is not None
                _last_member(partial).content += request.chunk.data
                if not request.chunk.last:
                    continue
                request, partial = partial, None
            elif request.sub_batches and _last_member(request).content_follows_bytes:
                partial = request
                continue
            self.workspaces_in_flight_max = max(self.workspaces_in_flight_max, len(request.sub_batches))
            for batch in request.sub_batches:
                response = await self._take(session, batch)
                if response is None:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "cut")
                else:
                    await self._write(context, response)

    async def pause(self, paused: Mapping[str, Sequence[str]]) -> None:
        """From now on this is what is paused: workspace to providers."""
        self.paused = dict(paused)
        for context in list(self._open):
            with contextlib.suppress(Exception):  # of a stream that ends just now; the next one is told at its start
                await self._write(context, self._pauses())

    async def FinishRedo(
        self, request_iterator: AsyncIterator[shard_pb2.FinishRedoRequest], context: object
    ) -> shard_pb2.FinishRedoResponse:
        requests = [request async for request in request_iterator]
        body = b"".join([request.chunk.data for request in requests[1:]])
        self.finished.append((requests[0].head, shard_pb2.WorkspaceFolds.FromString(body)))
        return shard_pb2.FinishRedoResponse(taken=True)

    async def SetPause(self, request: shard_pb2.SetPauseRequest, context: object) -> shard_pb2.SetPauseResponse:
        raise NotImplementedError

    async def _write(self, context: Context, response: shard_pb2.ApplyEnvelopesResponse) -> None:
        async with self._open[context]:
            await context.write(response)

    def _pauses(self) -> shard_pb2.ApplyEnvelopesResponse:
        states = [shard_pb2.PauseState(workspace_id=name, providers=each) for name, each in self.paused.items()]
        return shard_pb2.ApplyEnvelopesResponse(pauses=states, pauses_complete=True)

    async def GetOutcomes(
        self, request: shard_pb2.GetOutcomesRequest, context: object
    ) -> shard_pb2.GetOutcomesResponse:
        raise NotImplementedError

    async def _take(self, session: str, batch: shard_pb2.SubBatch) -> shard_pb2.ApplyEnvelopesResponse | None:
        faults = self.faults
        expected = self._expected.get((session, batch.shard_id), batch.sequence)
        if batch.sequence > expected:
            resync = shard_pb2.Resync(shard_id=batch.shard_id, from_sequence=expected)
            return shard_pb2.ApplyEnvelopesResponse(resyncs=[resync])
        self._expected[session, batch.shard_id] = max(expected, batch.sequence + 1)
        ack = shard_pb2.SubBatchAck(shard_id=batch.shard_id, sequence=batch.sequence)
        if faults.hold is not None:
            await faults.hold.wait()
        if faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        elsewhere = self.owner_elsewhere(batch.shard_id)
        if elsewhere is not None:
            ack.refusal.reason, ack.refusal.epoch, ack.refusal.address = "NOT_OWNER", *elsewhere
            return shard_pb2.ApplyEnvelopesResponse(acks=[ack])
        if faults.refuse:
            faults.refuse -= 1
            ack.refusal.reason = "COMMIT_FAILED"
            ack.refusal.retry_after.nanos = 20_000_000
            return shard_pb2.ApplyEnvelopesResponse(acks=[ack])
        if faults.cut_before_apply:
            faults.cut_before_apply -= 1
            return None
        self.sub_batches += 1
        for workspace in batch.workspaces:
            for fold in workspace.folds:
                self._apply(workspace.workspace_id, fold, ack)
        if faults.cut_before_answer:
            faults.cut_before_answer -= 1
            return None
        return shard_pb2.ApplyEnvelopesResponse(acks=[ack])

    def _apply(self, workspace_id: str, fold: shard_pb2.Fold, ack: shard_pb2.SubBatchAck) -> None:
        elided = sum(member.content_elided for member in fold.members)
        if elided and self.faults.ask_for_content:
            self.faults.ask_for_content -= 1
            ack.content_needed.extend(member.spool_ref for member in fold.members)
            return
        self.folds.append([len(fold.members), elided])
        for member in fold.members:
            known = self.durable.deliveries.get(
                (workspace_id, fold.provider, member.delivery_id, fold.change_key),
            )
            if known is None:
                outcome = int(types_pb2.OUTCOME_APPLIED)
                applied = Applied(member.delivery_id, member.content, member.content_elided)
                self.durable.objects[workspace_id, fold.provider, fold.change_key].append(applied)
            else:
                envelope_id, outcome = known
                outcome = outcome if envelope_id == member.envelope_id else int(types_pb2.OUTCOME_DUPLICATE)
            key = (workspace_id, fold.provider, member.delivery_id, fold.change_key)
            self.durable.deliveries.setdefault(key, (member.envelope_id, outcome))
            ack.spool_refs += member.spool_ref
            ack.outcomes.append(outcome)  # type: ignore[arg-type]


def _last_member(request: shard_pb2.ApplyEnvelopesRequest) -> shard_pb2.FoldMember:
    return request.sub_batches[-1].workspaces[-1].folds[-1].members[-1]
