"""Setting pauses in the shard that owns the workspace. Refuses to keep any: what is paused is told on the streams."""

from collections.abc import Callable
from typing import Protocol

import grpc.aio

from relayfile.errors import DeadlineExpired, Unavailable
from relayfile.interception import CORRELATION_KEY
from relayfile.status import from_rpc_error
from relayfile.v1 import shard_pb2, shard_pb2_grpc

Metadata = tuple[tuple[str, str], ...]


class PauseSetter(Protocol):
    """Has a pause set or ended."""

    async def set_pause(
        self, request: shard_pb2.SetPauseRequest, correlation_id: str, time_left_s: float | None
    ) -> None:
        """Return when it is durable and was told to the connected ingest processes.

        `Unavailable` when the owner is away; `RelayfileError` when it refuses.
        """
        ...


class OwnerPauses:
    """Calls `ShardService.SetPause` of the owner."""

    def __init__(
        self, channel_to: Callable[[str], grpc.aio.Channel], metadata: Callable[[], Metadata], timeout_s: float
    ) -> None:
        """``channel_to`` gives the channel to a workspace's owner."""
        self._channel_to = channel_to
        self._metadata = metadata
        self._timeout_s = timeout_s

    async def set_pause(
        self, request: shard_pb2.SetPauseRequest, correlation_id: str, time_left_s: float | None
    ) -> None:
        """As `PauseSetter`."""
        stub: shard_pb2_grpc.ShardServiceAsyncStub = shard_pb2_grpc.ShardServiceStub(
            self._channel_to(request.workspace_id)
        )
        metadata = (*self._metadata(), (CORRELATION_KEY, correlation_id))
        timeout_s = self._timeout_s if time_left_s is None else min(self._timeout_s, time_left_s)
        try:
            await stub.SetPause(request, timeout=timeout_s, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error)
            if isinstance(told, DeadlineExpired):
                raise Unavailable(what="store node that owns the workspace") from error
            raise told from error
