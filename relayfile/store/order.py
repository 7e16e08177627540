"""Who ordered an administrative action, and why: taken from the call, recorded with the effect.

A servicer takes the `Order` of its call and hands it on with the mutation; the mutation's kind turns it into a row of
the same plan, `plan.admin_actions_put.append(order.action(...))`. Refuses to write.
"""

from typing import NamedTuple

from relayfile.auth import current_principal
from relayfile.interception import current_call
from relayfile.store.plan.rows import ActionResult, AdminActionRow


class Order(NamedTuple):
    """What a call says about its caller."""

    actor: str
    method: str
    """`relayfile.v1.Service/Rpc`."""
    reason: str
    request_id: str
    correlation_id: str

    def action(
        self,
        action_id: str,
        action_us: int,
        subject: str,
        *,
        detail: str = "",
        result: ActionResult = ActionResult.SUCCEEDED,
    ) -> AdminActionRow:
        """The record of the order. `subject`: about what in the workspace; `detail`: what came of it, for people."""
        return AdminActionRow(
            action_id,
            action_us,
            self.actor,
            self.method,
            subject,
            self.reason,
            result,
            detail,
            self.request_id,
            self.correlation_id,
        )


def current_order(reason: str, request_id: str) -> Order:
    """The order of the call that is being served."""
    call = current_call()
    return Order(current_principal().subject, call.method.removeprefix("/"), reason, request_id, call.correlation_id)
