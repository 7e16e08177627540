"""The ingest process as a whole, in this process: ports, a signed webhook, draining, exit codes."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc.aio
import pytest

from relayfile.auth import KeyStore, TokenSigner
from relayfile.clock import SystemClock
from relayfile.errors import SettingError, StartRefused
from relayfile.ingest.app import run
from relayfile.ingest.spool.spool_file import SpoolReader
from relayfile.lifecycle import EXIT_NOT_EMPTY, EXIT_OK, Stop
from relayfile.settings import IngestSettings, ProviderSecrets
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, types_pb2
from tests.fakes.shard_node import ShardNode

ANY = "127.0.0.1:0"


def settings(path: Path, *nodes: str) -> IngestSettings:
    return IngestSettings(
        data_dir=path / "ingest",
        keys_dir=path / "keys",
        address_file=path / "ingest.json",
        nodes=nodes,
        http_address=ANY,
        grpc_address=ANY,
        admin_http_address=ANY,
        admin_grpc_address=ANY,
        create_workspaces="on-first-write",
        webhook_secrets=(ProviderSecrets("acme", "github", ("s3cret",)),),
        shutdown_grace_s=5.0,
    )


@asynccontextmanager
async def running(chosen: IngestSettings, expected: int) -> AsyncIterator[dict[str, str]]:
    """The addresses of a process that ends with the expected code when the block is left."""
    stop = Stop()
    task = asyncio.ensure_future(run(chosen, stop))
    address_file = chosen.address_file
    assert address_file is not None
    while not address_file.exists():
        assert not task.done(), task.result()
        await asyncio.sleep(0.01)
    yield json.loads(address_file.read_text())
    stop.ask("the test is over")
    assert await task == expected


async def post(address: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> int:
    host, port = address.rsplit(":", 1)
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [f"{'POST' if body else 'GET'} {path} HTTP/1.1", "host: x", "connection: close"]
    lines += [f"{name}: {value}" for name, value in {**(headers or {}), "content-length": str(len(body))}.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ")[1])


def issue(number: int) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(
        {
            "action": "edited",
            "issue": {"id": number, "number": number, "title": "t", "updated_at": "2026-01-01T00:00:00Z"},
            "repository": {"id": 1, "full_name": "octo/hello", "name": "hello", "owner": {"login": "octo"}},
        }
    ).encode()
    signature = hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    headers = {
        "x-hub-signature-256": f"sha256={signature}",
        "x-github-event": "issues",
        "x-github-delivery": f"d{number}",
    }
    return body, {**headers, "content-type": "application/json"}


async def test_a_signed_webhook_reaches_the_node(tmp_path: Path) -> None:
    node = ShardNode()
    await node.start()
    try:
        async with running(settings(tmp_path, node.address), EXIT_OK) as at:
            assert await post(at["admin_http"], "/readyz") == 200
            assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", *issue(7)) == 200
            assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", issue(7)[0], {}) == 401
        assert len(node.durable.deliveries) == 1
    finally:
        await node.stop()


async def test_envelopes_are_published_over_grpc(tmp_path: Path) -> None:
    node = ShardNode()
    await node.start()
    signer = TokenSigner(KeyStore(tmp_path / "keys").signing_key(), SystemClock())
    token = signer.mint("tester", workspaces=("acme",), ttl_s=60, scopes=("relayfile:sync:trigger",))
    try:
        async with (
            running(settings(tmp_path, node.address), EXIT_OK) as at,
            grpc.aio.insecure_channel(at["grpc"]) as to,
        ):
            stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(to)
            envelope = types_pb2.Envelope(workspace_id="acme", provider="generic", delivery_id="d1")
            envelope.changes.add(kind=types_pb2.CHANGE_KIND_UPSERT, path="/a.json", content=b"{}")
            request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope)
            answer = await stub.PublishEnvelope(request, metadata=(("authorization", f"Bearer {token}"),))
            assert len(answer.envelope_id) == 26
        assert len(node.durable.deliveries) == 1
    finally:
        await node.stop()


async def test_with_the_store_away_webhooks_are_kept_for_the_next_start(tmp_path: Path) -> None:
    node = ShardNode()
    await node.start()
    await node.stop()
    chosen = replace(settings(tmp_path, node.address), shutdown_grace_s=0.2)
    async with running(chosen, EXIT_NOT_EMPTY) as at:
        for number in range(5):
            assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", *issue(number)) == 200
    assert chosen.address_file is not None
    chosen.address_file.unlink()
    await node.start()
    try:
        async with running(replace(chosen, shutdown_grace_s=5.0), EXIT_OK):
            pass
        assert len(node.durable.deliveries) == 5
    finally:
        await node.stop()


async def test_a_spool_with_changes_is_not_forgotten_by_a_process_without_one(tmp_path: Path) -> None:
    node = ShardNode()
    await node.start()
    await node.stop()
    chosen = replace(settings(tmp_path, node.address), shutdown_grace_s=1.0)
    stateless = replace(chosen, spool_mode="through", address_file=tmp_path / "other.json", shutdown_grace_s=5.0)
    async with running(chosen, EXIT_NOT_EMPTY) as at:
        assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", *issue(1)) == 200
        async with running(stateless, EXIT_OK):
            pass  # the other process lives and has its spool itself
    with pytest.raises(StartRefused, match="1 accepted changes without an outcome"):
        await run(stateless, Stop())
    await node.start()
    try:
        assert chosen.address_file is not None
        assert stateless.address_file is not None
        for file in (chosen.address_file, stateless.address_file):
            file.unlink()
        async with running(replace(chosen, shutdown_grace_s=5.0), EXIT_OK):
            pass
        async with running(stateless, EXIT_OK):
            pass
    finally:
        await node.stop()


async def test_a_clock_that_was_set_back_while_the_process_was_away_turns_no_order_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = ShardNode()
    await node.start()
    await node.stop()
    for number, behind_us in enumerate((0, 3_600_000_000)):
        clock = SystemClock()
        monkeypatch.setattr(SystemClock, "now_us", lambda _, now_us=clock.now_us, by_us=behind_us: now_us() - by_us)
        chosen = replace(
            settings(tmp_path, node.address), shutdown_grace_s=1.0, address_file=tmp_path / f"{number}.json"
        )
        async with running(chosen, EXIT_NOT_EMPTY) as at:
            assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", *issue(number)) == 200
        monkeypatch.undo()
    reader = SpoolReader(tmp_path / "ingest")
    first, second = reader.remainders()
    reader.close()
    assert first.received_us <= second.received_us


async def test_a_process_without_nodes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="RELAYFILE_NODES"):
        await run(settings(tmp_path), Stop())


async def test_without_a_spool_nothing_is_written_and_keys_must_come_from_elsewhere(tmp_path: Path) -> None:
    node = ShardNode()
    await node.start()
    try:
        chosen = replace(settings(tmp_path, node.address), spool_mode="through")
        async with running(chosen, EXIT_OK) as at:
            assert await post(at["http"], "/v1/workspaces/acme/webhooks/github", *issue(7)) == 200
            assert len(node.durable.deliveries) == 1
        assert not chosen.data_dir.exists()
        with pytest.raises(SettingError, match="RELAYFILE_KEYS_DIR"):
            await run(replace(chosen, keys_dir=None), Stop())
        assert not chosen.data_dir.exists()
    finally:
        await node.stop()
