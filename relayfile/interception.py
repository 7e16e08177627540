"""One wrapper around every served call, whatever its arity, into which the stages (telemetry, errors, access) hook.

Owns the ``Call`` that handlers and stages share, the correlation id (``x-correlation-id`` in, made when absent, back
in the trailing metadata), the refusal of messages that cannot be decoded, and the answer of RPCs that no servicer
implements yet. Refuses to decide more: each stage is an async context manager around the handler, entered in order,
left in reverse.

Handlers are coroutines, or async generators for streamed answers. A generator's messages are written by this module's
own coroutine, so that a cancelled call ends the generator at once, in the same task, and not when it is collected.
"""

from __future__ import annotations  # gRPC's classes are generic in their stubs only

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from relayfile.errors import Draining, InvalidArgument, ServedLater

CORRELATION_KEY = "x-correlation-id"
CORRELATION_BYTES_MAX = 128
_PATIENCE = 0.8
"""Of what is left of a deadline."""

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]


@dataclass(slots=True, eq=False)
class Call:
    """One call being served."""

    method: str
    """``/relayfile.v1.FileService/GetFile``."""
    context: Context
    metadata: Mapping[str, str | bytes]
    correlation_id: str
    on_request: Callable[[Any], None] | None = None
    """Sees every request message before the handler does, and may raise."""
    on_answer: Callable[[Any], None] | None = None
    """Sees every answer before it is sent; bytes, where it is passed on."""
    traceparent: str = ""
    """The W3C trace context that work for this call passes on; set by the telemetry stage."""


Stage = Callable[[Call], AbstractAsyncContextManager[None]]
Serve = Callable[[Call, Any], Awaitable[Any]]
"""Answers a call's request, or its stream of requests."""

_CURRENT: ContextVar[Call] = ContextVar("relayfile_call")


def current_call() -> Call:
    """The call that is being served in this context. ``LookupError`` outside of one."""
    return _CURRENT.get()


def patience_s(longest_s: float) -> float:
    """How long to wait for others whose answers are part of the current call's: not so long that it ends without one.

    ``longest_s`` where the caller named no deadline, and outside of a call.
    """
    call = _CURRENT.get(None)
    left_s = call.context.time_remaining() if call is not None else None
    return longest_s if left_s is None else min(longest_s, left_s * _PATIENCE)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the handler of each method once, with the same stages.

    ``untouched`` are service names (health, reflection) that are served as they are.
    """

    def __init__(self, stages: Sequence[Stage], new_id: Callable[[], str], untouched: frozenset[str]) -> None:
        self._stages = tuple(stages)
        self._new_id = new_id
        self._untouched = untouched
        self._wrapped: dict[str, Handler] = {}
        self._refusing = False
        self._streams: set[asyncio.Task[Any]] = set()

    def refuse_new(self) -> None:
        """From now on new calls end as ``Draining``; those that are being served go on."""
        self._refusing = True

    def end_streams(self) -> None:
        """End every open call that streams its answer as ``Draining``, so that its client goes elsewhere."""
        self._refusing = True
        for task in self._streams:
            task.cancel()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or method.split("/")[1] in self._untouched:
            return handler  # None: no such method; gRPC itself answers UNIMPLEMENTED
        self._wrapped[method] = wrapped = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Handler) -> Handler:
        behaviour = _behaviour(method, handler)
        serve: Serve
        if handler.response_streaming:

            async def serve_stream(call: Call, request: Any) -> None:
                async with self._ending_with_us():
                    source = behaviour(_checked(handler, call, request), call.context)
                    if inspect.isawaitable(source):
                        await source
                        return
                    async with aclosing(source) as messages:
                        async for message in messages:
                            if call.on_answer is not None:
                                call.on_answer(message)
                            await call.context.write(message)

            serve = serve_stream
        else:

            async def serve_unary(call: Call, request: Any) -> Any:
                answer = await behaviour(_checked(handler, call, request), call.context)
                if call.on_answer is not None:
                    call.on_answer(answer)
                return answer

            serve = serve_unary
        staged = self._staged(serve)

        async def serve_call(request: Any, context: Context) -> Any:
            try:
                return await staged(self._call(method, context), request)
            except grpc.aio.AbortError as aborted:
                # gRPC keeps it with the call, which its traceback leads back to: a refusal would leave a hundred
                # objects to the cyclic collector, and many refusals pauses of a tenth of a second.
                del request, context
                aborted.__context__ = None
                raise aborted.with_traceback(None) from None

        return maker_like(handler)(
            serve_call,
            request_deserializer=_tolerant(handler.request_deserializer),
            response_serializer=handler.response_serializer,
        )

    def _call(self, method: str, context: Context) -> Call:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get(CORRELATION_KEY)
        correlation_id = given if isinstance(given, str) and _usable(given) else self._new_id()
        context.set_trailing_metadata(((CORRELATION_KEY, correlation_id),))
        call = Call(method, context, metadata, correlation_id)
        _CURRENT.set(call)
        return call

    def _staged(self, serve: Serve) -> Serve:
        """`serve` inside of all stages, the first one outermost. Put together once: it runs for every call."""

        async def admitted(call: Call, request: Any) -> Any:
            if self._refusing:
                raise Draining
            return await serve(call, request)

        inner: Serve = admitted
        for stage in reversed(self._stages):
            inner = _within(stage, inner)
        return inner

    @asynccontextmanager
    async def _ending_with_us(self) -> AsyncIterator[None]:
        """Around a streamed answer: a cancellation that is ours, and not the client's, is said to be so."""
        task = asyncio.current_task()
        assert task is not None
        self._streams.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if self._refusing and task.cancelling():
                task.uncancel()
                raise Draining from None
            raise
        finally:
            self._streams.discard(task)


def _within(stage: Stage, inner: Serve) -> Serve:
    async def serve(call: Call, request: Any) -> Any:
        async with stage(call):
            return await inner(call, request)
        raise AssertionError("a stage swallowed an error")

    return serve


def _not_served(_servicer: object, _request: Any, _context: Any) -> Any:
    raise AssertionError("replaced when the handler is wrapped")


not_served: Any = _not_served
"""A servicer's method for an RPC that comes later: ``MoveFile = not_served``. Answered with ``ServedLater``."""


def is_served(behaviour: Callable[..., Any]) -> bool:
    """Whether a servicer's method is one of ours: ``not_served`` and generated stand-ins are plain functions."""
    return inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)


def behaviour_of(handler: Handler) -> Callable[[Any, Any], Any] | None:
    """The servicer's method in a handler, whatever its arity."""
    found: Callable[[Any, Any], Any] | None = (
        handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    )
    return found


def _behaviour(method: str, handler: Handler) -> Callable[[Any, Context], Any]:
    behaviour = behaviour_of(handler)
    assert behaviour is not None, method
    if is_served(behaviour):
        return behaviour

    async def served_later(_request: Any, _context: Context) -> None:
        raise ServedLater(rpc=method.removeprefix("/"))

    return served_later


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Stands where a request message should be. Raised over by gRPC it would be an unknown failure, and ours."""


_UNDECODABLE = _Undecodable()


def _tolerant(decode: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if decode is None:
        return None
    decoder = decode

    def decoded(data: bytes) -> Any:
        try:
            return decoder(data)
        except DecodeError:
            return _UNDECODABLE

    return decoded


def _checked(handler: Handler, call: Call, request: Any) -> Any:
    if handler.request_streaming:
        return _checked_stream(call.on_request, request)
    _check(call.on_request, request)
    return request


async def _checked_stream(on_request: Callable[[Any], None] | None, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        _check(on_request, request)
        yield request


def _check(on_request: Callable[[Any], None] | None, request: Any) -> None:
    if request is _UNDECODABLE:
        raise InvalidArgument.of(
            "request", "cannot be decoded: it is cut off, no protobuf, or has text that is not UTF-8"
        )
    if on_request is not None:
        on_request(request)


def maker_like(handler: Handler) -> Callable[..., Handler]:
    """What makes a handler of the arity of ``handler``."""
    match (handler.request_streaming, handler.response_streaming):
        case (False, False):
            return grpc.unary_unary_rpc_method_handler
        case (False, True):
            return grpc.unary_stream_rpc_method_handler
        case (True, False):
            return grpc.stream_unary_rpc_method_handler
        case _:
            return grpc.stream_stream_rpc_method_handler


def _usable(correlation_id: str) -> bool:
    return (
        0 < len(correlation_id) <= CORRELATION_BYTES_MAX and correlation_id.isascii() and correlation_id.isprintable()
    )
