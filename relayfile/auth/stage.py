"""The stage that lets a call through: a verified token, and the reach that the RPC's requirement asks for."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

from relayfile.auth.principal import Principal, authorise_workspace, set_current_principal
from relayfile.auth.requirements import REQUIREMENTS, Reach, Requirement
from relayfile.auth.tokens import TokenVerifier
from relayfile.errors import PermissionDenied, Unauthenticated
from relayfile.interception import Call, Stage

_SCHEME = "bearer "


def bearer_token(header: object) -> str:
    """The token in an ``authorization`` header. ``Unauthenticated`` when there is none."""
    if not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthenticated(why="no token was sent (authorization: Bearer TOKEN)")
    return header[len(_SCHEME) :].strip()


def auth_stage(verifier: TokenVerifier) -> Stage:
    """Verify the token of each call, bind its principal, and check each request against the RPC's requirement."""

    @asynccontextmanager
    async def stage(call: Call) -> AsyncIterator[None]:
        principal = verifier.verify(bearer_token(call.metadata.get("authorization")))
        set_current_principal(principal)
        call.on_request = request_check(principal, REQUIREMENTS[call.method])
        yield

    return stage


def request_check(principal: Principal, requirement: Requirement) -> Callable[[Any], None] | None:
    """What is left to check in each request message, after what the token alone decides; None when nothing is."""
    match requirement.reach:
        case Reach.SERVICE:
            if not principal.is_service:
                raise PermissionDenied(why="only processes of the cluster may call this")
            return None
        case Reach.CLUSTER:
            if not principal.is_cluster:
                raise PermissionDenied(why="this is about the cluster and needs a token for all workspaces")
            return None
        case Reach.RECORDS:
            return None
        case Reach.WORKSPACE | Reach.WORKSPACE_OR_CLUSTER:
            if principal.is_cluster:
                return None
            return _workspace_check(principal, requirement)


def _workspace_check(principal: Principal, requirement: Requirement) -> Callable[[Any], None]:
    workspace_of = attrgetter(requirement.workspace_field)
    empty_is_cluster = requirement.reach is Reach.WORKSPACE_OR_CLUSTER

    def check(request: Any) -> None:
        workspace: str = workspace_of(request)
        if workspace:
            authorise_workspace(principal, workspace)
        elif empty_is_cluster:
            raise PermissionDenied(
                why="without a workspace this is about the cluster and needs a token for all of them"
            )
        # Otherwise an empty name is a later message of a stream, or a request that its servicer refuses as invalid.

    return check
