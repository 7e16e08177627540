"""The short way of a webhook: the same answers and effects as the usual way, or the usual way itself."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from relayfile.errors import Draining, Overloaded, RelayfileError, StorageFailed, Unavailable
from tests.unit.ingest.front import Client, Front, Response, request_bytes, running_front, until
from tests.unit.ingest.webhooks.test_webhook import BODY, ENVELOPE, ENVELOPES, HOOK, github, standard


@asynccontextmanager
async def known_front(directory: Path, *, is_prompt: bool = True, keep_alive_s: float = 75) -> AsyncIterator[Front]:
    """A front whose workspaces are known; how often `accept` was called says what went the usual way."""
    async with running_front(directory, is_prompt=is_prompt, creates=True, keep_alive_s=keep_alive_s) as front:
        yield front


async def exchange(front: Front, *pieces: bytes) -> list[Response | None]:
    client = await Client.connect(front.address)
    try:
        for piece in pieces:
            client.send(piece)
            await asyncio.sleep(0.02)
        return [await client.response()]
    finally:
        await client.close()


def shown(response: Response | None) -> tuple[int, list[str], str]:
    """What must be the same, whichever way a request went."""
    assert response is not None
    return response.status, sorted(response.headers), json.loads(response.body).get("error", "")


REQUESTS = {
    "accepted": request_bytes(HOOK, BODY, github()),
    "generic": request_bytes(ENVELOPES, ENVELOPE, standard()),
    "with a correlation id": request_bytes(HOOK, BODY, github(x_correlation_id="corr-1")),
    "wrong signature": request_bytes(HOOK, BODY, github(secret="another")),
    "no signature": request_bytes(HOOK, BODY),
    "old timestamp": request_bytes(ENVELOPES, ENVELOPE, standard(at_s=1_000)),
    "not JSON": request_bytes(HOOK, b"{", github(b"{")),
    "empty": request_bytes(HOOK, b"", github(b"")),
    "no such provider": request_bytes(HOOK + "x", BODY, github()),
    "closes": request_bytes(HOOK, BODY, github(connection="close")),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_both_ways_answer_the_same(tmp_path: Path, name: str) -> None:
    outcomes = []
    for is_prompt in (True, False):
        async with known_front(tmp_path, is_prompt=is_prompt) as front:
            (response,) = await exchange(front, REQUESTS[name])
            envelopes = [
                (each.delivery_id, each.event_name, each.failure.reason, len(each.changes), len(each.traceparent))
                for each in front.intake.accepted
            ]
            refused = [entry.reason for entry in front.rejected.newest("", 1 << 62, 10)]
            counts = {
                sample.labels["status"]: sample.value
                for metric in front.registry.collect()
                for sample in metric.samples
                if sample.name == "relayfile_ingest_requests_total"
            }
            outcomes.append(
                (shown(response), envelopes, refused, {key: value for key, value in counts.items() if value})
            )
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (Draining(), 503),
        (Unavailable(what="spool"), 503),
        (StorageFailed(what="disk"), 503),
        (Overloaded(what="share", retry_after_s=3), 429),
    ],
)
async def test_what_the_intake_says_later_is_answered(tmp_path: Path, failure: RelayfileError, status: int) -> None:
    async with known_front(tmp_path) as front:
        front.intake.failure = failure
        (response,) = await exchange(front, REQUESTS["with a correlation id"])
        assert shown(response)[::2] == (status, failure.reason)
        assert response is not None
        assert int(response.headers["retry-after"]) >= 1
        assert json.loads(response.body)["correlation_id"] == "corr-1"
        assert front.intake.calls == 1, "offered once"
        (entry,) = front.rejected.newest("", 1 << 62, 10)
        assert (entry.reason, entry.http_status) == (failure.reason, status)


async def test_a_request_in_pieces_goes_the_usual_way(tmp_path: Path) -> None:
    data = REQUESTS["accepted"]
    for cut in (10, data.index(b"\r\n\r\n") + 4, len(data) - 3):
        async with known_front(tmp_path) as front:
            (response,) = await exchange(front, data[:cut], data[cut:])
            assert shown(response)[0] == 200
            assert len(front.intake.accepted) == 1


async def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async with known_front(tmp_path) as front:
        client = await Client.connect(front.address)
        names = [f"corr-{number}" for number in range(5)]
        client.send(b"".join(request_bytes(HOOK, BODY, github(x_correlation_id=name)) for name in names))
        answers = [await client.response() for _ in names]
        assert [answer.headers["x-correlation-id"] for answer in answers if answer is not None] == names
        client.send(REQUESTS["accepted"])
        assert shown(await client.response())[0] == 200
        await client.close()
        assert len(front.intake.accepted) == 6


async def test_a_sender_that_leaves_before_its_answer_harms_nobody(tmp_path: Path) -> None:
    async with known_front(tmp_path) as front:
        client = await Client.connect(front.address)
        client.send(REQUESTS["accepted"])
        await client.close()

        async def accepted() -> bool:
            return len(front.intake.accepted) == 1

        await until(accepted)
        (response,) = await exchange(front, REQUESTS["accepted"])
        assert shown(response)[0] == 200


@pytest.mark.parametrize("is_prompt", [True, False])
async def test_an_idle_connection_is_closed_and_one_in_use_is_not(tmp_path: Path, is_prompt: bool) -> None:
    async with known_front(tmp_path, is_prompt=is_prompt, keep_alive_s=0.2) as front:
        client = await Client.connect(front.address)
        for _ in range(4):
            client.send(REQUESTS["accepted"])
            assert shown(await client.response())[0] == 200
            await asyncio.sleep(0.1)
        assert await asyncio.wait_for(client.is_closed(), 5)
        await client.close()
