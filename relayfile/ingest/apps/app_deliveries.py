"""Deliveries of an app to its customers: each element of a request goes to the workspace of its tenant's route.

Owns what becomes of a delivery without a route: it is kept whole in the app's system workspace, as a dead letter
`UNROUTED` that is normalised again when the route appears. One that the rules ignore anyway is only counted there.
Refuses to know how a request is proven and accepted: that is the front's work, as for any other sender.
"""

from collections.abc import Sequence

from relayfile.ingest.apps.apps import App, Apps
from relayfile.ingest.apps.route_table import RouteTable
from relayfile.ingest.intake import Intake, PastShare, raise_refusal
from relayfile.ingest.providers.adapter import Delivery, Provider, Reading
from relayfile.route_file import UNROUTED
from relayfile.v1 import types_pb2


class AppDeliveries:
    """The apps of a process and the routes that it knows."""

    def __init__(self, apps: Apps, routes: RouteTable) -> None:
        self.apps = apps
        self._routes = routes

    def address(self, app: App, provider: Provider, reading: Reading, delivery: Delivery) -> tuple[bytes, str]:
        """Give the envelope its workspace; with no route, and something to lose, also the failure.

        Answers what is kept of a failed one: the body, and the tenant, which is empty when the delivery names none.
        """
        tenant = app.tenant_of(delivery.document, reading.headers)
        workspace = self._routes.workspace_of(app.name, tenant) if tenant else None
        envelope = delivery.envelope
        envelope.workspace_id = workspace or app.workspace
        if workspace is not None or not envelope.changes:
            return delivery.raw, tenant
        del envelope.changes[:]
        envelope.failure.reason = UNROUTED
        envelope.failure.message = (
            f"The customer {tenant!r} of the app {app.name!r} has no route."
            if tenant
            else f"The delivery names no customer where the app {app.name!r} looks for one."
        )
        return provider.raw_of(delivery, reading), tenant


async def accept_apart(intake: Intake, envelopes: Sequence[types_pb2.Envelope]) -> None:
    """Accept all; raise what refuses any of them, after the others were accepted.

    A customer past its share must not hold up those that share its request: its sender brings everything again, and
    what was taken is a duplicate then.
    """
    try:
        fates = await intake.accept(envelopes)
    except PastShare as refusal:
        past = refusal.seconds
        others = [each for each in envelopes if (each.workspace_id, each.provider) not in past]
        if others:
            await accept_apart(intake, others)
        raise
    raise_refusal(fates)
