"""AckOperation: a head, then perhaps the content of its change, into one answer.

Owns the bound on what unfinished acknowledgements hold in memory. A stream that ends early, or brings more or less than
it said, changes nothing.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from relayfile.clock import Clock
from relayfile.errors import DeadlineExpired, InvalidArgument, Overloaded
from relayfile.interception import current_call
from relayfile.store.once import RequestMark
from relayfile.store.plan.answers import Answer
from relayfile.store.plan.rows import RequestKey
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.operation_wire import (
    RELEASE_MAX_US,
    check_operation_id,
    check_success,
    duration_us,
    read_fault,
    read_success,
)
from relayfile.v1 import writeback_pb2

CHUNK_BYTES_MAX = 1 << 20
RETRY_AFTER_S = 0.5
_METHOD = "relayfile.v1.WritebackService/AckOperation"


class AnswerReading:
    """Answers of workers to one node, as they come."""

    def __init__(self, clock: Clock, content_bytes_max: int, bytes_max: int, idle_s: float) -> None:
        """`bytes_max`: of all that are being read; `idle_s`: longest wait for the next chunk."""
        self._clock = clock
        self._content_bytes_max = content_bytes_max
        self._bytes_max = max(bytes_max, content_bytes_max)
        self._idle_s = idle_s
        self._reserved_bytes = 0

    async def read(
        self, requests: AsyncIterator[writeback_pb2.AckOperationRequest]
    ) -> tuple[str, Answer, RequestMark | None]:
        """(workspace, the answer, the mark of its request id). `InvalidArgument`, `Overloaded`, `DeadlineExpired`."""
        first = await self._next(requests)
        if first is None or not first.HasField("head"):
            raise InvalidArgument.of("head", "is required in the first message")
        head = first.head
        checks = Checks()
        checks.workspace(head.workspace_id, "head.workspace_id")
        check_operation_id(checks, head.operation_id, "head.operation_id")
        checks.require(head.claim_number > 0, "head.claim_number", "is required: the number of the claim")
        checks.request_id(head.request_id, "head.request_id")
        ending = head.WhichOneof("ending")
        checks.require(ending is not None, "head.ending", "is required: success, failure or release")
        answer = Answer(head.operation_id, head.claim_number)
        if ending == "failure":
            answer = answer._replace(fault=read_fault(checks, head.failure))
        elif ending == "release":
            delay_us = duration_us(checks, head.release.delay, "head.release.delay")
            answer = answer._replace(release_us=min(delay_us, RELEASE_MAX_US))
        elif ending == "success":
            check_success(checks, head.success, self._content_bytes_max)
        checks.done()
        size = head.success.change.content_follows_bytes if ending == "success" else 0
        with self._reserved(size):
            content = head.success.change.content if ending == "success" else b""
            received = await self._content(requests, size)
        digest = hashlib.sha256(received if size else content).digest()
        if ending == "success":
            success = read_success(
                head.success, received if size else content, digest, self._clock.now_us(), current_call().correlation_id
            )
            answer = answer._replace(success=success)
        return head.workspace_id, answer, _mark(head, digest)

    async def _content(self, requests: AsyncIterator[writeback_pb2.AckOperationRequest], size: int) -> bytes:
        """Exactly `size` bytes, and nothing behind them."""
        content = bytearray()
        while (message := await self._next(requests)) is not None:
            if not message.HasField("chunk"):
                raise InvalidArgument.of("head", "comes only in the first message")
            data = message.chunk.data
            if len(data) > CHUNK_BYTES_MAX:
                raise InvalidArgument.of("chunk.data", f"has {len(data)} bytes; at most {CHUNK_BYTES_MAX}")
            content += data
            if len(content) > size:
                why = f"is {size}, and more bytes than that came"
                raise InvalidArgument.of("head.success.change.content_follows_bytes", why)
        if len(content) != size:
            why = f"is {size}, and {len(content)} bytes came"
            raise InvalidArgument.of("head.success.change.content_follows_bytes", why)
        return bytes(content)

    async def _next(
        self, requests: AsyncIterator[writeback_pb2.AckOperationRequest]
    ) -> writeback_pb2.AckOperationRequest | None:
        try:
            async with asyncio.timeout(self._idle_s):
                return await anext(requests, None)
        except TimeoutError:
            raise DeadlineExpired(what="the next chunk") from None

    @contextmanager
    def _reserved(self, size: int) -> Iterator[None]:
        if self._reserved_bytes + size > self._bytes_max:
            raise Overloaded(what="room for acknowledgements", retry_after_s=RETRY_AFTER_S)
        self._reserved_bytes += size
        try:
            yield
        finally:
            self._reserved_bytes -= size


def _mark(head: writeback_pb2.AckOperationHead, content_sha256: bytes) -> RequestMark | None:
    """Of the whole answer, however its content was cut into chunks."""
    if not head.request_id:
        return None
    fingerprint = hashlib.sha256(head.SerializeToString(deterministic=True))
    fingerprint.update(content_sha256)
    return RequestMark(RequestKey(_METHOD, head.request_id), fingerprint.digest())
