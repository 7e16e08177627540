"""AdminService: audits and scrubs of this node, and what was ordered in a workspace. Copies and the state of nodes are
not served yet.

Owns the filter and the pages of the list. What a row says was recorded with its effect, by `relayfile.store.order`.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from relayfile.clock import Clock
from relayfile.interception import not_served
from relayfile.page_token import seal, unseal
from relayfile.store.engine import AdminActionFilter
from relayfile.store.integrity.seam import Auditor
from relayfile.store.plan.rows import AdminActionRow
from relayfile.store.servicers.audit_stream import audit_messages, audit_order, scrub_messages, scrub_order
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading
from relayfile.v1 import admin_pb2, admin_pb2_grpc
from relayfile.wire import set_us, to_us

if TYPE_CHECKING:
    from typing import TypeAlias

    from relayfile.interception import Context

    AboutNode: TypeAlias = admin_pb2.AuditRequest | admin_pb2.ScrubRequest

PAGE_DEFAULT = 100
PAGE_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What operators see of this node, beside its workspaces."""

    auditor: Auditor
    scrub_bytes_per_second_max: int


class AdminService(admin_pb2_grpc.AdminServiceServicer):
    """What operators do with this node."""

    Backup = not_served
    DrainNode = not_served
    GetConfig = not_served
    GetStats = not_served

    def __init__(self, reading: Reading, clock: Clock, parts: AdminParts) -> None:
        self._reading = reading
        self._clock = clock
        self._parts = parts

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

    async def ListAdminActions(
        self, request: admin_pb2.ListAdminActionsRequest, context: "Context"
    ) -> admin_pb2.ListAdminActionsResponse:
        checks = Checks()
        checks.workspace(request.workspace_id)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        checks.done()
        chosen = AdminActionFilter(
            actor=request.actor,
            method=request.method,
            from_us=to_us(request.action_from) if request.HasField("action_from") else None,
            before_us=to_us(request.action_before) if request.HasField("action_before") else None,
        )
        binding = ("ListAdminActions", request.workspace_id, repr(chosen))
        before_id = unseal(binding, request.page_token)
        # Not of existing workspaces only: that one was deleted is in its list.
        async with self._reading.engine.view(self._reading.key(request.workspace_id)) as view:
            rows = await view.admin_actions(chosen, before_id, size + 1)
        answer = admin_pb2.ListAdminActionsResponse()
        for row in rows[:size]:
            _fill_action(answer.actions.add(), request.workspace_id, row)
        if len(rows) > size:
            answer.next_page_token = seal(binding, rows[size - 1].action_id)
        return answer

    def _check_node(self, checks: Checks, request: "AboutNode") -> None:
        """Of a call that came to the right node, or names none that there is."""
        if request.HasField("node_index"):
            last = len(self._reading.ownership.placement.addresses) - 1
            index = request.node_index
            checks.require(0 <= index <= last, "node_index", f"is {index}, and nodes have the indexes 0 to {last}")


def _fill_action(into: admin_pb2.AdminAction, workspace_id: str, row: AdminActionRow) -> None:
    into.action_id = row.action_id
    set_us(into.action_time, row.action_us)
    into.actor = row.actor
    into.method = row.method
    into.workspace_id = workspace_id
    into.subject = row.subject
    into.reason = row.reason
    into.result = row.result.value  # type: ignore[assignment]  # the numbers of the two enums are the same
    into.detail = row.detail
    into.request_id = row.request_id
    into.correlation_id = row.correlation_id
