"""ListAdminActions: what was ordered in a workspace, or in all workspaces of all nodes, newest first.

Owns the filter and the pages of the list. What a row says was recorded with its effect, by `relayfile.store.order`.
"""

import grpc.aio

from relayfile.page_token import seal, unseal
from relayfile.store.all_nodes import AllNodes, Metadata
from relayfile.store.engine import AdminActionFilter
from relayfile.store.plan.rows import AdminActionRow
from relayfile.store.servicers.checks import Checks
from relayfile.store.servicers.reading import Reading
from relayfile.v1 import admin_pb2, admin_pb2_grpc
from relayfile.wire import set_us

PAGE_DEFAULT = 100
PAGE_MAX = 1_000


class AdminListing:
    """Pages of administrative actions."""

    def __init__(self, reading: Reading, nodes: AllNodes) -> None:
        self._reading = reading
        self._nodes = nodes

    async def page(self, request: admin_pb2.ListAdminActionsRequest) -> admin_pb2.ListAdminActionsResponse:
        """The page that is asked for."""
        checks = Checks()
        if request.workspace_id:
            checks.workspace(request.workspace_id)
        size = checks.page_size(request.page_size, PAGE_DEFAULT, PAGE_MAX)
        checks.page_token(request.page_token)
        action_from = request.action_from if request.HasField("action_from") else None
        action_before = request.action_before if request.HasField("action_before") else None
        chosen = AdminActionFilter(
            actor=request.actor,
            method=request.method,
            from_us=checks.time_us(action_from, "action_from"),
            before_us=checks.time_us(action_before, "action_before"),
        )
        checks.done()
        binding = ("ListAdminActions", request.workspace_id, repr(chosen))
        before_id = unseal(binding, request.page_token)
        answer = admin_pb2.ListAdminActionsResponse()
        found: list[admin_pb2.AdminAction] = []
        has_more = False
        if request.workspace_id:
            # Not of existing workspaces only: that one was deleted is in its list.
            async with self._reading.engine.view(self._reading.key(request.workspace_id)) as view:
                rows = await view.admin_actions(chosen, before_id, size + 1)
            found += [_action(request.workspace_id, row) for row in rows]
        else:
            placed = await self._reading.engine.admin_actions(chosen, before_id, size + 1)
            found += [_action(workspace_id, row) for workspace_id, row in placed]
            if not self._nodes.is_asked_by_another:
                has_more = await self._add_others(request, found, answer)
        # Ids sort by time, whichever node made them.
        found.sort(key=lambda action: action.action_id, reverse=True)
        answer.actions.extend(found[:size])
        if len(found) > size or (has_more and found):
            answer.next_page_token = seal(binding, found[:size][-1].action_id)
        return answer

    async def _add_others(
        self,
        request: admin_pb2.ListAdminActionsRequest,
        found: list[admin_pb2.AdminAction],
        answer: admin_pb2.ListAdminActionsResponse,
    ) -> bool:
        """Add the other nodes' pages to `found`; whether one of them has more."""

        async def ask(
            channel: grpc.aio.Channel, metadata: Metadata, timeout_s: float
        ) -> admin_pb2.ListAdminActionsResponse:
            stub: admin_pb2_grpc.AdminServiceAsyncStub = admin_pb2_grpc.AdminServiceStub(channel)
            return await stub.ListAdminActions(request, metadata=metadata, timeout=timeout_s)

        answers = await self._nodes.ask(ask)
        for page in answers.by_node.values():
            found += page.actions
        answer.unreachable_node_indexes.extend(answers.unreachable)
        return any(page.next_page_token for page in answers.by_node.values())


def _action(workspace_id: str, row: AdminActionRow) -> admin_pb2.AdminAction:
    into = admin_pb2.AdminAction()
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
    return into
