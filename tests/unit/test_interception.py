"""Calls through the real server stack: statuses, correlation ids, cancellation, all four arities."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.message import DecodeError

from relayfile import errors
from relayfile.errors import FieldViolation, InvalidArgument
from relayfile.interception import CORRELATION_KEY, Call, CallInterceptor, current_call, patience_s
from relayfile.status import error_stage, from_rpc_error

Handler = Callable[[Any, Any], Any]


def method(handler: Handler, *, streams_in: bool = False, streams_out: bool = False) -> Any:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[streams_in, streams_out]
    return make(handler)


@asynccontextmanager
async def serving(methods: dict[str, Any], *stages: Any) -> AsyncIterator[Any]:
    """Raw-bytes methods behind the interceptor, on a free loopback port."""
    ids: Iterator[str] = iter(f"made-{n}" for n in range(1000))
    interceptor = CallInterceptor([error_stage, *stages], lambda: next(ids), frozenset({"t.Open"}))
    server = grpc.aio.server(interceptors=[interceptor], options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("t.T", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


async def failure(call: Awaitable[object]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def numbers(count: int) -> AsyncIterator[bytes]:
    for number in range(count):
        yield str(number).encode()


async def test_others_are_waited_for_so_that_the_answer_is_in_time() -> None:
    async def asks_others(_request: bytes, _context: object) -> bytes:
        return str(patience_s(10.0)).encode()

    async with serving({"Ask": method(asks_others)}) as channel:
        ask = channel.unary_unary("/t.T/Ask")
        # A second less than the caller waits. gRPC rounds deadlines up on the wire, by a hundredth and less.
        assert 0.0 < float(await ask(b"", timeout=5.0)) < 4.1
        assert float(await ask(b"", timeout=60.0)) == 10.0
        assert float(await ask(b"")) == 10.0
    assert patience_s(10.0) == 10.0, "nobody waits for this one"


async def test_all_four_arities_pass_through() -> None:
    async def unary(request: bytes, _context: object) -> bytes:
        return request + b"!"

    async def stream_out(request: bytes, _context: object) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield request

    async def stream_in(requests: AsyncIterator[bytes], _context: object) -> bytes:
        return b"".join([each async for each in requests])

    async def both(requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        async for each in requests:
            yield each * 2

    methods = {
        "U": method(unary),
        "O": method(stream_out, streams_out=True),
        "I": method(stream_in, streams_in=True),
        "B": method(both, streams_in=True, streams_out=True),
    }
    seen: list[bytes] = []

    @asynccontextmanager
    async def watching(call: Call) -> AsyncIterator[None]:
        call.on_request = seen.append
        yield

    async with serving(methods, watching) as channel:
        assert await channel.unary_unary("/t.T/U")(b"x") == b"x!"
        assert [each async for each in channel.unary_stream("/t.T/O")(b"y")] == [b"y"] * 3
        assert await channel.stream_unary("/t.T/I")(numbers(3)) == b"012"
        assert [each async for each in channel.stream_stream("/t.T/B")(numbers(2))] == [b"00", b"11"]
    assert seen == [b"x", b"y", b"0", b"1", b"2", b"0", b"1"]


ERRORS_THAT_RETURN = [
    errors.WorkspaceNotFound(workspace="acme"),
    errors.RevisionConflict(expected=3, current=9),
    errors.NotOwner(shard=7, epoch=3, address="127.0.0.1:7420"),
    errors.Overloaded(what="spool", retry_after_s=1.5),
    errors.CursorExpired(history_id="h", oldest=12),
    InvalidArgument([FieldViolation("path", "has an empty segment"), FieldViolation("size", "is negative")], total=30),
]


@pytest.mark.parametrize("error", ERRORS_THAT_RETURN, ids=lambda error: error.reason)
@pytest.mark.parametrize("streams_out", [False, True])
async def test_a_client_gets_the_error_that_the_handler_raised(error: errors.RelayfileError, streams_out: bool) -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        async with asyncio.TaskGroup():
            raise error

    async def stream(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        yield b"first"
        raise error

    methods = {"M": method(stream if streams_out else unary, streams_out=streams_out)}
    async with serving(methods) as channel:
        if streams_out:
            call = channel.unary_stream("/t.T/M")(b"")
            assert await call.read() == b"first"
            raised = await failure(call.read())
        else:
            raised = await failure(channel.unary_unary("/t.T/M")(b""))
    again = from_rpc_error(raised)
    assert type(again) is type(error)
    assert again.metadata() == error.metadata()
    assert str(again) == str(error)
    if isinstance(error, InvalidArgument):
        assert isinstance(again, InvalidArgument)
        assert (again.violations, again.total) == (error.violations, 30)


async def test_the_largest_status_still_reaches_the_client() -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        raise InvalidArgument([FieldViolation(f"changes[{n}].path", "日本" * 700) for n in range(100)])

    async with serving({"M": method(unary)}) as channel:
        again = from_rpc_error(await failure(channel.unary_unary("/t.T/M")(b"")))
    assert isinstance(again, InvalidArgument)
    assert again.total == 100


async def test_an_unknown_failure_is_hidden_and_can_be_found_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        raise KeyError("the secret of the house")

    async with serving({"M": method(unary)}) as channel:
        raised = await failure(channel.unary_unary("/t.T/M")(b"", metadata=((CORRELATION_KEY, "mine"),)))
    assert raised.code() is grpc.StatusCode.INTERNAL
    assert raised.details() == "internal error (correlation id mine)"
    assert "secret" not in repr(raised.trailing_metadata())
    assert any("the secret of the house" in str(record.exc_info) for record in caplog.records)


@pytest.mark.parametrize(
    ("given", "expected"), [("mine", "mine"), (None, "made-0"), ("", "made-0"), ("x" * 129, "made-0")]
)
async def test_the_correlation_id_is_kept_or_made_and_returned(given: str | None, expected: str) -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        return current_call().correlation_id.encode()

    async with serving({"M": method(unary)}) as channel:
        call = channel.unary_unary("/t.T/M")(b"", metadata=((CORRELATION_KEY, given),) if given is not None else ())
        assert await call == expected.encode()
        assert dict(await call.trailing_metadata())[CORRELATION_KEY] == expected


async def test_errors_return_the_correlation_id_too() -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        raise errors.Draining

    async with serving({"M": method(unary)}) as channel:
        raised = await failure(channel.unary_unary("/t.T/M")(b""))
    assert dict(raised.trailing_metadata())[CORRELATION_KEY] == "made-0"


async def test_a_method_that_no_servicer_implements_is_served_later() -> None:
    def generated_stand_in(_request: bytes, _context: object) -> bytes:
        raise NotImplementedError

    async with serving({"M": method(generated_stand_in), "S": method(generated_stand_in, streams_out=True)}) as channel:
        later = from_rpc_error(await failure(channel.unary_unary("/t.T/M")(b"")))
        stream = from_rpc_error(await failure(channel.unary_stream("/t.T/S")(b"").read()))
    assert isinstance(later, errors.ServedLater)
    assert later.rpc == "t.T/M"
    assert isinstance(stream, errors.ServedLater)


async def test_a_cancelled_stream_ends_its_generator_in_its_own_task() -> None:
    ended = asyncio.Event()
    tasks: list[asyncio.Task[None] | None] = []

    async def endless(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield b"x" * 100_000
        finally:
            tasks.append(asyncio.current_task())
            ended.set()

    async with serving({"M": method(endless, streams_out=True)}) as channel:
        call = channel.unary_stream("/t.T/M")(b"")
        await call.read()
        call.cancel()
        await asyncio.wait_for(ended.wait(), 5)
    assert tasks[0] is tasks[1]


async def test_a_stage_may_refuse_before_the_handler_runs() -> None:
    async def unary(_request: bytes, _context: object) -> bytes:
        raise AssertionError("reached")

    def refusing(_call: Call) -> AbstractAsyncContextManager[None]:
        raise errors.Unauthenticated(why="no token")

    async with serving({"M": method(unary)}, refusing) as channel:
        raised = await failure(channel.unary_unary("/t.T/M")(b""))
    assert raised.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    channel: Any
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        error = from_rpc_error(await failure(channel.unary_unary("/t.T/M")(b"")))
    assert isinstance(error, errors.Unavailable)


async def test_unknown_methods_and_foreign_statuses_become_peer_failures() -> None:
    async with serving({}) as channel:
        error = from_rpc_error(await failure(channel.unary_unary("/t.T/Nothing")(b"")))
    assert isinstance(error, errors.PeerFailed)
    assert error.code == "UNIMPLEMENTED"


@pytest.mark.parametrize("streams_out", [False, True])
@pytest.mark.parametrize("streams_in", [False, True])
async def test_a_message_that_cannot_be_decoded_is_its_senders_fault(*, streams_in: bool, streams_out: bool) -> None:
    """Not an unknown failure of ours: with code, reason and field, and no handler sees it."""
    seen: list[object] = []

    def decode(data: bytes) -> bytes:
        if data == b"broken":
            raise DecodeError("Wire format was corrupt")
        return data

    async def serve(request: Any, _context: object) -> bytes:
        seen.extend([each async for each in request] if streams_in else [request])
        return b"ok"

    async def stream(request: Any, context: object) -> AsyncIterator[bytes]:
        yield await serve(request, context)

    served = method(stream if streams_out else serve, streams_in=streams_in, streams_out=streams_out)
    served = served._replace(request_deserializer=decode)

    async def sent() -> AsyncIterator[bytes]:
        yield b"broken"

    async with serving({"M": served}) as channel:
        arity = ("stream_" if streams_in else "unary_") + ("stream" if streams_out else "unary")
        call = getattr(channel, arity)("/t.T/M")(sent() if streams_in else b"broken")
        error = await failure(call.read() if streams_out else call)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    refused = from_rpc_error(error)
    assert isinstance(refused, InvalidArgument)
    assert [each.field for each in refused.violations] == ["request"]
    assert seen == []
