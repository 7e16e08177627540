"""uvicorn's HTTP/1.1 protocol with the limits that it lacks: a head that is too long or too slow, a body that is too
slow, answers that nobody reads, more connections than are allowed, and heads that servers read differently.

Owns what happens before a request is whole. Refuses to know what requests are for: the ASGI app does.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from relayfile.ingest.webhooks.express_turns import ExpressTurns
from relayfile.ingest.webhooks.http_answering import PromptCycle, ReadingWhenIdle, WholeAnswer
from relayfile.ingest.webhooks.http_head import AROUND_A_HEADER_BYTES, HEADERS_MAX, is_unambiguous

_RETRY_AFTER: Final = b"retry-after: 1\r\n"
_REASONS: Final = {
    400: "REQUEST_MALFORMED",
    408: "REQUEST_TOO_SLOW",
    429: "TOO_MANY_AHEAD",
    431: "HEADERS_TOO_LARGE",
    503: "TOO_MANY_CONNECTIONS",
}

AHEAD_REQUESTS_MAX: Final = 1024
"""Requests of one connection that may wait for the answer to the one before them; one read brings fewer webhooks."""

READ_FIRST_S: Final = 0.01
"""Between the end of an idle connection's time and its closing: any, so that the loop reads in between."""

REFUSED: Final = "relayfile.refused"
"""Set in the `state` of a request's scope when it was refused here, after the app had begun to read it."""

Refused = Callable[[int, str], None]
"""Told (status, reason) of each request that is refused here; status 0: of a connection."""


Reply = Callable[[bytes, bytes], None]
"""Sends an answer: its status line and headers, each with its line's end, and its body."""


class Express(Protocol):
    """Takes the requests that nothing is wrong with."""

    turns: ExpressTurns

    def take(self, url: bytes, headers: Sequence[tuple[bytes, bytes]], body: bytes, reply: Reply) -> bool:
        """Whether this POST is taken: ``reply`` is called once then, at once or later. Header names are in lower case.

        False: nothing happened, and the request goes the usual way, to the ASGI app.
        """
        ...


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """What one listener bears."""

    head_bytes_max: int
    request_timeout_s: float
    """For a request to arrive whole, and for answers to be read."""
    connections_max: int
    idle_grace_s: float = 0.0
    """While the listener stops: how long an idle connection is kept for one request more."""


class _HeadTooLarge(Exception):
    """Ends parsing."""


class _TooManyAhead(Exception):
    """Ends parsing."""


class _Ambiguous(Exception):
    """Ends parsing: another server may understand this head differently."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, limits: HttpLimits, refused: Refused, express: Express | None = None, **named: Any) -> None:
        super().__init__(**named)
        self._limits = limits
        self._refused = refused
        self._express = express
        self._pieces: list[bytes] | None = None
        """The body, so far, of a request that may yet go the short way."""
        self._whole_body: bytes | None = None
        """Of a request that waits for its turn to go the short way."""
        self._idle_since_s = 0.0
        self._idleness: asyncio.TimerHandle | None = None
        self._is_last = False
        """The listener stops: the next answer says that it is the last one of this connection."""
        self._head_bytes = 0
        self._unparsed_bytes = 0
        """Received since the head began that is not known to be whole."""
        self._is_arriving = False
        self._head_is_whole = False
        self._declined_bytes: int | None = None
        """Of the body of a request whose offer of another protocol was declined, what is still to come."""
        self._arrival: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        """Runs while the sender does not read its answers."""
        self._ending: int | None = None
        """The status with which the connection ends, when the requests before the refused one are answered."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = ReadingWhenIdle(transport, self.pipeline)
        if len(self.connections) > self._limits.connections_max:
            self._refuse(503)
        else:
            # A connection on which nothing arrives is as slow as one on which a request does.
            self._watch_arrival()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        if self._idleness is not None:
            self._idleness.cancel()
            self._idleness = None
        self.resume_writing()
        super().connection_lost(exc)
        # They refer to this object; it is freed now, and not when the cyclic collector comes.
        self.pipeline.clear()
        self._pieces = self._whole_body = None
        self.cycle = None  # type: ignore[assignment]  # as before the first request
        self.parser = None  # type: ignore[assignment]  # nothing is fed to it any more

    def shutdown(self) -> None:
        """End the connection with its next answer, which says so; without a request after the grace.

        To close an idle one at once, as uvicorn does, loses the request that is on its way: its sender learns nothing.
        """
        self._is_last = True
        self._have_turn()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is not None and not cycle.response_complete:
            cycle.keep_alive = False
            return
        if self._idleness is not None:
            self._idleness.cancel()
        self._idleness = self.loop.call_later(self._limits.idle_grace_s, self._close_unused)

    def data_received(self, data: bytes) -> None:
        self._have_turn()
        if self.transport.is_closing() or self._ending is not None:
            return
        if not self._head_is_whole:
            self._unparsed_bytes += len(data)
        if self._declined_bytes is not None:
            self._feed_declined(data)
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._decline(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(_status_of(error))
            return
        if self._pieces is not None:
            self._go_usual_way()
        if not self._head_is_whole and self._unparsed_bytes > self._limits.head_bytes_max:
            self._refuse(431)
        elif self._is_arriving and self._arrival is None:
            self._watch_arrival()

    def on_message_begin(self) -> None:
        self._have_turn()
        self._is_arriving = True
        self._head_is_whole = False
        self._head_bytes = 0
        if len(self.pipeline) >= AHEAD_REQUESTS_MAX:
            raise _TooManyAhead
        self.url = b""
        self.expect_100_continue = False
        self.headers = []

    def on_url(self, url: bytes) -> None:
        self._add_to_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add_to_head(len(name) + len(value) + AROUND_A_HEADER_BYTES)
        if self._head_is_whole:
            return  # of a trailer, which came after what it might change was decided: it counts, and says nothing
        if len(self.headers) >= HEADERS_MAX:
            raise _HeadTooLarge
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        version = self.parser.get_http_version()
        if not is_unambiguous(version, self.headers):
            raise _Ambiguous
        if self._express is not None and self._may_be_prompt(version):
            self._pieces = []
        else:
            self._begin_cycle()
        self._head_is_whole = True

    def on_body(self, body: bytes) -> None:
        if self._pieces is None:
            super().on_body(body)
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self._pieces is not None:
            self._arrived()
            self._head_is_whole = False
            self._await_turn(b"".join(self._pieces))
            return
        if self.parser.should_upgrade() and self._declined_bytes is None:
            return  # the parser takes the body for the other protocol; `_decline` reads it
        self._arrived()
        self._head_is_whole = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self._limits.request_timeout_s, self._give_up)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        super().resume_writing()

    def _may_be_prompt(self, version: str) -> bool:
        """Whether this request is a plain POST and the only one of its connection."""
        cycle: RequestResponseCycle | None = self.cycle
        parser = self.parser
        return (
            (cycle is None or cycle.response_complete)
            and parser.get_method() == b"POST"
            and parser.should_keep_alive()
            and not self.expect_100_continue
            and not self.flow.write_paused
            and not parser.should_upgrade()
            and version == "1.1"
        )

    def _await_turn(self, body: bytes) -> None:
        """The request is whole; nothing else of its connection is looked at before its turn comes."""
        assert self._express is not None
        turns = self._express.turns
        if turns.may_go():
            self._go_short_way(body)
        else:
            self._pieces, self._whole_body = None, body
            turns.wait(self.url, self._have_turn)

    def _have_turn(self) -> None:
        """Its turn came, or something else needs that it is over."""
        body, self._whole_body = self._whole_body, None
        if body is not None:
            self._pieces = [body]
            self._go_short_way(body)

    def _go_short_way(self, body: bytes) -> None:
        """The request is whole. Its place is taken first, because the answer may come at once."""
        assert self._express is not None
        cycle = PromptCycle(self, keep_alive=not self._is_last)
        before, self.cycle = self.cycle, cast(RequestResponseCycle, cycle)
        if self._express.take(self.url, self.headers, body, cycle.reply):
            self._pieces = None
            return
        self.cycle = before
        self._go_usual_way()
        super().on_message_complete()

    def _go_usual_way(self) -> None:
        """The request is not whole with the read that began it, or was not taken."""
        pieces, self._pieces = self._pieces or [], None
        self._begin_cycle()
        for piece in pieces:
            super().on_body(piece)

    def _begin_cycle(self) -> None:
        """What uvicorn does when a message begins, which most need not have done, and when its head is whole."""
        url, headers, expect_100_continue = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.headers, self.expect_100_continue = url, headers, expect_100_continue
        self.scope["headers"] = headers
        super().on_headers_complete()
        if self._is_last:
            self.cycle.keep_alive = False
        if self.scope["method"] == "POST":
            self.cycle.transport = cast(asyncio.Transport, WholeAnswer(self.transport))

    def on_response_complete(self) -> None:
        """As uvicorn's, with one timer for a connection's life: one for each answer costs as much as a signature."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        if self._ending is not None:
            self._end(self._ending)
            return
        self._idle_since_s = self.loop.time()
        if self._idleness is None:
            self._idleness = self.loop.call_later(self.timeout_keep_alive, self._close_when_idle)

    def _close_when_idle(self) -> None:
        self._idleness = None
        cycle: RequestResponseCycle | None = self.cycle
        if self.transport.is_closing():
            return
        left_s = float(self.timeout_keep_alive)
        if cycle is not None and self._has_no_request():
            left_s += self._idle_since_s - self.loop.time()
        if left_s > 0:
            self._idleness = self.loop.call_later(left_s, self._close_when_idle)
        else:
            self._close_unused()

    def _close_unused(self) -> None:
        """Nothing came for long enough, unless it lies unread: a loop that was held up runs timers before it reads."""
        self._idleness = self.loop.call_later(READ_FIRST_S, self._close_unless_used, self._idle_since_s)

    def _close_unless_used(self, idle_since_s: float) -> None:
        if self._has_no_request() and self._idle_since_s == idle_since_s:
            self._idleness = None
            self.transport.close()
        else:
            self._close_when_idle()  # while the listener stops, its answer ends the connection before that

    def _has_no_request(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        is_answered = cycle is None or cycle.response_complete
        return is_answered and not self._is_arriving and self._whole_body is None

    def _add_to_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self._limits.head_bytes_max:
            raise _HeadTooLarge

    def _decline(self, body: bytes) -> None:
        """Another protocol is offered (h2c by some clients, always): answer in this one, and end the connection.

        The parser stops at the head, so that the body is counted here.
        """
        headers = dict(self.headers)
        if b"transfer-encoding" in headers:
            self._refuse(400)
            return
        self.cycle.keep_alive = False
        self._declined_bytes = int(headers.get(b"content-length", b"0"))
        self._feed_declined(body)

    def _feed_declined(self, data: bytes) -> None:
        assert self._declined_bytes is not None
        if not self._is_arriving:
            return  # whatever follows the body
        body = data[: self._declined_bytes]
        self._declined_bytes -= len(body)
        self.on_body(body)
        if not self._declined_bytes:
            self.on_message_complete()

    def _watch_arrival(self) -> None:
        self._arrival = self.loop.call_later(self._limits.request_timeout_s, self._too_slow)

    def _arrived(self) -> None:
        self._is_arriving = False
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _too_slow(self) -> None:
        self._arrival = None
        if self.transport.is_closing():
            return
        if not self._is_arriving:
            self.transport.close()
        elif self.flow.read_paused:
            self._watch_arrival()  # it is not the sender who is slow
        else:
            self._refuse(408)

    def _give_up(self) -> None:
        self._unread = None
        self._refused(0, "ANSWERS_NOT_READ")
        self.transport.abort()

    def _refuse(self, status: int) -> None:
        """Answer and close, in this request's turn, unless an answer to it is on its way already."""
        self._have_turn()
        self._arrived()
        cycle: RequestResponseCycle | None = self.cycle
        is_its_own = self._head_is_whole and self._pieces is None
        if is_its_own and self.pipeline:
            self.pipeline.popleft()
            self._ending = status
        elif cycle is not None and not cycle.response_complete and not is_its_own:
            self._ending = status
        elif cycle is None or cycle.response_complete:
            self._end(status)
        else:
            started, cycle.disconnected = cycle.response_started, True
            if started:
                self.transport.close()
            else:
                cycle.scope["state"][REFUSED] = True
                self._end(status)
            cycle.message_event.set()

    def _end(self, status: int) -> None:
        reason = _REASONS[status]
        self._refused(status, reason)
        body = b'{"error":"%s"}' % reason.encode()
        retry = _RETRY_AFTER if status == 503 else b""
        self.transport.write(
            b"%scontent-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n%s"
            % (STATUS_LINE[status], len(body), retry, body)
        )
        self.transport.close()


def _status_of(error: httptools.HttpParserError) -> int:
    match error.__context__:
        case _HeadTooLarge():
            return 431
        case _TooManyAhead():
            return 429
        case _:
            return 400


def bounded_protocol(
    limits: HttpLimits, refused: Refused, express: Express | None = None
) -> Callable[..., asyncio.Protocol]:
    """What `serving.HttpListener` makes a connection's protocol with."""
    return partial(BoundedProtocol, limits, refused, express)
