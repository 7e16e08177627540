"""The streams to all store nodes: made from the settings, kept by address, each with its task.

Owns which streams there are. Refuses to know what travels on them.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from relayfile.clock import Clock
from relayfile.ingest.sending.flight import Workers
from relayfile.ingest.sending.node_stream import Answers, Connect, NodeStream, StreamLimits, StreamParts, TakeRedos
from relayfile.ingest.status.refusal_reports import Refused
from relayfile.settings import IngestSettings
from relayfile.telemetry import Tracing


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What an intake is given by the process around it."""

    clock: Clock
    connect: Connect
    tracing: Tracing = field(default_factory=Tracing)
    session_id: str
    """New at every start."""
    ingest_id: str
    """The same over restarts."""
    refused: Callable[[], Refused] = dict
    redos: TakeRedos = lambda _address, _redos: None


POLL_S: Final = 0.02
LAST_WORDS_POLLS: Final = 25
"""Half a second: a node that does not read now keeps the report before, and forgets it after a while."""


class Streams:
    """The streams by address, each with its task once `start` was called."""

    def __init__(self, make: Callable[[str], NodeStream]) -> None:
        self._make = make
        self._streams: dict[str, NodeStream] = {}
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def all(self) -> Sequence[NodeStream]:
        """In the order in which they were first needed."""
        return list(self._streams.values())

    def get(self, address: str) -> NodeStream:
        """The stream to an address."""
        stream = self._streams.get(address)
        if stream is None:
            stream = self._streams[address] = self._make(address)
            if self._tasks is not None:
                self._tasks.create_task(stream.run())
        return stream

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Run every stream, now and later, in this group."""
        self._tasks = tasks
        for stream in self._streams.values():
            tasks.create_task(stream.run())

    def tick(self) -> None:
        """Once a second."""
        for stream in self.all:
            stream.tick()

    async def last_words(self) -> None:
        """Tell every node that is there what is held at the end, so that nobody counts what went elsewhere."""
        self.tick()
        for _ in range(LAST_WORDS_POLLS):
            await asyncio.sleep(POLL_S)
            if not any(stream.owes_report for stream in self.all):
                break
        await asyncio.sleep(POLL_S)  # what was written is on its way before the streams are cut


def node_stream(
    address: str, settings: IngestSettings, around: Surroundings, answers: Answers, workers: Workers
) -> NodeStream:
    """A stream to a node, within the process's limits."""
    limits = StreamLimits(
        session_id=around.session_id,
        ingest_id=around.ingest_id,
        message_bytes_target=settings.message_bytes_target,
        batch_bytes_max=settings.batch_bytes_max,
        in_flight_bytes_max=max(1, settings.in_flight_bytes_max // len(settings.nodes)),
        welcome_timeout_s=settings.call_timeout_s,
        shard_count=settings.shard_count,
        redos_max=settings.redos_queued_max,
    )
    parts = StreamParts(
        connect=around.connect,
        answers=answers,
        clock=around.clock,
        tracing=around.tracing,
        redos=around.redos,
    )
    return NodeStream(address, limits, parts, workers)
