"""Takes over dead letters that nodes hand out, and sends back what they amount to now.

Owns one piece of work at a time, away from the loop, so that webhooks do not wait for it. Nothing is kept here: what is
lost on the way comes again when its lease has ended. Refuses more than its queue has room for, in the same way.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import grpc
import grpc.aio

from relayfile.errors import RelayfileError
from relayfile.ingest.providers.adapter import Provider, RequestFacts
from relayfile.ingest.redo import RedoAnswer, normalised_again
from relayfile.ingest.sending.fold_wire import CHUNK_BYTES_MAX
from relayfile.model import Failure
from relayfile.placement import app_of
from relayfile.telemetry import get_logger
from relayfile.v1 import dead_letter_pb2, dead_letter_pb2_grpc, shard_pb2, shard_pb2_grpc, types_pb2

BODY_BYTES_MAX: Final = 256 << 20
"""The most that ingest can be set to accept."""
QUEUED_MAX: Final = 256
MESSAGE_CHARACTERS_MAX: Final = 250
_OUR_FAULT: Final = Failure("INTERNAL_FAULT", "Normalising met a fault of Relayfile's own; the log of ingest has it.")

Metadata: TypeAlias = Sequence[tuple[str, str]]
_log = get_logger(__name__)


class RedoPostponed(Exception):
    """It cannot be done here and now; the node hands it out again, perhaps to another process."""


class RedoForwarder(Protocol):
    """Knows where deliveries of an app belong by now."""

    async def forward(self, redo: shard_pb2.Redo, facts: RequestFacts) -> Failure | None:
        """Normalise a delivery of an app and make it durable in its customer's workspace, under the same delivery.

        None: it is; the dead letter may go. A failure: it stays, pending with this reason. `RedoPostponed`.
        """
        ...


class RedoQueue:
    """What nodes have handed over. Bounded by what each of them may, and by itself."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[str, shard_pb2.Redo]] = deque()
        self._filled = asyncio.Event()

    def put(self, address: str, redos: Sequence[shard_pb2.Redo]) -> None:
        """Take redos of the node at `address`."""
        room = QUEUED_MAX - len(self._waiting)
        self._waiting.extend((address, redo) for redo in redos[:room])
        self._filled.set()

    async def get(self) -> tuple[str, shard_pb2.Redo]:
        """The oldest, with the address of its node."""
        while not self._waiting:
            self._filled.clear()
            await self._filled.wait()
        return self._waiting.popleft()


class RedoWorker:
    """`run` it in a task."""

    def __init__(
        self,
        queue: RedoQueue,
        channel_to: Callable[[str], grpc.aio.Channel],
        metadata: Callable[[], Metadata],
        providers: Mapping[str, Provider],
        timeout_s: float,
        forwarder: RedoForwarder,
    ) -> None:
        """`timeout_s` bounds each call to a node."""
        self._queue = queue
        self._channel_to = channel_to
        self._metadata = metadata
        self._providers = providers
        self._timeout_s = timeout_s
        self._forwarder = forwarder

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            address, redo = await self._queue.get()
            try:
                await self._redo(self._channel_to(address), redo)
            except grpc.aio.AioRpcError as error:
                # The node hands it out again when the lease has ended.
                why = f"{error.code().name}: {error.details()}"
                _log.info("a redo was not finished", dead_letter=redo.dead_letter_id, address=address, why=why)

    async def _redo(self, channel: grpc.aio.Channel, redo: shard_pb2.Redo) -> None:
        body = await self._read(channel, redo)
        if body is None:
            answer = RedoAnswer(failure=Failure("TOO_LARGE", f"The body has more than {BODY_BYTES_MAX} bytes."))
        else:
            answer = await self._answer(redo, body)
        try:
            await self._finish(channel, redo, answer)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            # It would be refused for ever.
            _log.error("the result of a redo was refused", dead_letter=redo.dead_letter_id, why=error.details())
            await self._finish(channel, redo, RedoAnswer(failure=_OUR_FAULT))

    async def _answer(self, redo: shard_pb2.Redo, body: bytes) -> RedoAnswer:
        try:
            if app_of(redo.workspace_id):
                failure = await self._forwarder.forward(redo, RequestFacts(dict(redo.raw.headers), body))
                return RedoAnswer(failure=failure, forwarded=failure is None)
            return await asyncio.to_thread(normalised_again, self._providers, redo, body)
        except RedoPostponed as postponed:
            _log.info("a redo was left to others", dead_letter=redo.dead_letter_id, why=str(postponed))
            return RedoAnswer(postponed=True)
        except RelayfileError as refusal:
            return RedoAnswer(failure=Failure(refusal.reason, str(refusal)[:MESSAGE_CHARACTERS_MAX]))
        except Exception:  # noqa: BLE001 - one poison must not stop the others
            _log.exception("a redo failed", dead_letter=redo.dead_letter_id, provider=redo.provider)
            return RedoAnswer(failure=_OUR_FAULT)

    async def _finish(self, channel: grpc.aio.Channel, redo: shard_pb2.Redo, answer: RedoAnswer) -> None:
        stub: shard_pb2_grpc.ShardServiceAsyncStub = shard_pb2_grpc.ShardServiceStub(channel)
        done = await stub.FinishRedo(_messages(redo, answer), metadata=self._metadata(), timeout=self._timeout_s)
        if not done.taken and not answer.postponed:
            _log.info("a redo came too late", dead_letter=redo.dead_letter_id, provider=redo.provider)

    async def _read(self, channel: grpc.aio.Channel, redo: shard_pb2.Redo) -> bytes | None:
        """The kept body; None: it is too large."""
        stub: dead_letter_pb2_grpc.DeadLetterServiceAsyncStub = dead_letter_pb2_grpc.DeadLetterServiceStub(channel)
        request = dead_letter_pb2.ReadDeadLetterRequest(
            workspace_id=redo.workspace_id, dead_letter_id=redo.dead_letter_id
        )
        body = bytearray()
        async for message in stub.ReadDeadLetter(request, metadata=self._metadata(), timeout=self._timeout_s):
            body += message.chunk.data
            if len(body) > BODY_BYTES_MAX:
                return None
        return bytes(body)


async def _messages(redo: shard_pb2.Redo, answer: RedoAnswer) -> AsyncIterator[shard_pb2.FinishRedoRequest]:
    yield shard_pb2.FinishRedoRequest(head=answer.head(redo))
    folds = answer.folds
    for start in range(0, len(folds), CHUNK_BYTES_MAX):
        last = start + CHUNK_BYTES_MAX >= len(folds)
        chunk = types_pb2.ContentChunk(data=folds[start : start + CHUNK_BYTES_MAX], last=last)
        yield shard_pb2.FinishRedoRequest(chunk=chunk)
