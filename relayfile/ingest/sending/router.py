"""Which node takes a workspace's changes (D6, D11, D12). Owns the map of shards; refuses to open connections."""

from collections.abc import Sequence

from relayfile.placement import node_of, shard_of


class Router:
    """The static list of nodes, corrected by what nodes say about shards that they do not own."""

    def __init__(self, nodes: Sequence[str], shard_count: int) -> None:
        assert nodes, "a router needs nodes"
        self.shard_count = shard_count
        self._nodes = tuple(nodes)
        self._moved: dict[int, tuple[int, str]] = {}

    @property
    def nodes(self) -> tuple[str, ...]:
        """Addresses in the order of their index."""
        return self._nodes

    def shard_of(self, workspace_id: str) -> int:
        """The shard of a workspace."""
        return shard_of(workspace_id, self.shard_count)

    def address_of(self, shard_id: int) -> str:
        """Where a shard is served, as far as is known."""
        moved = self._moved.get(shard_id)
        return moved[1] if moved else self._nodes[node_of(shard_id, len(self._nodes))]

    def epoch_of(self, shard_id: int) -> int:
        """The epoch at which it is served there; 0 when it is not known."""
        moved = self._moved.get(shard_id)
        return moved[0] if moved else 0

    def learn(self, shard_id: int, epoch: int, address: str) -> bool:
        """A node says where a shard is; returns whether that is news. Older epochs and empty addresses are ignored."""
        if not address or epoch < self.epoch_of(shard_id) or address == self.address_of(shard_id):
            return False
        self._moved[shard_id] = (epoch, address)
        return True
