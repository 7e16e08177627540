"""Ingest without a spool, with real processes: what a sender is told is what the store holds, whoever dies when."""

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
import pytest_asyncio
from grpc import aio

from relayfile.errors import PeerFailed
from relayfile.local.delivery import Answer, Delivery, Sender, github_delivery
from relayfile.local.system import LocalSystem
from relayfile.v1 import dead_letter_pb2, ingest_pb2, types_pb2
from tests.e2e.test_dead_letters import SHOP
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.system import owner_index, started_system, workspace_on
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"RELAYFILE_SPOOL_MODE": "through", "RELAYFILE_ACCEPT_DEADLINE": "1500ms"}
APPLIED, DUPLICATE, IGNORED, DEAD_LETTERED, UNCHANGED, COALESCED = (
    types_pb2.OUTCOME_APPLIED,
    types_pb2.OUTCOME_DUPLICATE,
    types_pb2.OUTCOME_IGNORED,
    types_pb2.OUTCOME_DEAD_LETTERED,
    types_pb2.OUTCOME_UNCHANGED,
    types_pb2.OUTCOME_COALESCED,
)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stateless(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSystem]:
    root = tmp_path_factory.mktemp("through")
    (root / "providers").mkdir()
    overrides = {**SETTINGS, "RELAYFILE_PROVIDERS_DIR": str(root / "providers")}
    async with started_system(root, overrides=overrides, only=frozenset({"store", "ingest"})) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(stateless: LocalSystem) -> AsyncIterator[Client]:
    async with client_of(stateless) as connected:
        yield connected


def delivery(system: LocalSystem, workspace: str, issue: Issue) -> Delivery:
    return issue.delivery(workspace, system.layout.webhook_secret(workspace, "github"))


async def post(system: LocalSystem, one: Delivery) -> Answer:
    async with Sender(f"http://127.0.0.1:{system.ports.ingest_http}") as sender:
        return await sender.post(one)


async def died(system: LocalSystem, name: str, fault: str) -> None:
    """Start a process again that dies at a fault point; it is not started yet after that."""
    process = system.processes[name]
    whole = process.command
    await process.stop(20)
    process.command = replace(whole, environment={**whole.environment, "RELAYFILE_FAULT": fault})
    try:
        await system.start_one(name)
    finally:
        process.command = whole


async def test_an_answer_means_committed_and_says_how(stateless: LocalSystem, client: Client) -> None:
    issue = Issue(1, "now")
    assert (await post(stateless, delivery(stateless, "said", issue))).status == 200
    assert issue.path in await client.contents("said")  # at once: nobody waits for anything

    large = upsert("/large", b"x" * (900 << 10))
    results = await client.publish(
        envelope("said", upsert("/a", b"1"), upsert("/b", b"2"), delivery_id="d1"),
        envelope("said", upsert("/a", b"3"), delivery_id="d2"),
        envelope("said", upsert("/a", b"1"), upsert("/b", b"2"), delivery_id="d1"),
        envelope("said", large, delivery_id="d3"),
        envelope("said", delivery_id="d4"),
    )
    assert {result.status for result in results} == {ingest_pb2.PUBLISH_STATUS_ACCEPTED}
    assert [list(result.outcomes) for result in results] == [
        [COALESCED, APPLIED],
        [APPLIED],
        [DUPLICATE, DUPLICATE],
        [APPLIED],
        [IGNORED],
    ]
    request = ingest_pb2.PublishEnvelopeRequest(envelope=envelope("said", upsert("/a", b"3"), delivery_id="d5"))
    answer = await client.ingest().PublishEnvelope(request, metadata=client.metadata)
    assert list(answer.outcomes) == [UNCHANGED]

    secret = stateless.layout.webhook_secret("said", "github")
    poison = github_delivery("said", "issues", b'{"action":', secret=secret, delivery_id="poison")
    assert (await post(stateless, poison)).status == 200
    assert [letter.reason for letter in await client.dead_letter_list("said")] == ["MALFORMED_JSON"]
    counts = await client.counts("said")
    assert (counts.ended, counts.pending, counts["dead_lettered"]) == (10, 0, 1)


async def test_a_node_that_is_away_is_a_503_in_time_and_nothing_is_left(stateless: LocalSystem, client: Client) -> None:
    away, here = workspace_on(1, "away"), workspace_on(0, "here")
    for workspace in (away, here):
        assert (await post(stateless, delivery(stateless, workspace, Issue(0, "known")))).status == 200
    await stateless.processes["store-1"].kill()
    started = asyncio.get_running_loop().time()
    answer = await post(stateless, delivery(stateless, away, Issue(1, "lost?")))
    took_s = asyncio.get_running_loop().time() - started
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert 1.4 < took_s < 2.5

    one, other = envelope(away, upsert("/a", b"1"), delivery_id="d1"), envelope(here, upsert("/a", b"1"))
    results = await client.publish(one, other)
    assert [result.status for result in results] == [
        ingest_pb2.PUBLISH_STATUS_UNAVAILABLE,
        ingest_pb2.PUBLISH_STATUS_ACCEPTED,
    ]
    assert results[0].retry_after.seconds >= 1
    assert list(results[1].outcomes) == [APPLIED]
    with pytest.raises(aio.AioRpcError) as refused:
        await client.ingest().PublishEnvelope(
            ingest_pb2.PublishEnvelopeRequest(envelope=one), metadata=client.metadata, timeout=5
        )
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE

    await stateless.start_one("store-1")
    assert (await until_accepted(stateless, delivery(stateless, away, Issue(1, "lost?")))).status == 200
    assert list((await client.publish(one))[0].outcomes) in ([APPLIED], [DUPLICATE])
    assert set(await client.contents(away)) == {Issue(0, "").path, Issue(1, "").path, "/a"}
    assert len(await client.all_events(away)) == 3  # each once


async def until_accepted(system: LocalSystem, one: Delivery) -> Answer:
    """As a sender does that repeats what got 503 or no answer."""
    for _ in range(20):
        try:
            answer = await post(system, one)
        except (OSError, PeerFailed):
            await asyncio.sleep(0.1)
            continue
        if answer.status != 503:
            return answer
    raise AssertionError("never accepted")


@pytest.mark.parametrize(
    ("victim", "fault"),
    [
        ("ingest", "ingest.stream.after_send_before_ack:1"),
        pytest.param("store", "store.commit.before_commit:1", marks=pytest.mark.full),
        ("store", "store.commit.after_commit_before_ack:1"),
    ],
)
async def test_a_kill_in_flight_then_a_retry_is_applied_once(
    stateless: LocalSystem, client: Client, victim: str, fault: str
) -> None:
    workspace = "in-flight-" + fault.partition(":")[0].replace(".", "-").replace("_", "-")
    await client.create_workspace(workspace)
    name = victim if victim == "ingest" else f"store-{owner_index(workspace)}"
    one = delivery(stateless, workspace, Issue(7, "once"))
    await died(stateless, name, fault)
    process = stateless.processes[name]
    async with asyncio.timeout(20):
        while process.running:  # before ingest is connected to it again, it gets nothing
            try:
                assert (await post(stateless, one)).status == 503
            except (OSError, PeerFailed):
                assert victim == "ingest"
    assert await process.exit_code() == -signal.SIGKILL
    await stateless.start_one(name)
    assert (await until_accepted(stateless, one)).status == 200
    assert list(await client.contents(workspace)) == [Issue(7, "").path]
    assert len(await client.all_events(workspace)) == 1
    counts = await client.counts(workspace)
    assert (counts["applied"], counts.pending) == (1, 0)


async def test_a_paused_provider_is_refused_until_it_is_resumed(stateless: LocalSystem, client: Client) -> None:
    one = delivery(stateless, "resting", Issue(1, "wait"))
    assert (await until_accepted(stateless, delivery(stateless, "resting", Issue(0, "known")))).status == 200
    stub, metadata = client.ingest(), client.metadata
    await stub.Pause(ingest_pb2.PauseRequest(workspace_id="resting", provider="github"), metadata=metadata)
    answer = await post(stateless, one)
    for _ in range(200):  # until ingest is told
        if answer.status != 200:
            break
        await asyncio.sleep(0.05)
        answer = await post(stateless, one)
    assert (answer.status, b"PAUSED" in answer.body, answer.headers["retry-after"]) == (503, True, "30")
    [other] = await client.publish(envelope("resting", upsert("/a", b"1")))
    assert list(other.outcomes) == [APPLIED]
    await stub.Resume(ingest_pb2.ResumeRequest(workspace_id="resting", provider="github"), metadata=metadata)
    assert (await until_accepted(stateless, one)).status == 200


async def test_a_dead_letter_is_tried_again_without_a_spool(stateless: LocalSystem, client: Client) -> None:
    providers, secrets = stateless.layout.root / "providers", stateless.layout.root / "secrets" / "shops"
    secrets.mkdir(parents=True)
    (secrets / "shop").write_text("shop secret")

    async def with_file(version: str, field: str) -> None:
        (providers / "shop.toml").write_text(SHOP.format(version=version, field=field))
        assert await stateless.processes["ingest"].stop(20) == 0
        await stateless.start_one("ingest")

    await with_file("1", "id")
    headers = {"x-token": "shop secret", "x-delivery": "d1"}
    order = Delivery("/v1/workspaces/shops/webhooks/shop", headers, b'{"type":"order","number":7}')
    assert (await until_accepted(stateless, order)).status == 200
    [letter] = await client.dead_letter_list("shops")
    assert letter.reason == "UNEXPECTED_SHAPE"
    await with_file("2", "number")
    request = dead_letter_pb2.ReplayDeadLettersRequest(
        workspace_id="shops", dead_letter_ids=[letter.dead_letter_id], request_id="fixed"
    )
    await client.dead_letters().ReplayDeadLetters(request, metadata=client.metadata, timeout=10)
    for _ in range(200):
        if await client.contents("shops"):
            break
        await asyncio.sleep(0.05)
    assert list(await client.contents("shops")) == ["/shop/orders/7.json"]
    assert not await client.dead_letter_list("shops")
    counts = await client.counts("shops")
    assert (counts["applied"], counts.ended, counts.pending) == (1, 1, 0)


async def test_a_stop_answers_what_waits_and_leaves_nothing_on_disk(stateless: LocalSystem, client: Client) -> None:
    workspace = workspace_on(0, "stopping")
    assert (await until_accepted(stateless, delivery(stateless, workspace, Issue(0, "connected")))).status == 200
    store, ingest = stateless.processes["store-0"], stateless.processes["ingest"]
    store.signal(signal.SIGSTOP)
    try:
        waiting = [
            asyncio.ensure_future(post(stateless, delivery(stateless, workspace, Issue(n, "t")))) for n in (1, 2)
        ]
        await asyncio.sleep(0.3)
        stopping = asyncio.ensure_future(ingest.stop(20))
        await asyncio.sleep(0.1)
        assert ingest.running
    finally:
        store.signal(signal.SIGCONT)
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert await stopping == 0
    assert not stateless.layout.data("ingest").exists()
    assert len(await client.contents(workspace)) == 3
