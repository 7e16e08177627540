"""Processes that know one another by their certificates alone: a webhook becomes a file, and strangers are nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from grpc import aio

from relayfile.client import Client, FileNotFound, WorkspaceNotFound
from relayfile.clock import SystemClock
from relayfile.local.delivery import Sender
from relayfile.local.process import LocalProcess
from relayfile.local.system import LocalSystem, running
from relayfile.serving import channel
from relayfile.settings import ClusterSettings
from relayfile.tls import channel_credentials
from relayfile.v1 import shard_pb2, shard_pb2_grpc
from tests.support.certificates import Authority, CertificateFiles
from tests.support.system import build_system, workspace_on
from tests.support.tokens import mint
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="session")

NAMES = {"store": "store.internal", "ingest": "spiffe://prod/relayfile/ingest"}


@asynccontextmanager
async def certified(root: Path, authority: Authority) -> AsyncIterator[LocalSystem]:
    """Two nodes and ingest, each with a certificate of its own and no key of another: only agents have tokens."""
    system = build_system(root)
    mint(system.layout)  # makes the key that agents' tokens are signed with
    del system.processes["syncd"]
    shared = {
        "RELAYFILE_TLS_SERVICE_NAMES": ",".join(NAMES.values()),
        "RELAYFILE_JWKS_FILE": str(system.layout.keys / "jwks.json"),
        "RELAYFILE_COALESCE_WINDOW": "200ms",
    }
    for name, process in system.processes.items():
        own = NAMES[process.command.subcommand]
        made = authority.issue(name, uris=(own,)) if "://" in own else authority.issue(name, dns=(own,))
        environment = {**process.command.environment, **shared, **made.environment()}
        environment["RELAYFILE_KEYS_DIR"] = str(system.layout.data(name) / "keys")
        command = replace(process.command, environment=environment)
        system.processes[name] = LocalProcess(command, system.layout, SystemClock())
    async with running(system):
        yield system


def settings_of(made: CertificateFiles) -> ClusterSettings:
    return ClusterSettings(tls_cert_file=made.cert, tls_key_file=made.key, tls_ca_file=made.ca)


async def refusal_of(address: str, settings: ClusterSettings, workspace: str, token: str = "") -> grpc.StatusCode:
    """How a call that only processes of the cluster may make is refused."""
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    request = shard_pb2.SetPauseRequest(workspace_id=workspace, paused=True, reason="a stranger")
    async with channel(address, settings) as opened:
        with pytest.raises(aio.AioRpcError) as refused:
            await shard_pb2_grpc.ShardServiceStub(opened).SetPause(request, metadata=metadata, timeout=10)
    return refused.value.code()


async def read_when_there(client: Client, workspace: str, path: str) -> bytes:
    async with asyncio.timeout(20):
        while True:
            try:
                return (await client.workspace(workspace).files.read(path)).data
            except (FileNotFound, WorkspaceNotFound):
                await asyncio.sleep(0.05)


async def test_a_webhook_becomes_a_file_between_processes_that_have_certificates_only(tmp_path: Path) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    authority = Authority(certificates)
    agent = authority.issue("agent", dns=("agent.internal",))
    async with certified(tmp_path / "system", authority) as system:
        address = system.ports.node_addresses[0]
        token = mint(system.layout, subject="agent")
        issue = Issue(1, "over mTLS")
        async with (
            Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender,
            Client(address, token, tls=channel_credentials(settings_of(agent))) as client,
        ):
            for index in (0, 1):  # a node passes calls about the other's workspaces on, for the agent
                workspace = workspace_on(index, "certified")
                secret = system.layout.webhook_secret(workspace, "github")
                assert (await sender.post(issue.delivery(workspace, secret))).status == 200
                content = await read_when_there(client, workspace, issue.path)
                assert json.loads(content) == issue.content
        other = settings_of(agent)
        for workspace in (workspace_on(0, "certified"), workspace_on(1, "certified")):
            assert await refusal_of(address, other, workspace) is grpc.StatusCode.UNAUTHENTICATED
            assert await refusal_of(address, other, workspace, token) is grpc.StatusCode.PERMISSION_DENIED
            none = ClusterSettings(tls_ca_file=agent.ca)
            assert await refusal_of(address, none, workspace, token) is grpc.StatusCode.UNAVAILABLE
