"""Dead letters of an app, normalised again: what has a route by now goes on to its customer's workspace.

Owns where such a delivery goes. The store's own route counts and not this process's table, which may lag behind: a
route that the store has is never missed, and one that it does not have leaves the dead letter where it is. What is
forwarded keeps its envelope, its delivery and its times, so that doing it twice changes nothing. Refuses to talk about
leases.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from relayfile.errors import RelayfileError
from relayfile.ingest.apps.apps import App, Apps
from relayfile.ingest.delivery import Arrival, complete
from relayfile.ingest.intake import Intake, raise_refusal
from relayfile.ingest.providers.adapter import Delivery, Provider, RequestFacts
from relayfile.ingest.redo_worker import RedoPostponed
from relayfile.model import Failure
from relayfile.placement import app_of
from relayfile.route_file import UNROUTED
from relayfile.v1 import shard_pb2, types_pb2


class RouteLookup(Protocol):
    """The store (`RouteFeed`)."""

    async def workspace_of(self, app: str, tenant: str) -> str | None:
        """The workspace that a route leads to now; None: there is no route. Raises what the call raises."""
        ...


class AppRedo:
    """Forwards deliveries of apps."""

    def __init__(
        self,
        apps: Apps,
        providers: Mapping[str, Provider],
        routes: RouteLookup,
        intake: Intake,
        new_id: Callable[[], str],
    ) -> None:
        self._apps = apps
        self._providers = providers
        self._routes = routes
        self._intake = intake
        self._new_id = new_id

    async def forward(self, redo: shard_pb2.Redo, facts: RequestFacts) -> Failure | None:
        """Accept what the kept request amounts to in the workspaces of its customers, all of it, durably.

        None: done, or the rules ignore it now. A `Failure` is why it stays a dead letter. `RedoPostponed` when the
        store or the intake refuse, and when this process does not know the app.
        """
        app = self._apps.get(app_of(redo.workspace_id))
        if app is None or app.provider != redo.provider:
            raise RedoPostponed(f"no app {app_of(redo.workspace_id)!r} of {redo.provider} is configured here")
        deliveries = await asyncio.to_thread(self._providers[app.provider].normalise, facts)
        envelopes: list[types_pb2.Envelope] = []
        for delivery in deliveries:
            envelope = delivery.envelope
            if envelope.HasField("failure"):
                return Failure(envelope.failure.reason, envelope.failure.message)
            if not envelope.changes:
                continue
            failure = await self._placed(app, delivery, facts.headers)
            if failure is not None:
                return failure
            self._complete(redo, envelope, len(deliveries) == 1)
            envelopes.append(envelope)
        if envelopes:
            with _postponing():
                raise_refusal(await self._intake.accept(envelopes))
        return None

    async def _placed(self, app: App, delivery: Delivery, headers: Mapping[str, str]) -> Failure | None:
        tenant = app.tenant_of(delivery.document, headers)
        if not tenant:
            return Failure(UNROUTED, f"The delivery names no customer where the app {app.name!r} looks for one.")
        with _postponing():
            workspace = await self._routes.workspace_of(app.name, tenant)
        if workspace is None:
            return Failure(UNROUTED, f"The customer {tenant!r} of the app {app.name!r} has no route.")
        delivery.envelope.workspace_id = workspace
        delivery.envelope.provider = delivery.envelope.provider or app.provider
        return None

    def _complete(self, redo: shard_pb2.Redo, envelope: types_pb2.Envelope, is_alone: bool) -> None:
        """Of several, the ids of the provider tell one from the other; alone it is what was accepted."""
        envelope.envelope_id = redo.envelope_id if is_alone else self._new_id()
        if is_alone and redo.delivery_id != redo.envelope_id:
            envelope.delivery_id = redo.delivery_id
        complete(envelope, Arrival(redo.received_unix_us, redo.correlation_id, redo.traceparent), self._new_id)


@contextmanager
def _postponing() -> Iterator[None]:
    try:
        yield
    except RelayfileError as error:
        raise RedoPostponed(str(error)) from error
