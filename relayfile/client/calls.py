"""One call, and one stream, to a node: its token, its caller's trace, its deadline, and trying again what may be.

Every mutation carries a request id, so that a repeat returns the first answer: whatever a peer calls unavailable is
tried again until the call's deadline. Owns retries; refuses to know any service.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc.aio
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_before_delay, wait_random_exponential

from relayfile.client.recommended import backoff
from relayfile.client.token import TokenSource
from relayfile.client.trace_context import trace_context
from relayfile.errors import (
    DeadlineExpired,
    Draining,
    NotOwner,
    Overloaded,
    StorageFailed,
    Unauthenticated,
    Unavailable,
)
from relayfile.status import from_rpc_error

Request_contra = TypeVar("Request_contra", contravariant=True)
Answer_co = TypeVar("Answer_co", covariant=True)
Request = TypeVar("Request")
Answer = TypeVar("Answer")
Message = TypeVar("Message")
Metadata = tuple[tuple[str, str], ...]

PASSING = (Unavailable, Draining, Overloaded, NotOwner, StorageFailed)
"""Errors after which the same call may be accepted."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long a client tries and waits."""

    call_timeout_s: float = 30.0
    """A call with all its repeats; a stream without a message for so long is cut and continued, or given up."""
    retry_wait_first_s: float = backoff().first_s
    retry_wait_max_s: float = backoff().longest_s


class Reading(Protocol[Answer_co]):
    """A stream being read, as grpc.aio gives it."""

    def __aiter__(self) -> AsyncIterator[Answer_co]: ...

    def cancel(self) -> bool: ...


class Calling(Protocol[Request_contra, Answer_co]):
    """A unary RPC of a stub."""

    def __call__(
        self, request: Request_contra, *, timeout: float | None, metadata: Metadata
    ) -> Awaitable[Answer_co]: ...


class Calls:
    """Makes the calls of one client."""

    def __init__(self, tokens: TokenSource, limits: ClientLimits) -> None:
        self._tokens = tokens
        self.limits = limits
        self._backoff = wait_random_exponential(multiplier=limits.retry_wait_first_s, max=limits.retry_wait_max_s)

    async def unary(self, rpc: Calling[Request, Answer], request: Request, *, timeout_s: float | None = None) -> Answer:
        """The answer; the error of ours that the node described. `DeadlineExpired` after `timeout_s` in all."""
        limit_s = self.limits.call_timeout_s if timeout_s is None else timeout_s
        loop = asyncio.get_running_loop()
        ends = loop.time() + limit_s

        async def attempt(metadata: Metadata) -> Answer:
            left = ends - loop.time()
            if left <= 0:
                raise DeadlineExpired(what="the node's answer")
            return await rpc(request, timeout=left, metadata=metadata)

        return await self.repeated(attempt, limit_s)

    async def repeated(self, attempt: Callable[[Metadata], Awaitable[Message]], limit_s: float) -> Message:
        """What `attempt` gives, which may be called again: after errors that pass, and once with another token."""
        renewed = False

        async def once() -> Message:
            nonlocal renewed
            try:
                return await self._translated(attempt, renew=False)
            except Unauthenticated:
                if renewed:
                    raise
                renewed = True
                return await self._translated(attempt, renew=True)

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(PASSING),
            wait=self._wait,
            stop=stop_before_delay(limit_s),
            reraise=True,
        )
        return await retrying(once)

    async def messages(
        self,
        open_stream: Callable[[Metadata], Reading[Message]],
        *,
        ended: Callable[[Message], bool],
        silence_max_s: float | None = None,
    ) -> AsyncGenerator[Message, None]:
        """The messages of a stream up to the one that `ended` knows as the last.

        A stream that is cut, or silent for too long, is opened again by `open_stream`, which begins after the last
        message that was yielded. Given up when that fails for `call_timeout_s`.
        """
        silence_s = self.limits.call_timeout_s if silence_max_s is None else silence_max_s
        call: Reading[Message] | None = None
        source: AsyncIterator[Message] | None = None

        async def following(metadata: Metadata) -> Message:
            nonlocal call, source
            if source is None:
                call = open_stream(metadata)
                source = aiter(call)
            try:
                async with asyncio.timeout(silence_s):
                    return await anext(source)
            except BaseException as error:
                source = None
                if call is not None:
                    call.cancel()
                if isinstance(error, StopAsyncIteration):
                    raise Unavailable(what="stream (it ended before its end was sent)") from None
                if isinstance(error, TimeoutError):
                    raise Unavailable(what=f"stream (silent for {silence_s:g} s)") from None
                raise

        try:
            while True:
                message = await self.repeated(following, self.limits.call_timeout_s)
                yield message
                if ended(message):
                    return
        finally:
            if call is not None:
                call.cancel()

    async def _translated(self, attempt: Callable[[Metadata], Awaitable[Message]], *, renew: bool) -> Message:
        token = await self._tokens.token(renew=renew)
        shown = (("authorization", f"Bearer {token}"),) if token else ()
        try:
            return await attempt((*shown, *trace_context()))
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.CANCELLED:
                # Who cancels a call of ours gets no status. A node that stops ends like this what takes longer than it
                # waits for.
                raise Unavailable(what="node (it gave the call up)") from error
            raise from_rpc_error(error) from error

    def _wait(self, state: RetryCallState) -> float:
        raised = state.outcome.exception() if state.outcome is not None else None
        asked_s = getattr(raised, "retry_after_s", 0.0)
        return max(self._backoff(state), min(asked_s, self.limits.retry_wait_max_s))
