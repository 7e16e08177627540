"""The short way and the usual way give one answer and the same envelopes for one request, whatever is wrong with it.

Without sockets: a request that is never answered is seen at once, and not by waiting for it.
"""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple
from unittest.mock import Mock, patch

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from relayfile.errors import Draining, Overloaded, Paused, RelayfileError, StorageFailed, Unavailable
from relayfile.ingest.status.rejected import Rejection
from relayfile.ingest.webhooks import express, webhook
from relayfile.ingest.webhooks.http_protocol import BoundedProtocol, HttpLimits
from relayfile.pinned_json import JsonValue
from relayfile.v1 import types_pb2
from tests.support.http_connection import Wire
from tests.support.provider_requests import SECRET, Signer, every_signer
from tests.unit.ingest.front import WORKSPACE, MadeFront, made_front, request_bytes

LIMITS: Final = HttpLimits(head_bytes_max=8_192, request_timeout_s=60.0, connections_max=10)
TRACE: Final = "a" * 32
BODY_BYTES_MAX: Final = 50_000
TURNS_MAX: Final = 300
"""Of the loop, until an answer."""
SIGNERS: Final = every_signer()
PROMPT: Final = next(at for at, each in enumerate(SIGNERS) if each.provider.name == "github")
"""A signer whose good requests go the short way."""
FAILURES: Final[Mapping[str, Exception | None]] = {
    "none": None,
    "draining": Draining(),
    "full": Unavailable(what="spool"),
    "share": Overloaded(what="share", retry_after_s=3),
    "paused": Paused(what=WORKSPACE),
    "disk": StorageFailed(what="disk"),
    "ours": RelayfileError(),
    "unexpected": ValueError("a bug"),
}
_ID: Final = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")


class Change(NamedTuple):
    """What is wrong with a request, or only unusual."""

    at: tuple[int, ...] = ()
    """Where in the document ``value`` is put (of each container the n-th member); empty: nowhere."""
    value: JsonValue = None
    cut: int = 0
    """Bytes that the body lacks at its end."""
    also: Mapping[str, str] = {}
    """Headers beside those of the provider, which they may replace."""
    without: int = -1
    """A header that is missing."""
    secret: str = SECRET
    late_s: int = 0
    packed: bool = False
    tail: str = ""
    """After the path."""
    failure: str = "none"
    """Of the intake."""


class Outcome(NamedTuple):
    """What must not depend on the way. Ids that are made by chance are one word."""

    status: str
    headers: list[str]
    body: str
    accepted: list[str]
    rejected: list[tuple[str, str, str, int, int, str]]
    counts: dict[tuple[str, str], float]
    is_open: bool


headers = st.dictionaries(
    st.sampled_from(["traceparent", "x-correlation-id", "content-type", "connection", "authorization"]),
    st.sampled_from(["", "close", "text/plain", "c-1", 'c"1', "Bearer x", f"00-{TRACE}-" + "b" * 16 + "-00",
                     f"00-{TRACE}-" + "b" * 16 + "-01", "a" * 200])
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8).map(str.strip),
    max_size=2,
)  # fmt: skip
changes = st.builds(
    Change,
    at=st.lists(st.integers(0, 30), max_size=5).map(tuple),
    value=st.none() | st.integers() | st.text(max_size=5) | st.just({}) | st.just([]) | st.just("é" * 9),
    cut=st.sampled_from([0, 0, 0, 1, 10, 100_000]),
    also=headers,
    without=st.sampled_from([-1, -1, -1, 0, 1, 2, 3]),
    secret=st.sampled_from([SECRET, SECRET, SECRET, "another"]),
    late_s=st.sampled_from([0, 0, 0, 299, 301, -301, 90_000]),
    packed=st.sampled_from([False, False, False, True]),
    tail=st.sampled_from(["", "", "", "/", "?a=b", "%2f", "x"]),
    failure=st.sampled_from(["none", "none", *FAILURES]),
)


@pytest.fixture(scope="module")
def fronts() -> Iterator[tuple[MadeFront, MadeFront]]:
    """One for each way; they share nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (webhook, express):
            monkeypatch.setattr(module, "_log", Mock())  # tracebacks by the dozen take longer than all else
        with _front() as short, _front() as usual:
            yield short, usual


@contextmanager
def _front() -> Iterator[MadeFront]:
    with TemporaryDirectory() as directory:
        folder = Path(directory) / "secrets" / WORKSPACE
        folder.mkdir(parents=True)
        for signer in SIGNERS:
            (folder / signer.provider.name).write_text(f"{SECRET}\n")
        yield made_front(Path(directory), body_bytes_max=BODY_BYTES_MAX, known=[WORKSPACE])


@settings(max_examples=150)
@given(which=st.integers(0, len(SIGNERS) - 1), change=changes)
@example(which=PROMPT, change=Change(failure="unexpected"))
@example(which=PROMPT, change=Change(failure="ours"))
def test_both_ways_lead_to_the_same(fronts: tuple[MadeFront, MadeFront], which: int, change: Change) -> None:
    signer = SIGNERS[which]
    data = _request(signer, change)
    with asyncio.Runner() as runner:
        outcomes = [
            runner.run(_outcome(front, signer, change, data, is_prompt=is_prompt))
            for front, is_prompt in zip(fronts, (True, False), strict=True)
        ]
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("signer", SIGNERS, ids=[each.name for each in SIGNERS])
def test_good_requests_go_the_short_way_where_there_is_one(fronts: tuple[MadeFront, MadeFront], signer: Signer) -> None:
    """What the property compares are two ways, not one."""
    front = fronts[0]
    with patch.object(front.intake, "offer", wraps=front.intake.offer) as offer, asyncio.Runner() as runner:
        outcome = runner.run(_outcome(front, signer, Change(), _request(signer, Change()), is_prompt=True))
    assert outcome.status == "HTTP/1.1 200 OK"
    has_short_way = signer.provider.definition.delivery.items is None and not {"url", "method"} & set(
        signer.scheme.signed
    )
    assert offer.called is has_short_way


def _request(signer: Signer, change: Change) -> bytes:
    body = json.dumps(_put(signer.document, change.at, change.value)).encode()
    body = body[: max(0, len(body) - change.cut)]
    if change.packed:
        body = gzip.compress(body, mtime=0)
    path = f"/v1/workspaces/{WORKSPACE}/webhooks/{signer.provider.name}{change.tail}"
    head = signer.signed(body, f"https://test{path}", secret=change.secret)
    names = sorted(head)
    if 0 <= change.without < len(names):
        del head[names[change.without]]
    if change.packed:
        head["content-encoding"] = "gzip"
    return request_bytes(path, body, {**head, **change.also})


def _put(document: JsonValue, at: tuple[int, ...], value: JsonValue) -> JsonValue:
    if not at:
        return document
    if isinstance(document, dict) and document:
        key = list(document)[at[0] % len(document)]
        return {**document, key: _put(document[key], at[1:], value) if at[1:] else value}
    if isinstance(document, list) and document:
        place = at[0] % len(document)
        return [*document[:place], _put(document[place], at[1:], value) if at[1:] else value, *document[place + 1 :]]
    return value


async def _outcome(front: MadeFront, signer: Signer, change: Change, data: bytes, *, is_prompt: bool) -> Outcome:
    front.clock.set_now_us((signer.now_s + change.late_s) * 1_000_000)
    front.intake.accepted.clear()
    front.intake.failure = FAILURES[change.failure]
    refused_before = front.rejected.newest("", 0, 1)
    before = _counts(front)
    wire = Wire()
    config: Any = uvicorn.Config(
        front.app, http="httptools", ws="none", lifespan="off", interface="asgi3", log_config=None, access_log=False
    )
    config.load()
    protocol = BoundedProtocol(
        LIMITS,
        front.refused,
        front.express if is_prompt else None,
        config=config,
        server_state=ServerState(),
        app_state={},
    )
    protocol.connection_made(wire)
    protocol.data_received(data)
    for _ in range(TURNS_MAX):
        if wire.is_over or (wire.written and protocol.cycle.response_complete):
            break
        await asyncio.sleep(0)
    assert wire.written, "never answered"
    assert wire.is_over or protocol.cycle.response_complete, "the answer never ended"
    is_open = not wire.is_over
    protocol.connection_lost(None)
    await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
    counts = {key: value - before.get(key, 0) for key, value in _counts(front).items()}
    after = refused_before[0].number if refused_before else 0
    return Outcome(
        *_answer(wire.written),
        [_shown(each) for each in front.intake.accepted],
        [_refused(each) for each in front.rejected.newest("", 0, 100) if each.number > after],
        {key: count for key, count in counts.items() if count},
        is_open,
    )


def _answer(written: bytes) -> tuple[str, list[str], str]:
    head, _, body = _ID.sub("ID", written.decode("latin-1")).partition("\r\n\r\n")
    status, *headers = head.split("\r\n")
    return status, sorted(headers), body


def _refused(each: Rejection) -> tuple[str, str, str, int, int, str]:
    correlation_id = _ID.sub("ID", each.correlation_id)
    return each.workspace, each.provider, each.reason, each.http_status, each.body_bytes, correlation_id


def _shown(accepted: types_pb2.Envelope) -> str:
    """All of an envelope but what is made by chance, or says when it came."""
    envelope = types_pb2.Envelope()
    envelope.CopyFrom(accepted)
    envelope.ClearField("received_at")
    trace, span, flags = envelope.traceparent.split("-")[1:]
    envelope.traceparent = f"{trace if trace == TRACE else 'its own'} {len(trace)} {len(span)} {flags}"
    return _ID.sub("ID", str(envelope))


def _counts(front: MadeFront) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["provider"], sample.labels["status"]): sample.value
        for metric in front.registry.collect()
        for sample in metric.samples
        if sample.name == "relayfile_ingest_requests_total"
    }
