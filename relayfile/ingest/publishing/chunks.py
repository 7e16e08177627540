"""Content that is too large for one message: announced in a batch's last envelope, sent after it in pieces.

Owns putting it together within its announced size, and reading past it when it cannot be accepted, so that the stream
goes on. Refuses pieces that nobody announced and announcements that nobody keeps: those end the stream.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from relayfile.errors import InvalidArgument, RelayfileError, Unavailable
from relayfile.ingest.webhooks.request_body import BodyRoom
from relayfile.v1 import ingest_pb2, types_pb2


@dataclass(slots=True)
class Assembly:
    """One announced content."""

    name: str
    """The field that announced it."""
    announced_bytes: int
    bytes_max: int
    change: types_pb2.FileChange | None
    """None: the raw body of ``envelope``."""
    envelope: types_pb2.Envelope
    _parts: list[bytes] = field(default_factory=list)
    _received_bytes: int = 0
    _problem: RelayfileError | None = None

    @classmethod
    def announced_by(
        cls, envelopes: Sequence[types_pb2.Envelope], content_bytes_max: int, raw_bytes_max: int
    ) -> "Assembly | None":
        """What the last field of ``envelopes`` announces; None: nothing."""
        if not envelopes:
            return None
        index, envelope = len(envelopes) - 1, envelopes[-1]
        if envelope.raw.body_follows_bytes > 0:
            name = f"envelopes[{index}].raw.body_follows_bytes"
            return cls(name, envelope.raw.body_follows_bytes, raw_bytes_max, None, envelope)
        if envelope.changes and envelope.changes[-1].content_follows_bytes > 0:
            change = envelope.changes[-1]
            name = f"envelopes[{index}].changes[{len(envelope.changes) - 1}].content_follows_bytes"
            return cls(name, change.content_follows_bytes, content_bytes_max, change, envelope)
        return None

    def reserve(self, room: BodyRoom) -> int:
        """Take room for the announced bytes; returns how many were taken. Without room nothing is kept."""
        if self.change.content if self.change is not None else self.envelope.raw.body:
            self._problem = InvalidArgument.of(self.name, "announces content where some is set already")
            return 0
        if self.announced_bytes > self.bytes_max:
            why = f"announces {self.announced_bytes} bytes; at most {self.bytes_max} are accepted"
            self._problem = InvalidArgument.of(self.name, why)
            return 0
        try:
            room.take(self.announced_bytes)
        except Unavailable as error:
            self._problem = error
            return 0
        return self.announced_bytes

    async def read(self, requests: AsyncIterator[ingest_pb2.PublishEnvelopesRequest]) -> RelayfileError | None:
        """Read the pieces and put them into the envelope; why it cannot be accepted, or None.

        `InvalidArgument` ends the stream: something else came than the pieces.
        """
        async for request in requests:
            if not request.HasField("chunk") or request.envelopes:
                raise InvalidArgument.of("chunk", f"is expected next: {self.name} announced content")
            self._add(request.chunk.data)
            if request.chunk.last:
                return self._finish()
        raise InvalidArgument.of("chunk", f"is missing: {self.name} announced content, and the stream ended")

    def _add(self, data: bytes) -> None:
        self._received_bytes += len(data)
        if self._problem is None and self._received_bytes > self.announced_bytes:
            self._parts.clear()
            self._problem = self._mismatch("more")
        if self._problem is None:
            self._parts.append(data)

    def _finish(self) -> RelayfileError | None:
        if self._problem is None and self._received_bytes < self.announced_bytes:
            self._problem = self._mismatch(str(self._received_bytes))
        if self._problem is not None:
            return self._problem
        content = b"".join(self._parts)
        if self.change is None:
            self.envelope.raw.body = content
            self.envelope.raw.body_follows_bytes = 0
        else:
            self.change.content = content
            self.change.content_follows_bytes = 0
        return None

    def _mismatch(self, came: str) -> InvalidArgument:
        return InvalidArgument.of(self.name, f"announces {self.announced_bytes} bytes, and {came} came")
