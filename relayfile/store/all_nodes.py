"""Asks every other node of the cluster the same: what is merged by the node that is called.

Owns that a question goes one hop, with the caller's own credentials and what is left of its deadline. A node that does
not answer is named, and the others' answers stand.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import grpc.aio

from relayfile.errors import PeerFailed, RelayfileError, Unavailable
from relayfile.interception import current_call, patience_s
from relayfile.status import from_rpc_error
from relayfile.store.ownership import Ownership
from relayfile.store.proxy import PROXIED_KEY, Peers, passed_on

Answer = TypeVar("Answer")
Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]

_AWAY = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED})


@dataclass(slots=True)
class Answers(Generic[Answer]):
    """What the nodes said."""

    by_node: dict[int, Answer]
    unreachable: list[int]
    """Indexes of nodes that did not answer, ascending."""


@dataclass(frozen=True, slots=True)
class AllNodes:
    """The other nodes, as this one reaches them."""

    ownership: Ownership
    peers: Peers
    timeout_s: float
    """Longest wait for a node."""

    @property
    def own_index(self) -> int:
        """This node's."""
        return self.ownership.placement.node_index

    @property
    def is_asked_by_another(self) -> bool:
        """Whether the call that is being served comes from a node that asks all: then it is about this one alone."""
        return PROXIED_KEY in current_call().metadata

    async def ask(
        self,
        question: Callable[[grpc.aio.Channel, Metadata, float], Awaitable[Answer]],
        among: Iterable[int] | None = None,
    ) -> Answers[Answer]:
        """`question` takes a channel, the metadata to show and the seconds that it may take. An answer that is an error
        for another reason than that the node is away is raised."""
        addresses = self.ownership.placement.addresses
        indexes = range(len(addresses)) if among is None else among
        found: dict[int, Answer] = {}
        away: list[int] = []
        metadata = passed_on()
        timeout_s = patience_s(self.timeout_s)

        async def ask_one(index: int) -> None:
            try:
                found[index] = await question(self.peers.channel(addresses[index]), metadata, timeout_s)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY:
                    raise _refusal(error, index) from error
                away.append(index)

        await asyncio.gather(*(ask_one(index) for index in indexes if index != self.own_index))
        return Answers(found, sorted(away))


def _refusal(error: grpc.aio.AioRpcError, index: int) -> RelayfileError:
    refusal = from_rpc_error(error)
    return Unavailable(what=f"node {index}") if isinstance(refusal, PeerFailed) else refusal
