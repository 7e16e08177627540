"""A user of another language: nothing but an address, reflection and a token, by `buf curl` of the lock file."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from relayfile.local.system import LocalSystem
from tests.support.client import Client

pytestmark = pytest.mark.asyncio(loop_scope="session")

BUF = Path(sys.executable).with_name("buf")
SERVED_BY_A_NODE = {
    "grpc.health.v1.Health",
    "relayfile.v1.DeadLetterService",
    "relayfile.v1.EventService",
    "relayfile.v1.FileService",
    "relayfile.v1.ShardService",
    "relayfile.v1.TopologyService",
    "relayfile.v1.WorkspaceService",
}


async def buf_curl(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def call(address: str, method: str, request: Mapping[str, object], token: str) -> dict[str, object]:
    code, out, err = await buf_curl(
        "-H", f"authorization: Bearer {token}", "-d", json.dumps(request), f"http://{address}/relayfile.v1.{method}"
    )
    assert code == 0, err
    return dict(json.loads(out))


async def test_reflection_lists_what_a_node_serves(client: Client) -> None:
    code, out, err = await buf_curl(
        "-H", f"authorization: Bearer {client.token}", "--list-services", f"http://{client.node_addresses[0]}"
    )
    assert code == 0, err
    assert set(out.split()) >= SERVED_BY_A_NODE


async def test_publish_and_read_with_nothing_but_a_token(system: LocalSystem, client: Client, workspace: str) -> None:
    envelope = {
        "workspaceId": workspace,
        "provider": "generic",
        "changes": [
            {"kind": "CHANGE_KIND_UPSERT", "path": "/by/curl.txt", "content": "aGVsbG8=", "contentType": "text/plain"}
        ],
    }
    published = await call(client.ingest_address, "IngestService/PublishEnvelope", {"envelope": envelope}, client.token)
    assert len(str(published["envelopeId"])) == 26
    await client.settled(workspace, 1)
    get = {"workspaceId": workspace, "path": "/by/curl.txt", "minRevision": "1"}
    found = await call(client.node_addresses[1], "FileService/GetFile", get, client.token)
    file = found["file"]
    assert isinstance(file, dict)
    assert (file["sizeBytes"], file["contentType"], file["revision"]) == ("5", "text/plain", "1")
    read = await call(client.node_addresses[0], "FileService/ReadFile", get, client.token)
    assert read["data"] == "aGVsbG8="


async def test_without_a_token_there_is_no_answer(client: Client) -> None:
    code, _, err = await buf_curl(
        "-d", '{"workspaceId":"any","path":"/x"}', f"http://{client.node_addresses[0]}/relayfile.v1.FileService/GetFile"
    )
    assert code != 0
    assert "unauthenticated" in err
