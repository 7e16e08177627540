"""What a client tries again, for how long, and with which token."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc import aio
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from relayfile.client import ClientLimits, FixedToken, TokenFile, trace_context
from relayfile.client.calls import Calls, Metadata
from relayfile.errors import (
    DeadlineExpired,
    FileNotFound,
    Overloaded,
    QuotaExceeded,
    RelayfileError,
    Unauthenticated,
    Unavailable,
)

QUICK = ClientLimits(call_timeout_s=0.5, retry_wait_first_s=0.001, retry_wait_max_s=0.01)


class Node:
    """Answers with what it was told to, in order; then for ever with its last."""

    def __init__(self, *answers: str | RelayfileError | aio.AioRpcError) -> None:
        self.answers = list(answers)
        self.seen: list[Metadata] = []
        self.timeouts: list[float | None] = []

    async def __call__(self, request: str, *, timeout: float | None, metadata: Metadata) -> str:  # noqa: ASYNC109 - a stub's
        self.seen.append(metadata)
        self.timeouts.append(timeout)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer + request


def calls(token: str = "", limits: ClientLimits = QUICK) -> Calls:
    return Calls(FixedToken(token), limits)


async def test_what_passes_is_tried_again_with_what_is_left_of_the_deadline() -> None:
    node = Node(Unavailable(what="node"), Overloaded(what="queue", retry_after_s=0.001), "answer to ")
    assert await calls("t").unary(node, "x") == "answer to x"
    assert node.seen == [(("authorization", "Bearer t"),)] * 3
    left = [timeout for timeout in node.timeouts if timeout is not None]
    assert left == sorted(left, reverse=True)
    assert left[0] <= QUICK.call_timeout_s


async def test_a_node_that_stops_while_it_answers_is_asked_again() -> None:
    given_up = aio.AioRpcError(grpc.StatusCode.CANCELLED, aio.Metadata(), aio.Metadata(), "CANCELLED")
    node = Node(given_up, "answer to ")
    assert await calls().unary(node, "x") == "answer to x"


@pytest.mark.parametrize("error", [FileNotFound(path="/a"), QuotaExceeded(what="files", limit=1)])
async def test_what_cannot_succeed_is_not_tried_again(error: RelayfileError) -> None:
    node = Node(error)
    with pytest.raises(type(error)):
        await calls().unary(node, "x")
    assert len(node.seen) == 1


async def test_it_gives_up_at_the_deadline_with_the_last_error() -> None:
    node = Node(Unavailable(what="node"))
    with pytest.raises((Unavailable, DeadlineExpired)):
        await calls().unary(node, "x", timeout_s=0.05)
    assert len(node.seen) > 1


async def test_a_refused_token_is_renewed_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    made = Calls(TokenFile(file), QUICK)
    node = Node("first ", Unauthenticated(why="expired"), "second ")
    assert await made.unary(node, "x") == "first x"
    file.write_text("new\n")
    assert await made.unary(node, "x") == "second x"
    assert [dict(each)["authorization"] for each in node.seen] == ["Bearer old", "Bearer old", "Bearer new"]
    refused = Node(Unauthenticated(why="expired"))
    with pytest.raises(Unauthenticated):
        await made.unary(refused, "x")
    assert len(refused.seen) == 2


class Stream:
    """Yields numbers from where it is opened; fails or goes silent where it is told to."""

    def __init__(self, start: int, *, fails_at: int = -1, silent_at: int = -1, last: int = 9) -> None:
        self.numbers = range(start, last + 1)
        self.fails_at, self.silent_at = fails_at, silent_at
        self.canceled = False

    async def __aiter__(self) -> AsyncIterator[int]:
        for number in self.numbers:
            if number == self.fails_at:
                raise Unavailable(what="stream")
            if number == self.silent_at:
                await asyncio.Event().wait()
            yield number

    def cancel(self) -> bool:
        self.canceled = True
        return True


async def followed(streams: list[Stream], *, silence_s: float = 0.02) -> list[int]:
    opened: list[Stream] = []

    def open_stream(_: Metadata) -> Stream:
        opened.append(streams[len(opened)])
        return opened[-1]

    found = [
        number async for number in calls().messages(open_stream, ended=lambda each: each == 9, silence_max_s=silence_s)
    ]
    assert all(stream.canceled for stream in opened), "whatever was opened is closed"
    assert len(opened) == len(streams)
    return found


async def test_a_stream_goes_on_where_it_was_cut_ended_early_or_went_silent() -> None:
    streams = [Stream(0, fails_at=3), Stream(3, fails_at=3), Stream(3, last=5), Stream(6, silent_at=7), Stream(7)]
    assert await followed(streams) == list(range(10))


async def test_an_error_that_does_not_pass_ends_a_stream() -> None:
    def open_stream(_: Metadata) -> Stream:
        raise FileNotFound(path="/a")

    with pytest.raises(FileNotFound):
        async for _ in calls().messages(open_stream, ended=lambda _: False):
            pass


async def test_leaving_a_stream_closes_it() -> None:
    stream = Stream(0)
    messages = calls().messages(lambda _: stream, ended=lambda _: False)
    assert await anext(messages) == 0
    await messages.aclose()
    assert stream.canceled


@contextmanager
def current_span(*, sampled: bool = True, state: str = "") -> Iterator[None]:
    """A program's own span, of which only the context matters here."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    span = NonRecordingSpan(SpanContext(0xAB, 0xCD, False, flags, TraceState.from_header([state] if state else [])))
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        otel_context.detach(token)


@pytest.mark.parametrize(("sampled", "flags"), [(True, "01"), (False, "00")])
async def test_a_call_says_which_span_it_belongs_to_also_when_that_is_not_recorded(sampled: bool, flags: str) -> None:
    node = Node(Unavailable(what="node"), "answer to ")
    with current_span(sampled=sampled):
        await calls("t").unary(node, "x")
    context = ("traceparent", f"00-{0xAB:032x}-{0xCD:016x}-{flags}")
    assert node.seen == [(("authorization", "Bearer t"), context)] * 2


async def test_what_vendors_added_to_the_trace_goes_along() -> None:
    node = Node("answer to ")
    with current_span(state="vendor=1,other=a:b"):
        await calls().unary(node, "x")
    assert dict(node.seen[0]) == {
        "traceparent": f"00-{0xAB:032x}-{0xCD:016x}-01",
        "tracestate": "vendor=1,other=a:b",
    }


async def test_a_stream_belongs_to_the_span_in_which_it_is_opened() -> None:
    opened: list[Metadata] = []

    def open_stream(metadata: Metadata) -> Stream:
        opened.append(metadata)
        return Stream(0)

    with current_span():
        assert [each async for each in calls().messages(open_stream, ended=lambda each: each == 9)] == list(range(10))
    assert [dict(each) for each in opened] == [{"traceparent": f"00-{0xAB:032x}-{0xCD:016x}-01"}]


async def test_without_a_span_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_context, "_W3C", None)  # who used it would fail
    node = Node("answer to ")
    await calls("t").unary(node, "x")
    assert node.seen == [(("authorization", "Bearer t"),)]
