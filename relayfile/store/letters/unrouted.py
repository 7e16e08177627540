"""Dead letters of apps meet their routes: whichever of the two comes first, the delivery is tried again.

Owns that none is forgotten. A route takes the pending dead letters of its tenant along; a dead letter whose tenant has
a route already, because ingest did not know it yet, is queued as it is made; and so is one that failed again while its
route was being made. All in the entry that makes them, and the entries of a workspace come one after the other.
Refuses to try anything itself (`relayfile.store.letters.replayer`).
"""

import asyncio
from typing import Final

from relayfile.route_file import TENANT_HEADER, UNROUTED, route_path
from relayfile.store.engine import DeadLetterFilter, Engine, KeptDeadLetter, WorkspaceKey, WorkspaceView
from relayfile.store.plan.letters import LetterRef, LetterState
from relayfile.store.plan.result import Plan

QUEUED_AT_ONCE_MAX: Final = 10_000
"""Dead letters that one entry queues."""
LOOKED_AT_PER_STEP: Final = 1_000
"""Dead letters that a choice reads before others get a turn."""


async def pending_of(engine: Engine, key: WorkspaceKey, tenant: str) -> list[LetterRef]:
    """The pending dead letters of a tenant, oldest first, at most `QUEUED_AT_ONCE_MAX`."""
    chosen = DeadLetterFilter(reason=UNROUTED, state=LetterState.PENDING, tenant=tenant)
    found: list[LetterRef] = []
    after_id = ""
    while len(found) < QUEUED_AT_ONCE_MAX:
        async with engine.view(key) as view:
            refs, after_id = await view.letters_after(chosen, after_id, LOOKED_AT_PER_STEP)
        found += refs
        if not after_id:
            break
        await asyncio.sleep(0)
    return found[:QUEUED_AT_ONCE_MAX]


async def queue_routed(view: WorkspaceView, plan: Plan) -> None:
    """Queue those dead letters of the plan whose tenant has a route."""
    for index, row in enumerate(plan.dead_letters):
        tenant = row.raw.headers.get(TENANT_HEADER, "") if row.failure.reason == UNROUTED else ""
        if tenant and await view.file(route_path(tenant)) is not None:
            plan.dead_letters[index] = row._replace(is_queued=True)


async def is_routed_since(view: WorkspaceView, kept: KeptDeadLetter) -> bool:
    """Whether the tenant's route was made or changed after the dead letter was tried before. Once for each change: a
    route that does not help is not tried for ever."""
    tenant = kept.row.raw.headers.get(TENANT_HEADER, "")
    route = await view.file(route_path(tenant)) if tenant else None
    return route is not None and route.modified_us >= kept.last_attempt_us
