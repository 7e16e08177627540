"""What each store node is told of refused requests, so that every process can show them.

Owns which node hears of whom, and what it heard last. Refuses to count: that is `rejected`'s work.
"""

from collections.abc import Callable, Mapping
from typing import TypeAlias

from relayfile.ingest.sending.router import Router
from relayfile.placement import check_workspace_id
from relayfile.v1 import shard_pb2

Refused: TypeAlias = Mapping[tuple[str, str], int]
"""Requests refused since the start, by workspace and provider as they were named: they may not exist."""


class RefusalReports:
    """Looked at once a second for each node."""

    def __init__(self, router: Router, refused: Callable[[], Refused] = dict) -> None:
        self._router = router
        self._refused = refused
        self._told: dict[str, Refused] = {}

    def of(self, address: str) -> tuple[list[shard_pb2.PendingReport], bool]:
        """What was refused for the workspaces of a node, and whether it heard something else last."""
        mine = {
            sender: count
            for sender, count in self._refused().items()
            if check_workspace_id(sender[0]) is None
            and self._router.address_of(self._router.shard_of(sender[0])) == address
        }
        is_news = mine != self._told.get(address, {})
        self._told[address] = mine
        return [
            shard_pb2.PendingReport(workspace_id=workspace_id, provider=provider, refused=count)
            for (workspace_id, provider), count in mine.items()
        ], is_news
