"""What a stopping process could not send to the shards goes to the other ingest processes (D4).

Owns which peers there are, the batches, and the attempts. An envelope keeps its id and its receive time, so that a
shard that knows it already answers as the first time; a row leaves the spool when a peer has answered that all of it
is durable there. Whatever happens in the middle, somebody's spool has it. Refuses to know how a spool keeps its rows.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from ipaddress import ip_address
from typing import Final, Protocol

import grpc
import grpc.aio
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from relayfile import faults
from relayfile.errors import DataCorrupted, RelayfileError, Unavailable
from relayfile.ingest.spool.payload import read_row
from relayfile.ingest.spool.spool_file import StoredRow
from relayfile.status import from_rpc_error
from relayfile.telemetry import get_logger
from relayfile.v1 import ingest_pb2, ingest_pb2_grpc, types_pb2

WORKERS: Final = 4
"""Workspaces that are handed over side by side."""
BATCH_BYTES: Final = 1 << 20
BATCH_ENVELOPES: Final = 1_000
CHUNK_BYTES: Final = 1 << 20
RETRY_S_MAX: Final = 2.0
ATTEMPT_TIMEOUT_S: Final = 30.0
_AGAIN: Final = (ingest_pb2.PUBLISH_STATUS_OVERLOADED, ingest_pb2.PUBLISH_STATUS_UNAVAILABLE)
_CANNOT_SUCCEED: Final = (
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.INVALID_ARGUMENT,
)

_log = get_logger(__name__)


class LeftSpool(Protocol):
    """The rows to hand over."""

    def left(self) -> Mapping[str, Sequence[int]]:
        """Workspaces and their rows, in order."""
        ...

    def row(self, row_id: int) -> StoredRow | None:
        """One of them; None when it has gone meanwhile."""
        ...

    def taken(self, workspace_id: str, row: StoredRow) -> None:
        """A peer has all of the row: it may leave this spool."""
        ...


class Peers:
    """The other ingest processes: names are looked up at each attempt, because they come and go."""

    def __init__(self, entries: Sequence[str], own: str, open_channel: Callable[[str], grpc.aio.Channel]) -> None:
        """`entries` are host:port. `own` is where this process listens itself, which is none of its peers; empty: it
        does not."""
        self._entries = entries
        self._own = own
        self._open_channel = open_channel
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def addresses(self) -> list[str]:
        """Every address behind the entries but this process's own."""
        found: dict[str, None] = {}
        for entry in self._entries:
            host, _, port = entry.rpartition(":")
            try:
                infos = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
            except OSError:
                continue  # nobody has the name now
            for family, _, _, _, address in infos:
                ip = str(address[0])
                if not _is_own(self._own, family, ip, int(port)):
                    found[f"[{ip}]:{port}" if family == socket.AF_INET6 else f"{ip}:{port}"] = None
        return list(found)

    def channel(self, address: str) -> grpc.aio.Channel:
        """The channel to a peer."""
        if address not in self._channels:
            self._channels[address] = self._open_channel(address)
        return self._channels[address]

    async def close(self) -> None:
        """Close the channels."""
        async with AsyncExitStack() as stack:
            for channel in self._channels.values():
                stack.push_async_callback(channel.close)
        self._channels.clear()


class Handover:
    """Hands rows over until none is left that a peer would take."""

    def __init__(self, peers: Peers, metadata: Callable[[], tuple[tuple[str, str], ...]]) -> None:
        self._peers = peers
        self._metadata = metadata
        self._turn = 0

    async def run(self, spool: LeftSpool) -> None:
        """Return when everything was handed over, however long it takes; cancel it when there is no more time.

        What no peer will ever take (damaged, or refused) stays, and is logged; so does everything when this process
        may not hand over at all.
        """
        waiting = iter(spool.left().items())
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(WORKERS):
                    tasks.create_task(self._work(spool, waiting))
        except* RelayfileError as failures:
            _log.error("what is left cannot be handed over", why=str(failures.exceptions[0]))
        finally:
            await self._peers.close()

    async def _work(self, spool: LeftSpool, waiting: Iterator[tuple[str, Sequence[int]]]) -> None:
        for workspace_id, row_ids in waiting:
            rows: list[tuple[StoredRow, list[types_pb2.Envelope]]] = []
            size = 0
            for row_id in row_ids:
                row = spool.row(row_id)
                if row is None:
                    continue
                try:
                    placed = read_row(row_id, workspace_id, row.member_count, row.payload)
                except DataCorrupted as error:
                    _log.error("a damaged row stays in the spool", why=error.what)
                    continue
                rows.append((row, [envelope for envelope, _, _ in placed]))
                size += len(row.payload)
                if size >= BATCH_BYTES:
                    await self._hand_over(spool, workspace_id, rows)
                    rows, size = [], 0
            if rows:
                await self._hand_over(spool, workspace_id, rows)

    async def _hand_over(
        self, spool: LeftSpool, workspace_id: str, rows: Sequence[tuple[StoredRow, list[types_pb2.Envelope]]]
    ) -> None:
        envelopes = [envelope for _, each in rows for envelope in each]
        refused = await self._send(envelopes)
        faults.point("ingest.handover.after_answer_before_taken")
        for row, each in rows:
            if refused.isdisjoint(envelope.envelope_id for envelope in each):
                spool.taken(workspace_id, row)

    async def _send(self, envelopes: Sequence[types_pb2.Envelope]) -> set[str]:
        """The ids of those that cannot be handed over; the others are durable at peers."""
        waiting, refused = list(envelopes), set[str]()
        attempts = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=RETRY_S_MAX),
            retry=retry_if_exception_type(Unavailable),
            sleep=asyncio.sleep,
        )
        async for attempt in attempts:
            with attempt:
                addresses = await self._peers.addresses()
                if not addresses:
                    raise Unavailable(what="ingest peers")
                self._turn += 1
                results = await self._publish(addresses[self._turn % len(addresses)], waiting)
                again = []
                for envelope, result in zip(waiting, results, strict=True):
                    if result.status in _AGAIN:
                        again.append(envelope)
                    elif result.status != ingest_pb2.PUBLISH_STATUS_ACCEPTED:
                        refused.add(envelope.envelope_id)
                        _log.error(
                            "an envelope stays in the spool: a peer refused it",
                            workspace=envelope.workspace_id,
                            status=ingest_pb2.PublishStatus.Name(result.status),
                        )
                waiting = again
                if waiting:
                    raise Unavailable(what="ingest peer")
        return refused

    async def _publish(self, address: str, envelopes: Sequence[types_pb2.Envelope]) -> list[ingest_pb2.EnvelopeResult]:
        """One stream, one batch after the other; each is durable there before the next one is sent."""
        stub: ingest_pb2_grpc.IngestServiceAsyncStub = ingest_pb2_grpc.IngestServiceStub(self._peers.channel(address))
        results: list[ingest_pb2.EnvelopeResult] = []
        try:
            call = stub.PublishEnvelopes(metadata=self._metadata(), timeout=ATTEMPT_TIMEOUT_S)
            for messages in batches(envelopes):
                for message in messages:
                    await call.write(message)
                answer = await call.read()
                if not isinstance(answer, ingest_pb2.PublishEnvelopesResponse):
                    break
                results += answer.results
            await call.done_writing()
            call.cancel()
        except grpc.aio.AioRpcError as error:
            if error.code() in _CANNOT_SUCCEED:
                raise from_rpc_error(error) from error
        except (grpc.aio.UsageError, asyncio.InvalidStateError):
            pass  # the stream was cut while it was written to
        missing = ingest_pb2.EnvelopeResult(status=ingest_pb2.PUBLISH_STATUS_UNAVAILABLE)
        return results + [missing] * (len(envelopes) - len(results))


def batches(envelopes: Sequence[types_pb2.Envelope]) -> Iterator[list[ingest_pb2.PublishEnvelopesRequest]]:
    """The messages of each batch: the batch, and where its one large envelope does not fit, that one's content."""
    batch: list[types_pb2.Envelope] = []
    size = 0
    for envelope in envelopes:
        length = envelope.ByteSize()
        if batch and (size + length > BATCH_BYTES or len(batch) >= BATCH_ENVELOPES):
            yield [ingest_pb2.PublishEnvelopesRequest(envelopes=batch)]
            batch, size = [], 0
        if length > BATCH_BYTES:
            yield _in_chunks(envelope)
        else:
            batch.append(envelope)
            size += length
    if batch:
        yield [ingest_pb2.PublishEnvelopesRequest(envelopes=batch)]


def _in_chunks(envelope: types_pb2.Envelope) -> list[ingest_pb2.PublishEnvelopesRequest]:
    head = types_pb2.Envelope()
    head.CopyFrom(envelope)
    if head.raw.body:
        body = head.raw.body
        head.raw.ClearField("body")
        head.raw.body_follows_bytes = len(body)
    else:
        body = head.changes[-1].content
        head.changes[-1].ClearField("content")
        head.changes[-1].content_follows_bytes = len(body)
    messages = [ingest_pb2.PublishEnvelopesRequest(envelopes=[head])]
    for start in range(0, len(body), CHUNK_BYTES):
        data = body[start : start + CHUNK_BYTES]
        chunk = types_pb2.ContentChunk(data=data, last=start + CHUNK_BYTES >= len(body))
        messages.append(ingest_pb2.PublishEnvelopesRequest(chunk=chunk))
    return messages


def _is_own(own: str, family: int, ip: str, port: int) -> bool:
    """Whether an address is where the process at `own` listens: that very one, or where it listens on all, any of this
    machine. Several processes may have the same port on a machine with several addresses."""
    host, _, own_port = own.rpartition(":")
    if not own_port or int(own_port) != port:
        return False
    try:
        listening = ip_address(host.strip("[]"))
    except ValueError:
        return _is_ours(family, ip)  # a name, such as localhost
    return _is_ours(family, ip) if listening.is_unspecified else listening == ip_address(ip.partition("%")[0])


def _is_ours(family: int, ip: str) -> bool:
    """Whether an address is one of this machine's: only those can be bound."""
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((ip, 0))
        except OSError:
            return False
        return True
