"""The stage that lets a call through: a verified token, and what the RPC's requirement asks of it.

Owns the one check of workspace and scope that every RPC goes through: once when the call begins, as far as the token
alone decides, and for every request message. What it lets through with a scope for some paths only is filtered where
rows are read (`relayfile.store.access`).
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from operator import attrgetter
from typing import Any

from relayfile.auth.certificates import certificate_principal
from relayfile.auth.principal import Principal, authorise_workspace, set_current_principal
from relayfile.auth.requirements import REQUIREMENTS, Reach, Requirement
from relayfile.auth.scopes import Grants, grants
from relayfile.auth.tokens import TokenVerifier
from relayfile.errors import PermissionDenied, Unauthenticated
from relayfile.interception import Call, Stage
from relayfile.paths import normalise

_SCHEME = "bearer "
_SHOWN_CHARACTERS_MAX = 256

RequestCheck = Callable[[Any], None]


def bearer_token(header: object) -> str:
    """The token in an ``authorization`` header. ``Unauthenticated`` when there is none."""
    if not isinstance(header, str) or header[: len(_SCHEME)].lower() != _SCHEME:
        raise Unauthenticated(why="no token was sent (authorization: Bearer TOKEN)")
    return header[len(_SCHEME) :].strip()


def auth_stage(verifier: TokenVerifier, service_names: frozenset[str] = frozenset()) -> Stage:
    """Verify the token of each call, bind its principal, and check each request against the RPC's requirement.

    A call without a token is its certificate's, when that has one of `service_names`. A token always counts instead:
    what a process passes on for a caller is the caller's, and never becomes the process's own.
    """

    @asynccontextmanager
    async def stage(call: Call) -> AsyncIterator[None]:
        principal = None
        if service_names and "authorization" not in call.metadata:
            principal = certificate_principal(call.context.auth_context(), service_names)
        if principal is None:
            principal = await verifier.identify(bearer_token(call.metadata.get("authorization")))
        set_current_principal(principal)
        call.on_request = request_check(principal, REQUIREMENTS[call.method])
        yield

    return stage


def require_scope(principal: Principal, action: str, *, narrow: bool = False) -> Grants:
    """What the token grants for `action`. `PermissionDenied`: nothing, or, unless `narrow`, only some paths."""
    granted = grants(principal.scopes, action)
    if granted.everything or (granted and narrow):
        return granted
    if granted:
        raise PermissionDenied(why=f"the token grants {action} only for some paths, and this is about no path")
    raise PermissionDenied(why=f"no scope of the token grants {action}")


def request_check(principal: Principal, requirement: Requirement) -> RequestCheck | None:
    """What is left to check in each request message, after what the token alone decides; None when nothing is."""
    in_reach = _reach_check(principal, requirement)
    if requirement.reach is Reach.SERVICE:
        return in_reach
    granted = require_scope(principal, requirement.action, narrow=requirement.takes_narrow_scopes)
    in_scope = None if granted.everything else _scope_check(granted, requirement)
    if in_reach is None or in_scope is None:
        return in_reach or in_scope

    def check(request: Any) -> None:
        in_reach(request)
        in_scope(request)

    return check


def _reach_check(principal: Principal, requirement: Requirement) -> RequestCheck | None:
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


def _scope_check(granted: Grants, requirement: Requirement) -> RequestCheck | None:
    """That the paths in a request are granted, for a token that grants some only."""
    paths_of = [attrgetter(field) for field in requirement.path_fields]
    tree_of = attrgetter(requirement.tree_field) if requirement.tree_field else None
    if not paths_of and tree_of is None:
        return None

    def check(request: Any) -> None:
        for path_of in paths_of:
            if (raw := path_of(request)) and not granted.allow(normalise(raw)):
                raise _out_of_scope(requirement.action, raw)
        if tree_of is not None and not granted.reach(normalise(tree_of(request))):
            raise _out_of_scope(requirement.action, tree_of(request))

    return check


def _out_of_scope(action: str, path: str) -> PermissionDenied:
    return PermissionDenied(why=f"no scope of the token grants {action} at {path[:_SHOWN_CHARACTERS_MAX]!r}")


def _workspace_check(principal: Principal, requirement: Requirement) -> RequestCheck:
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
