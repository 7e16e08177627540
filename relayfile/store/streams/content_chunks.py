"""Puts together content that came in pieces behind its message.

Bounded: one content at a time, of at most the size that was announced and allowed; anything else ends the stream.
"""

from relayfile.errors import InvalidArgument, TooLarge
from relayfile.v1 import shard_pb2


class ChunkedContent:
    """Holds back a message that announced content until the content is whole."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._request: shard_pb2.ApplyEnvelopesRequest | None = None
        self._content = bytearray()
        self._missing = 0

    def pass_on(self, request: shard_pb2.ApplyEnvelopesRequest) -> shard_pb2.ApplyEnvelopesRequest | None:
        """The next message that can be worked on: this one, the completed one that waited, or None."""
        if self._request is not None:
            return self._add(self._request, request)
        if request.HasField("chunk"):
            raise InvalidArgument.of("chunk", "follows no message that announced content")
        member = _announcing(request)
        if member is None:
            return request
        if member.content_follows_bytes > self._bytes_max:
            raise TooLarge(what="announced content", size=member.content_follows_bytes, limit=self._bytes_max)
        self._request, self._missing = request, member.content_follows_bytes
        return None

    def _add(
        self, waiting: shard_pb2.ApplyEnvelopesRequest, request: shard_pb2.ApplyEnvelopesRequest
    ) -> shard_pb2.ApplyEnvelopesRequest | None:
        if not request.HasField("chunk"):
            raise InvalidArgument.of("chunk", f"{self._missing} bytes of announced content are still to come")
        data = request.chunk.data
        self._missing -= len(data)
        if not data or self._missing < 0 or request.chunk.last is not (self._missing == 0):
            raise InvalidArgument.of("chunk", "the pieces do not add up to the announced length")
        self._content += data
        if self._missing:
            return None
        member = _announcing(waiting)
        assert member is not None
        content = bytes(self._content)
        if member.kind == shard_pb2.MEMBER_KIND_FAILED:
            member.raw.body = content
        else:
            member.content = content
        member.content_follows_bytes = 0
        self._request, self._content = None, bytearray()
        return waiting


def _announcing(request: shard_pb2.ApplyEnvelopesRequest) -> shard_pb2.FoldMember | None:
    """The member whose content follows: it can only be the last one of a message."""
    if not request.sub_batches:
        return None
    workspaces = request.sub_batches[-1].workspaces
    if not workspaces or not workspaces[-1].folds or not workspaces[-1].folds[-1].members:
        return None
    member = workspaces[-1].folds[-1].members[-1]
    return member if member.content_follows_bytes > 0 else None
