"""TopologyService: the shard map as this node knows it. It is fixed while a node runs (SQLite): a watcher hears it
once, and then that the node lives.

Owns the message. Who owns what is the ownership's business; the epochs of other nodes' shards are 0, because only
their owner knows them.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from relayfile.errors import InvalidArgument
from relayfile.placement import shards_of_node
from relayfile.store.ownership import Ownership
from relayfile.v1 import topology_pb2, topology_pb2_grpc
from relayfile.wire import set_us

if TYPE_CHECKING:
    from relayfile.interception import Context

SIGN_OF_LIFE_S: Final = 10.0


class TopologyService(topology_pb2_grpc.TopologyServiceServicer):
    """The map, for clients that call owners directly."""

    def __init__(self, ownership: Ownership, cluster_id: str, version: str, started_us: int) -> None:
        self._ownership = ownership
        self._cluster_id = cluster_id
        self._version = version
        self._started_us = started_us

    async def GetTopology(
        self, request: topology_pb2.GetTopologyRequest, context: "Context"
    ) -> topology_pb2.GetTopologyResponse:
        return topology_pb2.GetTopologyResponse(topology=self._map())

    async def WatchTopology(
        self, request: topology_pb2.WatchTopologyRequest, context: "Context"
    ) -> AsyncIterator[topology_pb2.WatchTopologyResponse]:
        if request.known_map_version < 0:
            raise InvalidArgument.of("known_map_version", "is negative")
        topology = self._map()
        version = topology.map_version
        if request.known_map_version != version:
            yield topology_pb2.WatchTopologyResponse(topology=topology, map_version=version)
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_S)
            yield topology_pb2.WatchTopologyResponse(map_version=version)

    def _map(self) -> topology_pb2.Topology:
        placement = self._ownership.placement
        topology = topology_pb2.Topology(
            cluster_id=self._cluster_id,
            shard_count=placement.shard_count,
            map_version=self._started_us,  # a restart takes new epochs: a newer map
            placement_mode=topology_pb2.PLACEMENT_MODE_STATIC,
            answering_node_index=placement.node_index,
        )
        for index, address in enumerate(placement.addresses):
            node = topology.nodes.add(node_index=index, address=address)
            if index == placement.node_index:
                node.state = topology_pb2.STORE_NODE_STATE_SERVING
                node.version = self._version
                set_us(node.start_time, self._started_us)
            assignment = topology.assignments.add(node_index=index, state=topology_pb2.SHARD_STATE_SERVING)
            for shard_id in shards_of_node(index, len(placement.addresses), placement.shard_count):
                assignment.shard_ids.append(shard_id)
                assignment.epochs.append(self._ownership.epoch_of(shard_id))
        return topology
