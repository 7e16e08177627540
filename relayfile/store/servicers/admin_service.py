"""AdminService: audits, scrubs and copies of this node, its settings and figures, and what was ordered.

Owns what the requests have in common: which node they are about. Each concern has a module of its own.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc.aio

from relayfile.clock import Clock
from relayfile.errors import PlacementStatic
from relayfile.settings import Row, describe
from relayfile.store.all_nodes import AllNodes, Metadata
from relayfile.store.integrity.seam import Auditor
from relayfile.store.servicers.admin_listing import AdminListing
from relayfile.store.servicers.audit_stream import audit_messages, audit_order, scrub_messages, scrub_order
from relayfile.store.servicers.backup_stream import BackupParts, Backups, check_backup
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.node_config import fill_config
from relayfile.store.servicers.node_figures import NodeFigures
from relayfile.store.servicers.reading import Reading
from relayfile.v1 import admin_pb2, admin_pb2_grpc

if TYPE_CHECKING:
    from typing import TypeAlias

    from relayfile.interception import Context

    AboutNode: TypeAlias = (
        admin_pb2.AuditRequest
        | admin_pb2.ScrubRequest
        | admin_pb2.BackupRequest
        | admin_pb2.DrainNodeRequest
        | admin_pb2.GetConfigRequest
        | admin_pb2.GetStatsRequest
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What operators see of this node, beside its workspaces."""

    auditor: Auditor
    backups: BackupParts
    scrub_bytes_per_second_max: int
    nodes: AllNodes
    figures: NodeFigures
    version: str
    settings: Callable[[], Sequence[Row]] = describe
    """Those in force in this process."""


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """What operators do with this node."""

    def __init__(self, reading: Reading, clock: Clock, parts: AdminParts) -> None:
        self._reading = reading
        self._clock = clock
        self._parts = parts
        self._listing = AdminListing(reading, parts.nodes)
        self._backups = Backups(parts.backups)

    async def Audit(
        self, request: admin_pb2.AuditRequest, context: "Context"
    ) -> AsyncIterator[admin_pb2.AuditResponse]:
        checks = Checks()
        order = audit_order(checks, request)
        self._check_node(checks, request)
        checks.done()
        async with aclosing(audit_messages(self._parts.auditor, order, self._clock)) as messages:
            async for message in messages:
                yield message

    async def Scrub(
        self, request: admin_pb2.ScrubRequest, context: "Context"
    ) -> AsyncIterator[admin_pb2.ScrubResponse]:
        checks = Checks()
        order = scrub_order(checks, request, self._parts.scrub_bytes_per_second_max)
        self._check_node(checks, request)
        checks.done()
        async with aclosing(scrub_messages(self._parts.auditor, order, self._clock)) as messages:
            async for message in messages:
                yield message

    async def Backup(
        self, request: admin_pb2.BackupRequest, context: "Context"
    ) -> AsyncIterator[admin_pb2.BackupResponse]:
        checks = Checks()
        self._check_node(checks, request)
        check_backup(checks, request)
        checks.done()
        async with aclosing(self._backups.messages(request)) as messages:
            async for message in messages:
                yield message

    async def ListAdminActions(
        self, request: admin_pb2.ListAdminActionsRequest, context: "Context"
    ) -> admin_pb2.ListAdminActionsResponse:
        return await self._listing.page(request)

    async def DrainNode(self, request: admin_pb2.DrainNodeRequest, context: "Context") -> admin_pb2.DrainNodeResponse:
        checks = Checks()
        checks.require(request.HasField("node_index"), "node_index", "is required: 0 must be said")
        self._check_node(checks, request)
        checks.reason(request.reason)
        checks.request_id(request.request_id)
        checks.done()
        raise PlacementStatic(node=request.node_index)

    async def GetConfig(self, request: admin_pb2.GetConfigRequest, context: "Context") -> admin_pb2.GetConfigResponse:
        checks = Checks()
        self._check_node(checks, request)
        checks.done()
        nodes = self._parts.nodes
        answer = admin_pb2.GetConfigResponse(node_index=nodes.own_index, version=self._parts.version)
        fill_config(answer, self._parts.settings(), request.name_prefix)
        return answer

    async def GetStats(self, request: admin_pb2.GetStatsRequest, context: "Context") -> admin_pb2.GetStatsResponse:
        checks = Checks()
        self._check_node(checks, request)
        checks.not_negative(request.top_workspaces_max, "top_workspaces_max")
        checks.done()
        nodes = self._parts.nodes
        is_own = not request.HasField("node_index") or request.node_index == nodes.own_index
        answer = admin_pb2.GetStatsResponse()
        if is_own:
            await self._parts.figures.fill(
                answer.nodes.add(), include_shards=request.include_shards, top_max=request.top_workspaces_max
            )
        if (request.HasField("node_index") and is_own) or nodes.is_asked_by_another:
            return answer

        async def ask(channel: grpc.aio.Channel, metadata: Metadata, timeout_s: float) -> admin_pb2.GetStatsResponse:
            stub: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(channel)
            return await stub.GetStats(request, metadata=metadata, timeout=timeout_s)

        answers = await nodes.ask(ask, [request.node_index] if request.HasField("node_index") else None)
        for other in answers.by_node.values():
            answer.nodes.extend(other.nodes)
        answer.nodes.sort(key=lambda stats: stats.node.node_index)
        answer.unreachable_node_indexes.extend(answers.unreachable)
        return answer

    def _check_node(self, checks: Checks, request: "AboutNode") -> None:
        """Of a call that came to the right node, or names none that there is."""
        if request.HasField("node_index"):
            last = len(self._reading.ownership.placement.addresses) - 1
            index = request.node_index
            checks.require(0 <= index <= last, "node_index", f"is {index}, and nodes have the indexes 0 to {last}")
