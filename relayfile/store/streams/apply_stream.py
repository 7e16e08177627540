"""One `ApplyEnvelopes` stream: sub-batches in, answers out, both at the same time (D13).

Owns what is in flight on the stream. A sub-batch is split by workspace, queued, and answered when its last piece is
durable, or refused as a whole when a piece could not be written; a resend is harmless (D3). Answers are gathered while
the one before is being sent. When the sender exceeds its credit the stream is simply not read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import Final, cast

from relayfile.errors import DeadLettersFull, InvalidArgument, NotOwner, Overloaded, RelayfileError
from relayfile.model import Outcome
from relayfile.store.commit import Asker
from relayfile.store.commit_span import traces_of
from relayfile.store.engine import WorkspaceKey
from relayfile.store.entry_kinds import FoldResults
from relayfile.store.node import Node
from relayfile.store.plan.entry import WITHOUT_OBJECT, Fold
from relayfile.store.streams.content_chunks import ChunkedContent
from relayfile.store.streams.pausing import PauseListener, PauseNews
from relayfile.store.streams.sessions import Report, Reports, gap_before
from relayfile.store.wire import FoldsRead, failure_message, reading_folds
from relayfile.telemetry import get_logger
from relayfile.v1 import shard_pb2

PIECE_CHANGES_MAX: Final = 125
"""Changes of one workspace that are queued as one mutation, where folds allow."""
MEMBER_OVERHEAD_BYTES: Final = 300
KEYS_REMEMBERED_MAX: Final = 10_000
ACKS_PER_MESSAGE_MAX: Final = 512
ANSWERS_WAITING_MAX: Final = 4 * ACKS_PER_MESSAGE_MAX
"""Of a sender that reads no answers, nothing more is read either."""
RETRY_AFTER_S: Final = 0.5
RETRY_AFTER_FULL_S: Final = 5.0
"""When somebody has to do something about it first."""

_log = get_logger(__name__)


class _Stage(Enum):
    """Of a stream."""

    TAKING = 1
    DRAINING = 2
    ENDED = 3


@dataclass(slots=True, eq=False)
class _InFlight:
    """A sub-batch without an answer."""

    shard_id: int
    sequence: int
    refs: list[bytes] = field(default_factory=list)
    results: list[FoldResults] = field(default_factory=list)
    """One for each piece, in order."""
    missing: int = 0
    """Pieces that are not durable yet."""
    byte_count: int = 0
    failure: BaseException | None = None


class ApplyStream:
    """Made after the hello; `serve` runs it."""

    def __init__(
        self, node: Node, ingest_id: str, expected: dict[int, int], reports: Reports, credit_bytes: int
    ) -> None:
        self._node = node
        self._ingest_id = ingest_id
        self._expected = expected
        self._reports = reports
        self._credit_bytes = credit_bytes
        self._keys: dict[str, WorkspaceKey] = {}
        self._gaps: set[int] = set()
        self._in_flight_count = 0
        self._in_flight_bytes = 0
        self._answers: list[shard_pb2.SubBatchAck] = []
        self._resyncs: list[shard_pb2.Resync] = []
        self._redos: list[shard_pb2.Redo] = []
        self._moved = asyncio.Event()
        self._stage = _Stage.TAKING

    async def drain(self) -> None:
        """Take nothing more, and return when everything taken was answered, or when the stream ends before. What comes
        meanwhile gets no answer: its sender sends it again to the next process."""
        if self._stage is _Stage.TAKING:
            self._stage = _Stage.DRAINING
        while self._stage is _Stage.DRAINING and (self._in_flight_count or self._answers):
            await self._wait()

    def hand_over(self, redo: shard_pb2.Redo) -> None:
        """Send a redo with the next answers. Only as many as its process takes: see `RedoDesk`."""
        self._redos.append(redo)
        self._moved.set()

    async def serve(
        self,
        requests: AsyncIterator[shard_pb2.ApplyEnvelopesRequest],
        write: Callable[[shard_pb2.ApplyEnvelopesResponse], Awaitable[None]],
        chunked: ChunkedContent,
        news: PauseNews,
    ) -> None:
        """Read until the sender ends its side, then answer what is in flight, and return. Pauses are told meanwhile."""
        pauses = news.listen(self._moved.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(self._send_answers(write, pauses), name="apply-answers")
                async for request in requests:
                    complete = chunked.pass_on(request)
                    if complete is not None and self._stage is _Stage.TAKING:
                        await self._take(complete)
                    while self._in_flight_bytes > self._credit_bytes or len(self._answers) > ANSWERS_WAITING_MAX:
                        await self._wait()
                    await self._node.committer.room()
                while self._in_flight_count or self._answers or self._resyncs:
                    await self._wait()
                answering.cancel()
        finally:
            pauses.close()
            self._stage = _Stage.ENDED
            self._moved.set()

    async def _take(self, request: shard_pb2.ApplyEnvelopesRequest) -> None:
        if request.HasField("hello"):
            raise InvalidArgument.of("hello", "is only for the first message of a stream")
        if request.reports:
            now_us = self._node.clock.now_us()
            self._reports.keep(Report(self._ingest_id, now_us, tuple(request.reports)))
        for sub_batch in request.sub_batches:
            back_to = gap_before(self._expected, sub_batch.shard_id, sub_batch.sequence)
            if back_to is None:
                self._gaps.discard(sub_batch.shard_id)
                await self._apply(sub_batch)
            elif sub_batch.shard_id not in self._gaps:
                self._gaps.add(sub_batch.shard_id)
                self._resyncs.append(shard_pb2.Resync(shard_id=sub_batch.shard_id, from_sequence=back_to))
                self._moved.set()

    async def _apply(self, sub_batch: shard_pb2.SubBatch) -> None:
        """Queue the pieces of a sub-batch."""
        batch = _InFlight(sub_batch.shard_id, sub_batch.sequence, missing=1)
        self._in_flight_count += 1
        ownership = self._node.ownership
        epoch = ownership.epoch_of(batch.shard_id)
        if not epoch or sub_batch.epoch > epoch:
            batch.failure = ownership.not_owner(batch.shard_id)
        else:
            for workspace in sub_batch.workspaces:
                key = self._key(workspace.workspace_id, batch.shard_id)
                folds, byte_count = await self._read(workspace, batch.refs)
                batch.byte_count += byte_count
                for piece, changes, piece_bytes in _pieces(folds, byte_count):
                    self._submit(batch, key, piece, changes, piece_bytes)
            batch.byte_count += MEMBER_OVERHEAD_BYTES * len(batch.refs)
        self._in_flight_bytes += batch.byte_count
        self._one_done(batch)

    async def _read(self, workspace: shard_pb2.WorkspaceFolds, refs: list[bytes]) -> FoldsRead:
        """As `read_folds`, with a turn for others after each step."""
        reading = reading_folds(workspace.folds, self._ingest_id, refs)
        while True:
            try:
                next(reading)
            except StopIteration as end:
                return cast(FoldsRead, end.value)
            await asyncio.sleep(0)

    def _submit(self, batch: _InFlight, key: WorkspaceKey, folds: tuple[Fold, ...], changes: int, size: int) -> None:
        index = len(batch.results)
        batch.results.append(())
        traces = traces_of(folds) if self._node.committer.tracing.records else ()
        try:
            answer = self._node.committer.submit(
                key,
                self._node.apply_folds,
                folds,
                change_count=changes,
                byte_count=size,
                asker=Asker.STREAM,
                traces=traces,
            )
        except (NotOwner, Overloaded) as refusal:
            batch.failure = refusal
            return
        batch.missing += 1
        answer.add_done_callback(partial(self._piece_done, batch, index))

    def _piece_done(self, batch: _InFlight, index: int, answer: asyncio.Future[FoldResults]) -> None:
        failure = answer.exception()
        if failure is None:
            batch.results[index] = answer.result()
        else:
            batch.failure = failure
        self._one_done(batch)

    def _one_done(self, batch: _InFlight) -> None:
        batch.missing -= 1
        if batch.missing:
            return
        self._in_flight_count -= 1
        self._in_flight_bytes -= batch.byte_count
        self._answers.append(_ack(batch) if batch.failure is None else _refused(batch, batch.failure))
        self._moved.set()

    async def _wait(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    async def _send_answers(
        self, write: Callable[[shard_pb2.ApplyEnvelopesResponse], Awaitable[None]], pauses: PauseListener
    ) -> None:
        while True:
            while not self._answers and not self._resyncs and not self._redos and not pauses.is_due:
                await self._wait()
            if pauses.is_due:
                async for message in pauses.messages():
                    await write(message)
                continue
            acks, resyncs, redos = self._answers[:ACKS_PER_MESSAGE_MAX], self._resyncs[:], self._redos[:]
            await write(shard_pb2.ApplyEnvelopesResponse(acks=acks, resyncs=resyncs, redos=redos))
            del self._answers[: len(acks)], self._resyncs[: len(resyncs)], self._redos[: len(redos)]
            self._moved.set()

    def _key(self, workspace_id: str, shard_id: int) -> WorkspaceKey:
        key = self._keys.get(workspace_id)
        if key is None:
            if not workspace_id:
                raise InvalidArgument.of("workspaces.workspace_id", "is empty")
            key = self._node.ownership.owner_of(workspace_id).key
            if len(self._keys) >= KEYS_REMEMBERED_MAX:
                self._keys.clear()
            self._keys[workspace_id] = key
        if key.shard_id != shard_id:
            raise InvalidArgument.of(
                "sub_batches.shard_id", f"is {shard_id}, but workspace {workspace_id!r} is in shard {key.shard_id}"
            )
        return key


def _pieces(folds: list[Fold], byte_count: int) -> list[tuple[tuple[Fold, ...], int, int]]:
    """(folds, changes, bytes) of about `PIECE_CHANGES_MAX` changes each; bytes are shared out by changes.

    All in one where an object has several folds: of two pieces the first may have to come again, behind the second.
    """
    total = sum(len(fold.members) for fold in folds)
    if total <= PIECE_CHANGES_MAX or _has_repeated_objects(folds):
        return [(tuple(folds), total, byte_count)]
    pieces = []
    piece: list[Fold] = []
    changes = 0
    for fold in folds:
        if piece and changes + len(fold.members) > PIECE_CHANGES_MAX:
            pieces.append((tuple(piece), changes, byte_count * changes // total))
            piece, changes = [], 0
        piece.append(fold)
        changes += len(fold.members)
    pieces.append((tuple(piece), changes, byte_count * changes // total))
    return pieces


def _has_repeated_objects(folds: list[Fold]) -> bool:
    objects = [fold[:2] for fold in folds if not fold.change_key.startswith(WITHOUT_OBJECT)]
    return len(set(objects)) < len(objects)


def _ack(batch: _InFlight) -> shard_pb2.SubBatchAck:
    results = [result for piece in batch.results for fold in piece for result in fold]
    assert len(results) == len(batch.refs), (len(results), len(batch.refs))
    outcomes = [result.outcome for result in results]
    ack = shard_pb2.SubBatchAck(shard_id=batch.shard_id, sequence=batch.sequence)
    if None in outcomes:
        ack.content_needed.extend(ref for ref, outcome in zip(batch.refs, outcomes, strict=True) if outcome is None)
        batch.refs = [ref for ref, outcome in zip(batch.refs, outcomes, strict=True) if outcome is not None]
        outcomes = [outcome for outcome in outcomes if outcome is not None]
    ack.spool_refs = b"".join(batch.refs)
    ack.outcomes.extend(outcomes)  # type: ignore[arg-type]  # the same numbers, and None was taken out
    if Outcome.DEAD_LETTERED in outcomes:
        ack.failures.extend(
            shard_pb2.MemberFailure(member_index=index, failure=failure_message(result.failure))
            for index, result in enumerate(results)
            if result.failure is not None
        )
    return ack


def _refused(batch: _InFlight, failure: BaseException) -> shard_pb2.SubBatchAck:
    refusal = shard_pb2.SubBatchRefusal(reason="COMMIT_FAILED")
    retry_after_s = RETRY_AFTER_S
    match failure:
        case DeadLettersFull():
            refusal.reason, retry_after_s = failure.reason, RETRY_AFTER_FULL_S
        case NotOwner():
            refusal.reason, refusal.epoch, refusal.address = "NOT_OWNER", failure.epoch, failure.address
        case Overloaded():
            refusal.reason, retry_after_s = "OVERLOADED", failure.retry_after_s
        case RelayfileError():
            _log.warning("sub-batch refused", shard=batch.shard_id, reason=failure.reason)
        case _:
            _log.error("sub-batch failed", shard=batch.shard_id, exc_info=failure)
    refusal.retry_after.FromNanoseconds(round(retry_after_s * 1e9))
    return shard_pb2.SubBatchAck(shard_id=batch.shard_id, sequence=batch.sequence, refusal=refusal)
