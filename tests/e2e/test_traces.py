"""One trace from a provider's request to the file on disk, and from an edit on disk to the provider (D17).

The processes are real, and send their spans to a collector in another process. Only what its caller marked as sampled
is recorded in ingest and store: everything else that they do leaves no span. In syncd every edit starts a trace.
"""

import asyncio
import dataclasses
import json
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from relayfile.local.delivery import Delivery, Sender
from relayfile.local.system import LocalSystem, running
from relayfile.telemetry.traceparent import format_context
from relayfile.v1 import file_pb2, ingest_pb2, mirror_pb2
from tests.fakes.target import FakeTarget, fake_target
from tests.support.client import Client, client_of
from tests.support.envelopes import envelope, upsert
from tests.support.otlp_receiver import OtlpReceiver, receiving
from tests.support.span_tree import ReceivedSpan, linking_to, printed
from tests.support.system import build_system
from tests.support.webhooks import Issue

pytestmark = pytest.mark.asyncio(loop_scope="session")
W = "acme"
ROUTE = "POST /v1/workspaces/{workspace}/webhooks/{provider}"


@dataclasses.dataclass(frozen=True)
class Traced:
    """A system, its collector, a provider that edits go to, and a mirror."""

    system: LocalSystem
    client: Client
    collector: OtlpReceiver
    provider: FakeTarget
    mirror: Path

    async def post(self, issue: Issue, trace_id: str = "") -> None:
        """A webhook, with a caller's trace when it has one."""
        made = issue.delivery(W, self.system.layout.webhook_secret(W, "github"))
        headers = dict(made.headers)
        if trace_id:
            headers["traceparent"] = format_context(int(trace_id, 16), 0xB7AD6B7169203331, sampled=True)
        async with Sender(f"http://127.0.0.1:{self.system.ports.ingest_http}") as sender:
            answer = await sender.post(Delivery(made.path, headers, made.body))
        assert answer.status == 200, answer

    async def arrived(self, trace_id: str, *names: str) -> list[ReceivedSpan]:
        """Every span of a trace, once these are among them."""
        spans: list[ReceivedSpan] = []
        for _ in range(600):
            spans = [span for span in self.collector.spans() if span.trace_id == trace_id]
            if {span.name for span in spans} >= set(names):
                return spans
            await asyncio.sleep(0.05)
        raise AssertionError(f"wanted {names}, got\n{printed(self.collector.spans(), trace_id)}")

    async def follows(self, mirror_id: str) -> None:
        """Wait for the first pull's end: what it brings is no event's doing."""
        request = mirror_pb2.GetMirrorRequest(mirror_id=mirror_id)
        for _ in range(600):
            answer = await self.client.mirrors().GetMirror(request, metadata=self.client.metadata, timeout=30)
            if answer.mirror.state == mirror_pb2.MIRROR_STATE_FOLLOWING:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("the mirror does not follow")

    async def eventually(self, holds: Callable[[], bool]) -> None:
        for _ in range(600):
            if holds():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("does not come true")


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    root = tmp_path_factory.mktemp("traced")
    (root / "secret").write_text("of-a-test\n")
    async with receiving(root / "collector") as collector, fake_target() as provider:
        target = {"url": f"{provider.url}/hook", "credential_file": str(root / "secret")}
        overrides = {
            "RELAYFILE_OTLP_ENDPOINT": collector.address,
            "RELAYFILE_TRACE_SAMPLE_RATIO": "0",
            "RELAYFILE_COALESCE_WINDOW": "1s",
            "RELAYFILE_WRITEBACK_TARGETS": json.dumps({"github": target}),
            "RELAYFILE_OUTWARD_NETWORKS": "127.0.0.0/8",
        }
        system = build_system(root / "system", nodes=1, overrides=overrides)
        syncd = system.processes["syncd"]  # where the traces of local edits start
        own = {**syncd.command.environment, "RELAYFILE_TRACE_SAMPLE_RATIO": "1"}
        syncd.command = dataclasses.replace(syncd.command, environment=own)
        async with running(system), client_of(system) as client:
            await client.create_workspace(W)
            mirror = root / "mirror"
            request = mirror_pb2.CreateMirrorRequest(workspace_id=W, directory=str(mirror), follow=True)
            created = await client.mirrors().CreateMirror(request, metadata=client.metadata, timeout=30)
            started = Traced(system, client, collector, provider, mirror)
            await started.follows(created.mirror.mirror_id)
            yield started


def named(spans: list[ReceivedSpan], name: str) -> ReceivedSpan:
    [found] = [span for span in spans if span.name == name]
    return found


async def test_a_webhook_is_followed_to_the_file_on_disk(traced: Traced) -> None:
    trace_id, issue = secrets.token_hex(16), Issue(1, "traced", action="opened")
    await traced.post(issue, trace_id)
    spans = await traced.arrived(trace_id, ROUTE, "send shards", "commit workspaces", "write mirror")
    print(printed(traced.collector.spans(), trace_id))
    assert json.loads((traced.mirror / issue.path[1:]).read_text()) == issue.content
    request, sent, committed, written = (
        named(spans, name) for name in (ROUTE, "send shards", "commit workspaces", "write mirror")
    )
    assert request.parent_id == "b7ad6b7169203331"
    assert {sent.parent_id, committed.parent_id, written.parent_id} == {request.span_id}
    services = [span.service for span in (request, sent, committed, written)]
    assert services == ["relayfile-ingest", "relayfile-ingest", "relayfile-store", "relayfile-syncd"]
    assert [span.kind for span in (request, sent, committed, written)] == ["server", "producer", "consumer", "consumer"]
    assert request.start_ns < sent.start_ns < committed.start_ns < written.start_ns
    said = request.attributes
    assert (said["http.route"], said["http.response.status_code"]) == (ROUTE.removeprefix("POST "), 200)
    assert (said["relayfile.workspace.id"], said["relayfile.provider"]) == (W, "github")
    assert committed.attributes["messaging.system"] == "relayfile"
    assert committed.attributes["messaging.batch.message_count"] == 1
    # What syncd reads on behalf of the webhook is in its trace too.
    reads = [span for span in spans if span.parent_id == written.span_id]
    assert {span.attributes["rpc.method"] for span in reads} == {"relayfile.v1.FileService/ReadFiles"}
    assert {span.attributes["rpc.response.status_code"] for span in reads} <= {"OK", "CANCELLED"}


async def test_a_folded_webhook_is_followed_by_its_link(traced: Traced) -> None:
    for number in range(100, 110):  # on a crowded machine a window may close between two requests
        edits = [Issue(number, f"edit {n}", updated_us=(1_760_000_000 + n) * 1_000_000) for n in range(4)]
        traces = [secrets.token_hex(16) for _ in edits]
        for issue, trace_id in zip(edits, traces, strict=True):
            await traced.post(issue, trace_id)
        # The last one is what the file holds; those before it are folded into its write.
        written = named(await traced.arrived(traces[-1], ROUTE, "commit workspaces", "write mirror"), "write mirror")
        assert json.loads((traced.mirror / edits[0].path[1:]).read_text()) == edits[-1].content
        spans = traced.collector.spans()
        folded = traces[2]
        if any(span.trace_id == folded and span.name == "commit workspaces" for span in spans):
            continue
        print(printed(spans, folded))
        assert {span.name for span in spans if span.trace_id == folded} == {ROUTE}
        commit = named(linking_to(spans, folded), "commit workspaces")
        assert commit.trace_id == written.trace_id == traces[-1]
        assert commit.attributes["messaging.batch.message_count"] in (2, 3)
        return
    raise AssertionError("nothing was folded")


async def test_published_envelopes_keep_their_callers_trace(traced: Traced) -> None:
    trace_id = secrets.token_hex(16)
    context = format_context(int(trace_id, 16), 7, sampled=True)

    async def publish(metadata: tuple[tuple[str, str], ...]) -> None:
        async def requests() -> AsyncIterator[ingest_pb2.PublishEnvelopesRequest]:
            for number in range(2):
                sent = [envelope(W, upsert(f"/notes/{number}-{index}.txt", b"x")) for index in range(3)]
                yield ingest_pb2.PublishEnvelopesRequest(batch_number=number, envelopes=sent)

        call = traced.client.ingest().PublishEnvelopes(requests(), metadata=metadata, timeout=60)
        assert [len(response.results) async for response in call] == [3, 3]

    await publish((*traced.client.metadata, ("traceparent", context)))
    spans = await traced.arrived(
        trace_id, "relayfile.v1.IngestService/PublishEnvelopes", "accept spool", "commit workspaces", "write mirror"
    )
    print(printed(traced.collector.spans(), trace_id))
    call = named(spans, "relayfile.v1.IngestService/PublishEnvelopes")
    messages = [span for span in spans if span.name == "receive envelopes"]
    assert (call.parent_id, call.kind, call.attributes["rpc.system.name"]) == (f"{7:016x}", "server", "grpc")
    assert [span.parent_id for span in messages] == [call.span_id] * 2
    parents = {span.span_id for span in messages}
    assert {span.parent_id for span in spans if span.name in ("accept spool", "commit workspaces")} <= parents


async def test_an_edit_is_followed_to_its_provider(traced: Traced) -> None:
    trace_id, path = secrets.token_hex(16), Issue(3, "to be edited", action="opened").path
    await traced.post(Issue(3, "to be edited", action="opened"))
    await traced.eventually((traced.mirror / path[1:]).is_file)
    context = format_context(int(trace_id, 16), 7, sampled=True)
    before = len(traced.provider.received)
    request = file_pb2.WriteFileRequest(workspace_id=W, path=path, content=b'{"title":"edited"}', force=True)
    metadata = (*traced.client.metadata, ("traceparent", context))
    await traced.client.files().WriteFile(request, metadata=metadata, timeout=30)
    spans = await traced.arrived(
        trace_id, "relayfile.v1.FileService/WriteFile", "commit workspaces", "write target", "write mirror"
    )
    print(printed(traced.collector.spans(), trace_id))
    told = traced.provider.received[before].headers["traceparent"]
    call = named(spans, "write target")
    assert told == format_context(int(trace_id, 16), int(call.span_id, 16), sampled=True)
    assert (call.kind, call.attributes["http.response.status_code"], call.failed) == ("client", 200, False)


async def test_an_edit_on_disk_is_followed_to_its_provider(traced: Traced) -> None:
    issue = Issue(4, "to be edited", action="opened")
    await traced.post(issue)
    file = traced.mirror / issue.path[1:]
    await traced.eventually(file.is_file)
    file.write_text('{"title":"edited on disk"}')
    sent: list[ReceivedSpan] = []

    def has_left() -> bool:
        sent[:] = [span for span in traced.collector.spans() if span.name == "send mirror"]
        return bool(sent)

    await traced.eventually(has_left)
    write = "relayfile.v1.FileService/WriteFiles"
    spans = await traced.arrived(sent[0].trace_id, write, "commit workspaces", "write target")
    print(printed(traced.collector.spans(), sent[0].trace_id))
    assert (sent[0].service, sent[0].kind, sent[0].parent_id) == ("relayfile-syncd", "producer", "")
    assert named(spans, write).parent_id == sent[0].span_id
    assert named(spans, "write target").parent_id == named(spans, write).span_id


async def test_what_nobody_marked_leaves_no_span(traced: Traced) -> None:
    before = {span.trace_id for span in traced.collector.spans()}
    for number in range(10, 20):
        await traced.post(Issue(number, "not traced", action="opened"))
    marked = secrets.token_hex(16)
    last = Issue(20, "traced", action="opened")
    await traced.post(last, marked)
    await traced.arrived(marked, "write mirror")
    spans = traced.collector.spans()
    edits = {span.trace_id for span in spans if span.name == "send mirror"}
    assert {span.trace_id for span in spans} - before - edits == {marked}
