"""Which shards this node owns, at which epoch, and who owns the others (D11, static mode).

Owns the mapping for as long as the process lives: shard s belongs to node s mod N, and each start of a node bumps the
epochs of its shards, so that whatever an earlier process still has in flight is fenced. Refuses to write: the engine
keeps the rows and checks them in every transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from relayfile.errors import NotOwner
from relayfile.model import ShardId
from relayfile.placement import node_of, shard_of, shards_of_node
from relayfile.store.engine import Engine, Fence, ShardRow, WorkspaceKey

UNKNOWN_EPOCH = 0
"""Of shards of other nodes: in static mode only their owner knows it."""


@dataclass(frozen=True, slots=True)
class Local:
    """This node owns it."""

    key: WorkspaceKey
    epoch: int


@dataclass(frozen=True, slots=True)
class Remote:
    """Another node owns it."""

    key: WorkspaceKey
    node_index: int
    address: str
    epoch: int = UNKNOWN_EPOCH


Owner: TypeAlias = Local | Remote


@dataclass(frozen=True, slots=True)
class StaticPlacement:
    """The fixed list of nodes."""

    shard_count: int
    node_index: int
    addresses: tuple[str, ...]
    """By node index; of this node the address that it advertises."""


class Ownership:
    """Made by `acquire`; valid until the process ends, since in static mode nobody can take a shard away."""

    def __init__(self, placement: StaticPlacement, rows: Sequence[ShardRow]) -> None:
        self.placement = placement
        self._epochs = {row.shard_id: row.epoch for row in rows}

    @classmethod
    async def acquire(cls, engine: Engine, placement: StaticPlacement) -> "Ownership":
        """Own this node's shards from now on; durable when it returns."""
        shards = shards_of_node(placement.node_index, len(placement.addresses), placement.shard_count)
        address = placement.addresses[placement.node_index]
        return cls(placement, await engine.acquire_shards(shards, placement.node_index, address))

    def advertise(self, address: str) -> None:
        """This node is reached at `address`: of a node with port 0, which learns its port after it owns its shards."""
        addresses = list(self.placement.addresses)
        addresses[self.placement.node_index] = address
        self.placement = replace(self.placement, addresses=tuple(addresses))

    def owner_of(self, workspace_id: str) -> Owner:
        """Who serves the workspace."""
        key = WorkspaceKey(shard_of(workspace_id, self.placement.shard_count), workspace_id)
        epoch = self._epochs.get(key.shard_id)
        if epoch is not None:
            return Local(key, epoch)
        index = node_of(key.shard_id, len(self.placement.addresses))
        return Remote(key, index, self.placement.addresses[index])

    def local_key(self, workspace_id: str) -> WorkspaceKey:
        """The key of a workspace that this node owns; `NotOwner` for any other."""
        owner = self.owner_of(workspace_id)
        if isinstance(owner, Remote):
            raise self.not_owner(owner.key.shard_id)
        return owner.key

    def epoch_of(self, shard_id: int) -> int:
        """The epoch at which this node owns the shard; `UNKNOWN_EPOCH` when it does not."""
        return self._epochs.get(shard_id, UNKNOWN_EPOCH)

    def fences(self, shard_ids: set[int]) -> list[Fence]:
        """What a transaction that writes these shards must check; they are all owned."""
        return [Fence(shard_id, self._epochs[shard_id]) for shard_id in sorted(shard_ids)]

    def epochs(self) -> dict[ShardId, int]:
        """Every shard of this node with its epoch, ascending."""
        return {ShardId(shard_id): self._epochs[shard_id] for shard_id in sorted(self._epochs)}

    def not_owner(self, shard_id: int) -> NotOwner:
        """The error that sends a caller to the owner."""
        address = self.placement.addresses[node_of(shard_id, len(self.placement.addresses))]
        return NotOwner(shard=shard_id, epoch=self.epoch_of(shard_id), address=address)
