"""The public HTTP port, over real sockets: each refusal with its exact status, and what it leaves behind."""

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest

from relayfile.errors import Draining, Overloaded, StorageFailed, Unavailable
from relayfile.ingest.providers.registry import ProviderRegistry
from relayfile.ingest.webhooks.http_answering import WholeAnswer
from relayfile.ingest.webhooks.signature import SignedRequest, sign
from tests.unit.ingest.front import NOW_US, WORKSPACE, Client, Front, Response, ask, request_bytes, running_front, until

HOOK = f"/v1/workspaces/{WORKSPACE}/webhooks/github"
SCOPES = ("relayfile:sync:trigger",)
ENVELOPES = f"/v1/workspaces/{WORKSPACE}/envelopes"
PROVIDERS = ProviderRegistry.load(1000)
LABEL = {
    "action": "created",
    "label": {"id": 7, "name": "bug"},
    "repository": {"id": 1, "name": "r", "owner": {"login": "o"}},
}
BODY = json.dumps(LABEL).encode()
ENVELOPE = json.dumps({"provider": "crm", "changes": [{"path": "/crm/1.json", "content": {"a": 1}}]}).encode()


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with running_front(tmp_path) as running:
        yield running


def github(body: bytes = BODY, secret: str = "new secret", **more: str) -> dict[str, str]:
    scheme = PROVIDERS["github"].scheme
    assert scheme is not None
    return {
        "x-github-event": "label",
        "x-github-delivery": "d-1",
        "content-type": "application/json",
        "x-hub-signature-256": sign(scheme, SignedRequest({}, body), secret),
    } | {name.replace("_", "-"): value for name, value in more.items()}


def standard(body: bytes = ENVELOPE, secret: str = "whsec_c2VjcmV0", at_s: int = NOW_US // 1_000_000) -> dict[str, str]:
    scheme = PROVIDERS["generic"].scheme
    assert scheme is not None
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(at_s)}
    return headers | {"webhook-signature": sign(scheme, SignedRequest(headers, body), secret, str(at_s))}


def refusal(response: Response) -> tuple[int, str]:
    return response.status, json.loads(response.body)["error"]


async def test_a_signed_webhook_is_accepted(front: Front) -> None:
    response = await ask(front.address, request_bytes(HOOK, BODY, github()))
    (envelope,) = front.intake.accepted
    assert response.status == 200
    assert json.loads(response.body) == {"envelope_id": envelope.envelope_id}
    assert response.headers["x-correlation-id"] == envelope.correlation_id == envelope.envelope_id
    assert (envelope.workspace_id, envelope.provider, envelope.delivery_id) == (WORKSPACE, "github", "d-1")
    assert (envelope.event_name, envelope.adapter_version) == ("label.created", "github/1")
    assert envelope.received_at.seconds == NOW_US // 1_000_000
    assert envelope.changes[0].path == "/github/repos/o/r/labels/7.json"
    assert len(envelope.traceparent) == 55
    assert not envelope.HasField("raw")
    assert front.store.learned == [WORKSPACE]
    assert front.registry.get_sample_value(
        "relayfile_ingest_requests_total", {"provider": "github", "status": "200"}
    ) == 1  # fmt: skip


async def test_what_the_sender_says_travels(front: Front) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    headers = github(x_correlation_id="corr-1", traceparent=trace)
    response = await ask(front.address, request_bytes(HOOK, BODY, headers))
    assert response.headers["x-correlation-id"] == front.intake.accepted[0].correlation_id == "corr-1"
    assert front.intake.accepted[0].traceparent == trace


async def test_receive_times_do_not_go_back_with_the_clock(front: Front) -> None:
    """Else every later change without a provider's time were stale until the clock is where it was."""
    assert (await ask(front.address, request_bytes(HOOK, BODY, github()))).status == 200
    front.clock.set_now_us(NOW_US - 3_600_000_000)
    headers = standard(at_s=NOW_US // 1_000_000 - 3_600)  # judged by the machine's clock as it is
    assert (await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, headers))).status == 200
    first, second = front.intake.accepted
    assert second.received_at.ToMicroseconds() == first.received_at.ToMicroseconds() == NOW_US


async def test_an_older_secret_is_still_good(front: Front) -> None:
    assert (await ask(front.address, request_bytes(HOOK, BODY, github(secret="old secret")))).status == 200


async def test_a_generic_envelope(front: Front) -> None:
    assert (await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, standard()))).status == 200
    (envelope,) = front.intake.accepted
    assert (envelope.provider, envelope.delivery_id, envelope.changes[0].path) == ("crm", "msg_1", "/crm/1.json")


async def test_a_token_stands_in_for_the_signature(front: Front) -> None:
    good = {"authorization": f"Bearer {front.signer.mint('s', workspaces=WORKSPACE, ttl_s=60, scopes=SCOPES)}"}
    foreign = {"authorization": f"Bearer {front.signer.mint('s', workspaces='other', ttl_s=60, scopes=SCOPES)}"}
    other = front.signer.mint("s", workspaces=WORKSPACE, ttl_s=60, scopes=("relayfile:sync:read", "fs:write"))
    unfit = {"authorization": f"Bearer {other}"}
    assert (await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, good))).status == 200
    assert refusal(await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, foreign))) == (403, "PERMISSION_DENIED")
    assert refusal(await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, unfit))) == (403, "PERMISSION_DENIED")
    bad = {"authorization": "Bearer x.y.z"}
    assert refusal(await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, bad))) == (401, "UNAUTHENTICATED")
    assert refusal(await ask(front.address, request_bytes(HOOK, BODY, good))) == (401, "UNAUTHENTICATED")
    front.clock.advance(61)
    assert refusal(await ask(front.address, request_bytes(ENVELOPES, ENVELOPE, good))) == (401, "UNAUTHENTICATED")
    assert len(front.intake.accepted) == 1


REFUSED: list[tuple[str, bytes, dict[str, str], int, str]] = [
    (HOOK, BODY, github(secret="wrong"), 401, "SIGNATURE_MISMATCH"),
    (HOOK, BODY + b" ", github(), 401, "SIGNATURE_MISMATCH"),
    (HOOK, BODY, {}, 401, "SIGNATURE_MISSING"),
    (HOOK, BODY, {"x-hub-signature-256": "sha256=zz"}, 401, "SIGNATURE_MALFORMED"),
    (ENVELOPES, ENVELOPE, standard(at_s=NOW_US // 1_000_000 - 301), 401, "TIMESTAMP_STALE"),
    (ENVELOPES, ENVELOPE, standard(at_s=NOW_US // 1_000_000 + 301), 401, "TIMESTAMP_STALE"),
    (ENVELOPES, ENVELOPE, standard() | {"webhook-timestamp": "x"}, 401, "TIMESTAMP_MALFORMED"),
    (ENVELOPES, ENVELOPE, {}, 401, "SIGNATURE_MISSING"),
    ("/v1/workspaces/quiet/webhooks/github", BODY, github(), 401, "SECRET_MISSING"),
    ("/v1/workspaces/nobody/webhooks/github", BODY, github(), 404, "WORKSPACE_NOT_FOUND"),
    ("/v1/workspaces/unborn/webhooks/github", BODY, github(secret="secret"), 404, "WORKSPACE_NOT_FOUND"),
    ("/v1/workspaces/unborn/webhooks/github", BODY, github(secret="wrong"), 401, "SIGNATURE_MISMATCH"),
    ("/v1/workspaces/../webhooks/github", BODY, github(), 404, "WORKSPACE_NOT_FOUND"),
    ("/v1/workspaces/a%2Fb/webhooks/github", BODY, github(), 404, "NOT_FOUND"),
    (f"/v1/workspaces/{WORKSPACE}/webhooks/nobody", BODY, github(), 404, "PROVIDER_NOT_FOUND"),
    ("/v1/apps/a/webhooks", BODY, github(), 404, "APP_NOT_FOUND"),
    ("/", b"", {}, 404, "NOT_FOUND"),
    (HOOK, b"x" * 100_001, {}, 413, "TOO_LARGE"),
    (HOOK, BODY, github(content_encoding="br"), 415, "CONTENT_ENCODING_UNSUPPORTED"),
    (HOOK, BODY, github(content_encoding="gzip"), 400, "CONTENT_ENCODING_MALFORMED"),
]


async def test_what_is_refused(front: Front) -> None:
    found = []
    for path, body, headers, status, _ in REFUSED:
        response = await ask(front.address, request_bytes(path, body, headers))
        (logged,) = front.rejected.newest("", 0, 1)
        told = json.loads(response.body)["error"]
        assert told == ("UNAUTHENTICATED" if status == 401 else logged.reason)
        assert (logged.http_status, logged.time_us) == (response.status, NOW_US)
        assert "secret" not in str(logged)
        found.append((path, body, headers, response.status, logged.reason))
    assert found == REFUSED
    assert front.intake.calls == 0


async def test_only_post(front: Front) -> None:
    for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
        client = await Client.connect(front.address)
        client.send(request_bytes(HOOK, method=method))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b" 405 " in head
        assert b"allow: POST" in head
        await client.close()


NOT_NORMALISED: list[tuple[bytes, str]] = [
    (b'{"action": "created"', "MALFORMED_JSON"),
    (b"", "MALFORMED_JSON"),
    (b'{"a": "\xff"}', "MALFORMED_JSON"),
    (b"[" * 50_000, "MALFORMED_JSON"),
    (b"[]", "UNEXPECTED_SHAPE"),
    (b"{}", "UNEXPECTED_SHAPE"),
    (json.dumps(LABEL | {"label": {"id": 7, "x": "x" * 60_000}}).encode(), "TOO_LARGE"),
]


async def test_what_cannot_be_normalised_is_stored_with_its_reason(front: Front) -> None:
    for body, reason in NOT_NORMALISED:
        response = await ask(front.address, request_bytes(HOOK, body, github(body, cookie="c")))
        envelope = front.intake.accepted.pop()
        assert response.status == 200
        assert (envelope.failure.reason, envelope.raw.body, list(envelope.changes)) == (reason, body, [])
        assert envelope.delivery_id == "d-1"
        assert dict(envelope.raw.headers) == {
            "x-github-event": "label",
            "x-github-delivery": "d-1",
            "content-type": "application/json",
        }


async def test_a_generic_envelope_that_is_none_is_stored_with_its_reason(front: Front) -> None:
    body = json.dumps({"provider": "crm", "changes": [{"path": "/a/../b"}]}).encode()
    assert (await ask(front.address, request_bytes(ENVELOPES, body, standard(body)))).status == 200
    (envelope,) = front.intake.accepted
    assert (envelope.provider, envelope.failure.reason) == ("generic", "INVALID_ENVELOPE")
    assert "changes[0].path" in envelope.failure.message


async def test_duplicate_keys_the_last_counts(front: Front) -> None:
    body = BODY[:-1] + b', "label": {"id": 8}}'
    assert (await ask(front.address, request_bytes(HOOK, body, github(body)))).status == 200
    assert front.intake.accepted[0].changes[0].provider_object_id == "label/8"


async def test_an_ignored_event_is_accepted(front: Front) -> None:
    headers = github() | {"x-github-event": "of_the_future"}
    assert (await ask(front.address, request_bytes(HOOK, BODY, headers))).status == 200
    (envelope,) = front.intake.accepted
    assert (list(envelope.changes), envelope.HasField("failure"), envelope.event_name) == (
        [],
        False,
        "of_the_future.created",
    )


async def test_compressed_bodies(front: Front) -> None:
    forms = {"gzip": gzip.compress(BODY), "deflate": zlib.compress(BODY), "x-gzip": gzip.compress(BODY)}
    for encoding, body in [*forms.items(), ("deflate", forms["deflate"][2:-4])]:
        for signed in (body, BODY):
            headers = github(signed, content_encoding=encoding)
            assert (await ask(front.address, request_bytes(HOOK, body, headers))).status == 200
            assert front.intake.accepted.pop().changes[0].provider_object_id == "label/7"


async def test_a_compressed_bomb_is_refused(front: Front) -> None:
    bomb = gzip.compress(b" " * 5_000_000)
    response = await ask(front.address, request_bytes(HOOK, bomb, github(bomb, content_encoding="gzip")))
    assert refusal(response) == (413, "TOO_LARGE")


def chunked(path: str, headers: dict[str, str]) -> bytes:
    return request_bytes(path, headers={**headers, "transfer-encoding": "chunked"}, length=False)


async def test_a_chunked_body(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(chunked(HOOK, github()))
    for part in (BODY[:10], BODY[10:], b""):
        client.send(b"%x\r\n%s\r\n" % (len(part), part))
        await asyncio.sleep(0)
    response = await client.response()
    assert response is not None
    assert response.status == 200
    await client.close()


async def test_a_chunked_body_over_the_cap_is_refused_while_it_arrives(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(chunked(HOOK, github()))
    part = b"x" * 60_000
    client.send(b"%x\r\n%s\r\n" % (len(part), part) * 2)
    response = await client.response()
    assert response is not None
    assert refusal(response) == (413, "TOO_LARGE")
    assert await client.is_closed()
    await client.close()


async def test_an_announced_length_over_the_cap_is_refused_unread(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(request_bytes(HOOK, headers={"content-length": "100001"}, length=False))
    response = await client.response()
    assert response is not None
    assert refusal(response) == (413, "TOO_LARGE")
    assert front.rejected.newest("", 0, 1)[0].body_bytes == 0
    await client.close()


async def test_expectations_are_met_only_for_what_is_wanted(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(
        request_bytes(
            HOOK, headers=github() | {"expect": "100-continue", "content-length": str(len(BODY))}, length=False
        )
    )
    assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(BODY)
    response = await client.response()
    assert response is not None
    assert response.status == 200
    client.send(request_bytes(HOOK, headers={"expect": "100-continue", "content-length": "100001"}, length=False))
    response = await client.response()
    assert response is not None
    assert response.status == 413
    await client.close()


OUR_TROUBLE: list[tuple[Exception, int, str, str]] = [
    (Overloaded(what="share of the spool", retry_after_s=1.5), 429, "OVERLOADED", "2"),
    (Unavailable(what="spool"), 503, "UNAVAILABLE", "1"),
    (Draining(), 503, "DRAINING", "1"),
    (StorageFailed(what="fsync"), 503, "STORAGE_FAILED", "1"),
]


async def test_our_trouble_is_never_blamed_on_the_sender(front: Front) -> None:
    for failure, status, reason, retry_after in OUR_TROUBLE:
        front.intake.failure = failure
        response = await ask(front.address, request_bytes(HOOK, BODY, github()))
        assert refusal(response) == (status, reason)
        assert response.headers["retry-after"] == retry_after


async def test_a_defect_of_ours_is_a_500_with_an_id(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    front.intake.failure = RuntimeError("a secret detail")
    response = await ask(front.address, request_bytes(HOOK, BODY, github(x_correlation_id="corr-9")))
    assert refusal(response) == (500, "INTERNAL")
    assert b"detail" not in response.body
    assert json.loads(response.body)["correlation_id"] == "corr-9"
    nameless = await ask(front.address, request_bytes(HOOK, BODY, github()))
    assert json.loads(nameless.body)["correlation_id"]


async def test_a_refusal_of_a_sender_who_gave_no_id_shows_none(front: Front) -> None:
    response = await ask(front.address, request_bytes(HOOK, BODY, github(secret="wrong")))
    assert json.loads(response.body) == {"error": "UNAUTHENTICATED"}


async def test_with_the_store_away_a_known_secret_is_enough(front: Front) -> None:
    front.store.away = Unavailable(what="node")
    quiet = request_bytes("/v1/workspaces/quiet/webhooks/github", BODY, github())
    assert refusal(await ask(front.address, quiet)) == (503, "UNAVAILABLE")
    assert (await ask(front.address, request_bytes(HOOK, BODY, github()))).status == 200
    assert front.store.learned == []


async def test_a_known_workspace_is_not_asked_for_again(front: Front) -> None:
    for _ in range(3):
        await ask(front.address, request_bytes(HOOK, BODY, github()))
        await ask(front.address, request_bytes("/v1/workspaces/nobody/webhooks/github", BODY, github()))
    assert front.store.asked == [WORKSPACE, "nobody"]
    front.clock.advance(2)
    front.store.existing.add("nobody")
    response = await ask(front.address, request_bytes("/v1/workspaces/nobody/webhooks/github", BODY, github()))
    assert response.status == 401


async def test_the_first_delivery_may_create_a_workspace(tmp_path: Path) -> None:
    async with running_front(tmp_path, creates=True) as front:
        path = "/v1/workspaces/unborn/webhooks/github"
        assert (await ask(front.address, request_bytes(path, BODY, github(secret="secret")))).status == 200
        assert front.store.asked == []


async def test_secrets_of_the_directory_are_read_again(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "secrets" / WORKSPACE / "github"
    request = request_bytes(HOOK, BODY, github(secret="rotated"))
    assert (await ask(front.address, request)).status == 401
    path.parent.mkdir(parents=True)
    path.write_text("rotated\nnew secret\n")
    front.clock.advance(1.1)
    assert (await ask(front.address, request)).status == 200
    path.write_text("another\n")
    front.clock.advance(1.1)
    assert (await ask(front.address, request)).status == 401


async def test_a_connection_is_kept(front: Front) -> None:
    client = await Client.connect(front.address)
    for path, status in ((HOOK, 200), ("/nothing", 404), (HOOK, 200)):
        client.send(request_bytes(path, BODY if status == 200 else b"", github()))
        response = await client.response()
        assert response is not None
        assert response.status == status
    client.send(request_bytes(HOOK, BODY, github()) * 2)
    assert [await client.response() is not None for _ in range(2)] == [True, True]
    await client.close()


NO_REQUESTS: list[tuple[bytes, int, str]] = [
    (b"nonsense\r\n\r\n", 400, "REQUEST_MALFORMED"),
    (b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400, "REQUEST_MALFORMED"),
    (b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", 400, "REQUEST_MALFORMED"),
    (b"POST / HTTP/1.1\r\nhost: x\r\nbad header\r\n\r\n", 400, "REQUEST_MALFORMED"),
    (request_bytes(HOOK, BODY, {"x-long": "x" * 9_000}), 431, "HEADERS_TOO_LARGE"),
    (request_bytes("/" + "x" * 9_000), 431, "HEADERS_TOO_LARGE"),
    (b"POST / HTTP/1.1\r\nx: " + b"x" * 300_000, 431, "HEADERS_TOO_LARGE"),
]


async def test_what_is_no_request_of_ours(front: Front) -> None:
    for data, status, reason in NO_REQUESTS:
        assert refusal(await ask(front.address, data)) == (status, reason)
    assert front.rejected.totals() == {"REQUEST_MALFORMED": 4, "HEADERS_TOO_LARGE": 3}


@pytest.mark.parametrize(
    "data",
    [b"POST / HTTP/1.1\r\nhost", request_bytes(HOOK, BODY, github())[:-1], chunked(HOOK, github()) + b"5\r\nab"],
)
async def test_a_slow_sender_is_sent_away(tmp_path: Path, data: bytes) -> None:
    async with running_front(tmp_path, request_timeout_s=0.1) as front:
        client = await Client.connect(front.address)
        client.send(data)
        response = await client.response()
        assert response is not None
        assert refusal(response) == (408, "REQUEST_TOO_SLOW")
        assert await client.is_closed()
        await client.close()
        assert front.intake.calls == 0


async def test_a_silent_connection_is_closed(tmp_path: Path) -> None:
    async with running_front(tmp_path, request_timeout_s=0.1) as front:
        client = await Client.connect(front.address)
        assert await client.response() is None
        await client.close()


async def test_a_sender_that_goes_away_leaves_nothing(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(request_bytes(HOOK, BODY, github())[:-5])
    await client.writer.drain()
    await client.close()

    async def is_logged() -> bool:
        return bool(front.rejected.totals())

    await until(is_logged)
    assert front.rejected.totals() == {"DISCONNECTED": 1}
    assert front.intake.calls == 0


async def test_connections_are_limited(tmp_path: Path) -> None:
    async with running_front(tmp_path, connections_max=1) as front:
        first = await Client.connect(front.address)
        first.send(request_bytes(HOOK, BODY, github()))
        assert await first.response() is not None
        second = await Client.connect(front.address)
        response = await second.response()
        assert response is not None
        assert refusal(response) == (503, "TOO_MANY_CONNECTIONS")
        assert "retry-after" in response.headers
        await first.close()
        await second.close()


async def test_no_more_is_read_than_is_answered(front: Front) -> None:
    """A sender that never waits is slowed down, and its requests do not pile up."""
    client = await Client.connect(front.address)
    for _ in range(30):
        client.send(request_bytes(HOOK, BODY, github()) * 100)
    for _ in range(3_000):
        response = await client.response()
        assert response is not None
        assert response.status == 200
    await client.close()


def test_an_answer_on_a_closed_connection_is_dropped() -> None:
    transport = Mock()
    answer = WholeAnswer(transport)
    answer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    transport.is_closing.return_value = True
    answer.write(b"{}")
    assert not transport.write.called


async def test_more_requests_than_can_wait_end_the_connection(front: Front) -> None:
    client = await Client.connect(front.address)
    client.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5_000)
    answers = [response async for response in client.responses()]
    assert {refusal(response) for response in answers[:-1]} == {(404, "NOT_FOUND")}
    assert refusal(answers[-1]) == (429, "TOO_MANY_AHEAD")
    assert len(answers) > 1_024, "what came before is answered"
    await client.close()


async def test_the_bodies_of_all_requests_have_one_limit(tmp_path: Path) -> None:
    async with running_front(tmp_path, bodies_bytes_max=1_000) as front:
        waiting = await Client.connect(front.address)
        waiting.send(request_bytes(HOOK, b"x" * 900, github())[:-1])
        await waiting.writer.drain()

        async def is_answered(status: int) -> bool:
            return (await ask(front.address, request_bytes(HOOK, BODY, github()))).status == status

        await until(partial(is_answered, 503))
        await waiting.close()
        await until(partial(is_answered, 200))


async def test_an_offer_of_another_protocol_is_declined(front: Front) -> None:
    headers = github() | {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABkAAQ"}
    assert (await ask(front.address, request_bytes(HOOK, BODY, headers))).status == 200
