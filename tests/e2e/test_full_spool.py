"""A spool that fills while the store is away: who is refused and how, what memory it takes, and that all ends well."""

import json
import time
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc import aio
from grpc_status import rpc_status

from relayfile.local.delivery import Answer, Delivery, Sender
from relayfile.v1 import ingest_pb2
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import started_system

pytestmark = pytest.mark.asyncio(loop_scope="session")

SPOOL_BYTES_MAX = 24 << 20
CONTENT_BYTES = 8_000
ANSWER_S_MAX = 2.5
GROWTH_MIB_MAX = 16
ACCEPTED, OVERLOADED, UNAVAILABLE = (
    ingest_pb2.PUBLISH_STATUS_ACCEPTED,
    ingest_pb2.PUBLISH_STATUS_OVERLOADED,
    ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
)


class Sent:
    """Publishes and posts, and counts what was acknowledged."""

    def __init__(self, client: Client, sender: Sender) -> None:
        self.accepted: dict[str, int] = {}
        self._client, self._sender = client, sender
        self._number = 0

    def _count(self, workspace: str, number: int) -> None:
        self.accepted[workspace] = self.accepted.get(workspace, 0) + number

    async def publish(self, *workspaces: str) -> list[ingest_pb2.EnvelopeResult]:
        """One batch with an envelope for each."""
        made = []
        for workspace in workspaces:
            self._number += 1
            content = b"%08d" % self._number + b"x" * CONTENT_BYTES
            made.append(envelope(workspace, upsert(f"/{self._number}", content, object_id=f"o/{self._number}")))
        started = time.monotonic()
        results = await self._client.publish(*made)
        assert time.monotonic() - started < ANSWER_S_MAX
        for workspace, result in zip(workspaces, results, strict=True):
            self._count(workspace, result.status == ACCEPTED)
        return results

    async def until_refused(self, workspace: str) -> int:
        """Publish batches until something is refused; with which status."""
        for _ in range(200):
            statuses = {result.status for result in await self.publish(*[workspace] * 50)}
            if statuses != {ACCEPTED}:
                return max(statuses)
        raise AssertionError("never refused")

    async def post(self, workspace: str, provider: str = "generic") -> Answer:
        """One small change over HTTP."""
        self._number += 1
        change = {"path": f"/{provider}/{self._number}", "content_text": f"{self._number}"}
        body = json.dumps({"provider": provider, "changes": [change]}).encode()
        headers = {"authorization": f"Bearer {self._client.token}", "content-type": "application/json"}
        started = time.monotonic()
        answer = await self._sender.post(Delivery(f"/v1/workspaces/{workspace}/envelopes", headers, body))
        assert time.monotonic() - started < ANSWER_S_MAX
        self._count(workspace, answer.status == 200)
        return answer


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


async def test_a_full_spool_refuses_the_noisy_first_and_loses_nothing(tmp_path: Path) -> None:
    overrides = {"RELAYFILE_SPOOL_BYTES_MAX": f"{SPOOL_BYTES_MAX >> 20}MiB"}
    async with (
        started_system(tmp_path, nodes=1, overrides=overrides, only=frozenset({"store", "ingest"})) as system,
        client_of(system) as client,
        Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender,
    ):
        sent = Sent(client, sender)
        names = ["noisy", "quiet", *[f"other-{number}" for number in range(4)]]
        for name in names:
            assert (await sent.post(name)).status == 200
            await client.settled(name, 1)
        ingest = system.processes["ingest"].pid
        await system.processes["store-0"].stop(20)

        for _ in range(10):  # 4 MB: what is held in memory is held from here on
            await sent.publish(*["noisy"] * 50)
        before_mib = resident_mib(ingest)
        assert await sent.until_refused("noisy") == OVERLOADED
        mixed = await sent.publish("noisy", "quiet", "noisy")
        assert [result.status for result in mixed] == [OVERLOADED, ACCEPTED, OVERLOADED]
        assert mixed[0].retry_after.seconds >= 1
        refused = await sent.post("noisy")
        assert (refused.status, json.loads(refused.body)["error"]) == (429, "OVERLOADED")
        assert int(refused.headers["retry-after"]) >= 1
        assert (await sent.post("noisy", "quiet-provider")).status == 200
        assert (await sent.post("quiet")).status == 200
        await expect_refusal(client, "noisy", grpc.StatusCode.RESOURCE_EXHAUSTED)

        assert UNAVAILABLE in [await sent.until_refused(name) for name in names[2:]]
        while (await sent.post("quiet")).status == 200:
            pass
        full = await sent.post("quiet")
        assert (full.status, json.loads(full.body)["error"]) == (503, "UNAVAILABLE")
        assert int(full.headers["retry-after"]) >= 1
        await expect_refusal(client, "quiet", grpc.StatusCode.UNAVAILABLE)
        assert resident_mib(ingest) - before_mib < GROWTH_MIB_MAX
        assert (system.layout.data("ingest") / "spool.db").stat().st_size <= SPOOL_BYTES_MAX

        await system.start_one("store-0")
        for name, accepted in sent.accepted.items():
            assert (await client.settled(name, accepted, timeout_s=60))["applied"] == accepted
        assert (await sent.post("noisy")).status == 200


async def expect_refusal(client: Client, workspace: str, code: grpc.StatusCode) -> None:
    """One envelope is refused with this code, and the time after which to try again."""
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope(workspace, upsert("/one", b"x" * 400_000)))
    started = time.monotonic()
    with pytest.raises(aio.AioRpcError) as raised:
        await client.ingest().PublishEnvelope(request, metadata=client.metadata, timeout=10)
    assert time.monotonic() - started < ANSWER_S_MAX
    assert raised.value.code() is code
    status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]  # an error is a call
    info = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.retry_delay.seconds >= 1
