"""The stage that holds callers to their rates: after they are known, before their requests are served.

Owns what is counted: a call once, with its first request; the bytes of every request; those of every answer,
afterwards. The processes of the cluster are not held: what they bring was admitted where it came in, or has limits of
its own.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

from relayfile.auth.principal import current_principal
from relayfile.auth.rates import Rates
from relayfile.auth.requirements import REQUIREMENTS, Reach
from relayfile.clock import Clock
from relayfile.errors import RateLimited
from relayfile.interception import Call, Stage


def rate_stage(rates: Rates, clock: Clock) -> Stage:
    """Refuse with `RateLimited` what is more than `rates` admit."""

    @asynccontextmanager
    async def stage(call: Call) -> AsyncIterator[None]:
        principal = current_principal()
        if not principal.is_service:
            _hold(call, rates, clock, principal.subject)
        yield

    return stage


def _hold(call: Call, rates: Rates, clock: Clock, subject: str) -> None:
    requirement = REQUIREMENTS[call.method]
    names_one = requirement.reach in (Reach.WORKSPACE, Reach.WORKSPACE_OR_CLUSTER)
    workspace_of = attrgetter(requirement.workspace_field) if names_one else None
    is_allowed = call.on_request
    workspace = ""
    calls = 1

    def on_request(request: Any) -> None:
        nonlocal workspace, calls
        if is_allowed is not None:
            is_allowed(request)
        if workspace_of is not None and not workspace:
            workspace = workspace_of(request)
        wait_s = rates.admit(workspace, subject, calls, request.ByteSize(), clock.monotonic())
        if wait_s:
            raise RateLimited(workspace=workspace, retry_after_s=wait_s)
        calls = 0

    def on_answer(answer: Any) -> None:
        size = len(answer) if isinstance(answer, bytes) else answer.ByteSize()
        rates.charge(workspace, subject, size, clock.monotonic())

    call.on_request, call.on_answer = on_request, on_answer
