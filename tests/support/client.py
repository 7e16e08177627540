"""A client of a running system, as a user of the API would write it: generated stubs, a token, nothing clever."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from grpc import aio

from relayfile.local.layout import Layout
from relayfile.local.system import LocalSystem
from relayfile.v1 import (
    dead_letter_pb2,
    dead_letter_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    file_pb2,
    file_pb2_grpc,
    ingest_pb2,
    ingest_pb2_grpc,
    mirror_pb2_grpc,
    topology_pb2_grpc,
    types_pb2,
    workspace_pb2,
    workspace_pb2_grpc,
)
from tests.support.tokens import mint

OUTCOMES = ("applied", "coalesced", "duplicate", "suppressed", "stale", "unchanged", "ignored", "dead_lettered")
_OPTIONS = (("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20))


@dataclass(frozen=True, slots=True)
class Counts:
    """How the changes of one workspace ended."""

    by_outcome: dict[str, int]
    pending: int
    accepted: int

    @property
    def ended(self) -> int:
        return sum(self.by_outcome.values())

    def __getitem__(self, outcome: str) -> int:
        return self.by_outcome[outcome]


def counts_of(statuses: Iterable[ingest_pb2.ProviderStatus]) -> Counts:
    statuses = list(statuses)
    by_outcome = {name: sum(int(getattr(status, name)) for status in statuses) for name in OUTCOMES}
    return Counts(by_outcome, sum(each.pending for each in statuses), sum(each.accepted for each in statuses))


@dataclass(slots=True)
class Client:
    """Calls to one system. Reads go to the first node that runs: any node answers for all."""

    ingest_address: str
    node_addresses: tuple[str, ...]
    syncd_address: str
    token: str
    _channels: dict[str, aio.Channel] = field(default_factory=dict)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)

    def channel(self, address: str) -> aio.Channel:
        if address not in self._channels:
            self._channels[address] = aio.insecure_channel(address, options=_OPTIONS)
        return self._channels[address]

    def ingest(self) -> "ingest_pb2_grpc.IngestServiceAsyncStub":
        return ingest_pb2_grpc.IngestServiceStub(self.channel(self.ingest_address))

    def files(self, node: int = 0) -> "file_pb2_grpc.FileServiceAsyncStub":
        return file_pb2_grpc.FileServiceStub(self.channel(self.node_addresses[node]))

    def events(self, node: int = 0) -> "event_pb2_grpc.EventServiceAsyncStub":
        return event_pb2_grpc.EventServiceStub(self.channel(self.node_addresses[node]))

    def workspaces(self, node: int = 0) -> "workspace_pb2_grpc.WorkspaceServiceAsyncStub":
        return workspace_pb2_grpc.WorkspaceServiceStub(self.channel(self.node_addresses[node]))

    def dead_letters(self, node: int = 0) -> "dead_letter_pb2_grpc.DeadLetterServiceAsyncStub":
        return dead_letter_pb2_grpc.DeadLetterServiceStub(self.channel(self.node_addresses[node]))

    def topology(self, node: int = 0) -> "topology_pb2_grpc.TopologyServiceAsyncStub":
        return topology_pb2_grpc.TopologyServiceStub(self.channel(self.node_addresses[node]))

    def mirrors(self) -> "mirror_pb2_grpc.MirrorServiceAsyncStub":
        return mirror_pb2_grpc.MirrorServiceStub(self.channel(self.syncd_address))

    async def workspace(self, workspace: str) -> workspace_pb2.Workspace:
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=workspace)
        return (await self.workspaces().GetWorkspace(request, metadata=self.metadata, timeout=10)).workspace

    async def create_workspace(self, workspace: str) -> None:
        request = workspace_pb2.CreateWorkspaceRequest(workspace_id=workspace)
        await self.workspaces().CreateWorkspace(request, metadata=self.metadata, timeout=10)

    async def counts(self, workspace: str) -> Counts:
        """What the shard has counted; zeros for a workspace that does not exist yet."""
        try:
            found = await self.workspace(workspace)
        except aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return counts_of(())
        return counts_of(each.status for each in found.providers)

    async def settled(self, workspace: str, accepted: int, timeout_s: float = 20.0) -> Counts:
        """The counts once `accepted` changes have ended. Fails when they do not, or when more did."""
        deadline = time.monotonic() + timeout_s
        while True:
            counts = await self.counts(workspace)
            if counts.ended >= accepted:
                break
            assert time.monotonic() < deadline, f"{workspace}: {accepted} accepted, but ended are {counts}"
            await asyncio.sleep(0.03)
        assert counts.ended == accepted, f"{workspace}: {accepted} accepted, but {counts}"
        return counts

    async def publish(self, *envelopes: types_pb2.Envelope, batch: int = 500) -> list[ingest_pb2.EnvelopeResult]:
        """Publish in batches on one stream; the results in order."""

        async def requests() -> AsyncIterator[ingest_pb2.PublishEnvelopesRequest]:
            for number, start in enumerate(range(0, len(envelopes), batch)):
                yield ingest_pb2.PublishEnvelopesRequest(
                    batch_number=number, envelopes=envelopes[start : start + batch]
                )

        results: list[ingest_pb2.EnvelopeResult] = []
        async for response in self.ingest().PublishEnvelopes(requests(), metadata=self.metadata, timeout=60):
            results += response.results
        return results

    async def tree(self, workspace: str, path: str = "/") -> dict[str, types_pb2.FileMeta]:
        """Every file's metadata, by path."""
        request = file_pb2.ListTreeRequest(workspace_id=workspace, path=path)
        found: dict[str, types_pb2.FileMeta] = {}
        async for page in self.files().ListTree(request, metadata=self.metadata, timeout=60):
            found |= {entry.file.path: entry.file for entry in page.entries}
        return found

    async def contents(self, workspace: str) -> dict[str, bytes]:
        """Every file's bytes, by path, through ExportTree."""
        start = file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=workspace), have_complete=True)
        found: dict[str, bytes] = {}
        last = ""
        async for message in self.files().ExportTree(iter([start]), metadata=self.metadata, timeout=120):
            for each in message.files:
                last = each.file.path
                found[last] = each.content
            if message.HasField("chunk"):
                found[last] += message.chunk.data
        return found

    async def write(self, workspace: str, path: str, content: bytes) -> int:
        """Write a file whatever is there; its revision."""
        request = file_pb2.WriteFileRequest(workspace_id=workspace, path=path, content=content, force=True)
        return (await self.files().WriteFile(request, metadata=self.metadata, timeout=10)).file.revision

    async def read(self, workspace: str, path: str) -> bytes:
        request = file_pb2.ReadFileRequest(workspace_id=workspace, path=path)
        return b"".join(
            [chunk.data async for chunk in self.files().ReadFile(request, metadata=self.metadata, timeout=30)]
        )

    async def all_events(self, workspace: str) -> list[event_pb2.Event]:
        """Every retained event, over all pages."""
        found: list[event_pb2.Event] = []
        token = ""
        while True:
            request = event_pb2.ListEventsRequest(workspace_id=workspace, page_size=20_000, page_token=token)
            page = await self.events().ListEvents(request, metadata=self.metadata, timeout=30)
            found += page.events
            token = page.next_page_token
            if not token:
                return found

    async def dead_letter_list(self, workspace: str) -> Sequence[dead_letter_pb2.DeadLetter]:
        request = dead_letter_pb2.ListDeadLettersRequest(workspace_id=workspace, page_size=1000)
        response = await self.dead_letters().ListDeadLetters(request, metadata=self.metadata, timeout=10)
        return response.dead_letters

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


@asynccontextmanager
async def client_of(system: LocalSystem, token: str = "") -> AsyncIterator[Client]:
    """A client of all of a system, with a token for all workspaces unless another is given."""
    client = Client(
        ingest_address=f"127.0.0.1:{system.ports.ingest_grpc}",
        node_addresses=system.ports.node_addresses,
        syncd_address=f"127.0.0.1:{system.ports.syncd}",
        token=token or mint(Layout(system.layout.root)),
    )
    try:
        yield client
    finally:
        await client.close()


def gaps(events: Iterable[event_pb2.Event]) -> list[int]:
    """Revisions that are missing from 1 to the last."""
    numbers = [event.revision for event in events]
    assert numbers == sorted(set(numbers)), "revisions repeat or go back"
    return sorted(set(range(1, (numbers[-1] if numbers else 0) + 1)) - set(numbers))
