"""Channels for the occasional question to a store node; what carries changes has channels of its own.

Owns one channel for each address, made when first needed. Refuses to retry.
"""

from collections.abc import Callable, Mapping

import grpc.aio

from relayfile.ingest.sending.router import Router


class NodeChannels:
    """Channels by address, for as long as the process lives."""

    def __init__(self, router: Router, make: Callable[[str], grpc.aio.Channel]) -> None:
        self._router = router
        self._make = make
        self._channels: dict[str, grpc.aio.Channel] = {}

    def to_owner(self, workspace_id: str) -> grpc.aio.Channel:
        """The channel to the node that owns a workspace, as far as is known."""
        return self.to(self._router.address_of(self._router.shard_of(workspace_id)))

    def to_all(self) -> Mapping[str, grpc.aio.Channel]:
        """One for each node of the list, by address."""
        return {address: self.to(address) for address in self._router.nodes}

    async def close(self) -> None:
        """Close them all; calls in flight are cancelled."""
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()

    def to(self, address: str) -> grpc.aio.Channel:
        """The channel to the node at an address."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._make(address)
        return channel
