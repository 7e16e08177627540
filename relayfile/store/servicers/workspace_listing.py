"""ListWorkspaces: the workspaces of all nodes by name, merged by the node that is called.

Owns the merge. Every node is asked for as many as a page holds, from the same name on; the first of all of them are the
page. A call that another node passed on is about the asked node alone. A node that does not answer is named, and its
workspaces are missing from that page.
"""

import asyncio
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, NamedTuple

import grpc
import grpc.aio

from relayfile.interception import current_call
from relayfile.page_token import seal, unseal
from relayfile.status import from_rpc_error
from relayfile.store.engine import ListedWorkspace, WorkspaceFilter
from relayfile.store.proxy import PROXIED_KEY, Peers, passed_on
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading, TimeLeft
from relayfile.store.servicers.wire import fill_totals, fill_workspace
from relayfile.v1 import workspace_pb2, workspace_pb2_grpc
from relayfile.wire import set_us

PAGE_DEFAULT: Final = 100
PAGE_MAX: Final = 1_000
PREFIX_BYTES_MAX: Final = 128
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED})


class _Part(NamedTuple):
    """What one node has of a page."""

    workspaces: Iterable[workspace_pb2.Workspace]
    has_more: bool
    unreachable: int | None = None
    """Index of a node that did not answer."""


@dataclass(frozen=True, slots=True)
class WorkspaceListing:
    """Serves lists."""

    reading: Reading
    peers: Peers
    timeout_s: float
    """How long another node is waited for."""
    tombstone_retention_us: int

    async def page(
        self, request: workspace_pb2.ListWorkspacesRequest, call: TimeLeft
    ) -> workspace_pb2.ListWorkspacesResponse:
        """The page after the token's."""
        checks = Checks()
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.at_most(len(request.workspace_id_prefix.encode()), PREFIX_BYTES_MAX, "workspace_id_prefix", "bytes")
        checks.done()
        chosen = WorkspaceFilter(request.workspace_id_prefix, request.show_deleted, request.show_system)
        binding = ("ListWorkspaces", repr(chosen))
        after = unseal(binding, request.page_token)
        others = () if PROXIED_KEY in current_call().metadata else self._other_nodes()
        parts = await asyncio.gather(
            self._own(chosen, after, size), *(self._of(index, address, request, call) for index, address in others)
        )
        answer = workspace_pb2.ListWorkspacesResponse(
            unreachable_node_indexes=[part.unreachable for part in parts if part.unreachable is not None]
        )
        merged = heapq.merge(*(part.workspaces for part in parts), key=attrgetter("workspace_id"))
        has_more = any(part.has_more for part in parts)
        for workspace in merged:
            if len(answer.workspaces) == size:
                has_more = True
                break
            answer.workspaces.append(workspace)
        if has_more and answer.workspaces:
            answer.next_page_token = seal(binding, answer.workspaces[-1].workspace_id)
        return answer

    def _other_nodes(self) -> list[tuple[int, str]]:
        placement = self.reading.ownership.placement
        return [each for each in enumerate(placement.addresses) if each[0] != placement.node_index]

    async def _own(self, chosen: WorkspaceFilter, after: str, size: int) -> _Part:
        found = await self.reading.engine.workspaces(chosen, after, size + 1)
        return _Part([self._message(each) for each in found[:size]], len(found) > size)

    async def _of(
        self, index: int, address: str, request: workspace_pb2.ListWorkspacesRequest, call: TimeLeft
    ) -> _Part:
        """What another node has. Its token is sealed as ours, so that ours is good for it."""
        stub: workspace_pb2_grpc.WorkspaceServiceAsyncStub = workspace_pb2_grpc.WorkspaceServiceStub(
            self.peers.channel(address)
        )
        remaining = call.time_remaining()
        timeout_s = self.timeout_s if remaining is None else min(self.timeout_s, remaining)
        try:
            answer = await stub.ListWorkspaces(request, metadata=passed_on(), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _AWAY:
                raise from_rpc_error(error) from error
            return _Part((), has_more=False, unreachable=index)
        return _Part(answer.workspaces, bool(answer.next_page_token))

    def _message(self, listed: ListedWorkspace) -> workspace_pb2.Workspace:
        message = workspace_pb2.Workspace(oldest_event_revision=listed.oldest_event_revision or 0)
        fill_workspace(message, listed.key, listed.row)
        fill_totals(message.totals, listed.root)
        if listed.row.deleted_us is not None:
            set_us(message.delete_time, listed.row.deleted_us)
            set_us(message.expire_time, listed.row.deleted_us + self.tombstone_retention_us)
        return message
