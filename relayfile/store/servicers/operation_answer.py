"""AckOperation: a head, then perhaps the content of its change, into one answer.

A stream that ends early, or brings more or less than it said, changes nothing.
"""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from relayfile.clock import Clock
from relayfile.errors import InvalidArgument
from relayfile.interception import current_call
from relayfile.store.once import RequestMark
from relayfile.store.plan.answers import Answer
from relayfile.store.plan.rows import RequestKey
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.incoming import Incoming, check_chunk
from relayfile.store.servicers.operation_wire import (
    RELEASE_MAX_US,
    check_operation_id,
    check_success,
    duration_us,
    read_fault,
    read_success,
)
from relayfile.v1 import writeback_pb2

_METHOD = "relayfile.v1.WritebackService/AckOperation"


class AnswerReading:
    """Answers of workers to one node, as they come."""

    def __init__(self, clock: Clock, content_bytes_max: int, bytes_max: int, idle_s: float) -> None:
        """`bytes_max`: of all that are being read; `idle_s`: longest wait for the next chunk."""
        self._clock = clock
        self._content_bytes_max = content_bytes_max
        self._incoming = Incoming("acknowledgements", max(bytes_max, content_bytes_max), idle_s)

    @asynccontextmanager
    async def read(
        self, requests: AsyncIterator[writeback_pb2.AckOperationRequest]
    ) -> AsyncIterator[tuple[str, Answer, RequestMark | None]]:
        """(workspace, the answer, the mark of its request id), with room for its content until the block ends.

        `InvalidArgument`, `Overloaded`, `DeadlineExpired`.
        """
        first = await self._incoming.next(requests)
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
        with self._incoming.reserved(size):
            inline = head.success.change.content if ending == "success" else b""
            received = await self._content(requests, size)
            content = received if size else inline
            digest = hashlib.sha256(content).digest()
            if ending == "success":
                correlation_id = current_call().correlation_id
                success = read_success(head.success, content, digest, self._clock.now_us(), correlation_id)
                answer = answer._replace(success=success)
            yield head.workspace_id, answer, _mark(head, digest)

    async def _content(self, requests: AsyncIterator[writeback_pb2.AckOperationRequest], size: int) -> bytes:
        """Exactly `size` bytes, and nothing behind them."""
        content = bytearray()
        while (message := await self._incoming.next(requests)) is not None:
            if not message.HasField("chunk"):
                raise InvalidArgument.of("head", "comes only in the first message")
            data = message.chunk.data
            check_chunk(data)
            content += data
            if len(content) > size:
                why = f"is {size}, and more bytes than that came"
                raise InvalidArgument.of("head.success.change.content_follows_bytes", why)
        if len(content) != size:
            why = f"is {size}, and {len(content)} bytes came"
            raise InvalidArgument.of("head.success.change.content_follows_bytes", why)
        return bytes(content)


def _mark(head: writeback_pb2.AckOperationHead, content_sha256: bytes) -> RequestMark | None:
    """Of the whole answer, however its content was cut into chunks."""
    if not head.request_id:
        return None
    fingerprint = hashlib.sha256(head.SerializeToString(deterministic=True))
    fingerprint.update(content_sha256)
    return RequestMark(RequestKey(_METHOD, head.request_id), fingerprint.digest())
