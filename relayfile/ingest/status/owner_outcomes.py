"""Asking the store nodes for the counters that the status shows.

Owns the questions and what is said of a node that does not answer. Refuses to add anything up.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import grpc.aio

from relayfile.errors import DeadlineExpired, Draining, NotOwner, RelayfileError, Unavailable
from relayfile.interception import patience_s
from relayfile.status import from_rpc_error
from relayfile.v1 import shard_pb2, shard_pb2_grpc

SHARD: Final = "shard"
"""What the parts of the status that come from store nodes are called, with the address where there are several."""


@dataclass(frozen=True, slots=True)
class OwnerAnswer:
    """What one node said."""

    source: str
    """Its name among the parts of the status."""
    outcomes: shard_pb2.GetOutcomesResponse | None
    missing_reason: str = ""
    """Why there is none."""


class OutcomeSource(Protocol):
    """Asks the owners for counters."""

    async def outcomes(self, workspace: str) -> Sequence[OwnerAnswer]:
        """Of the owner of ``workspace`` (empty: of every node), whether they can be reached or not.

        `RelayfileError` when the owner refuses, as it does for a workspace that does not exist.
        """
        ...


class OwnerOutcomes:
    """Asks `ShardService.GetOutcomes`, all nodes at once."""

    def __init__(
        self,
        channel_to: Callable[[str], grpc.aio.Channel],
        channels: Callable[[], Mapping[str, grpc.aio.Channel]],
        metadata: Callable[[], tuple[tuple[str, str], ...]],
        timeout_s: float,
    ) -> None:
        """``channel_to`` gives the channel to a workspace's owner, ``channels`` those to all nodes by address."""
        self._channel_to = channel_to
        self._channels = channels
        self._metadata = metadata
        self._timeout_s = timeout_s

    async def outcomes(self, workspace: str) -> Sequence[OwnerAnswer]:
        """As `OutcomeSource`."""
        if workspace:
            return [await self._ask(SHARD, self._channel_to(workspace), workspace)]
        questions = [self._ask(f"{SHARD} {address}", to, "") for address, to in self._channels().items()]
        return await asyncio.gather(*questions)

    async def _ask(self, source: str, channel: grpc.aio.Channel, workspace: str) -> OwnerAnswer:
        stub: shard_pb2_grpc.ShardServiceAsyncStub = shard_pb2_grpc.ShardServiceStub(channel)
        request = shard_pb2.GetOutcomesRequest(workspace_id=workspace)
        try:
            answer = await stub.GetOutcomes(request, timeout=patience_s(self._timeout_s), metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            told = from_rpc_error(error)
            if isinstance(told, DeadlineExpired | Unavailable | Draining | NotOwner):
                return OwnerAnswer(source, None, told.reason)
            if not workspace and isinstance(told, RelayfileError):
                # One node's trouble must not hide what the others say.
                return OwnerAnswer(source, None, told.reason)
            raise told from error
        return OwnerAnswer(source, answer)
