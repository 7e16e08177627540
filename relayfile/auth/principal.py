"""Who calls: the identity that a verified token gives, and what it may touch by workspace. Pure values."""

from contextvars import ContextVar
from dataclasses import dataclass

from relayfile.errors import PermissionDenied, Unauthenticated

ALL = "*"
"""The workspace claim of a token for the whole cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller, as its token describes it."""

    subject: str
    workspaces: frozenset[str]
    """Workspace ids, or ``{"*"}``."""
    scopes: tuple[str, ...] = ()
    service: str = ""
    """The name of the process when it is one of ours (a service identity), else empty."""
    expires_at_us: int

    @property
    def is_service(self) -> bool:
        """Whether the caller is a process of this cluster."""
        return bool(self.service) and self.is_cluster

    @property
    def is_cluster(self) -> bool:
        """Whether the token is for every workspace, and so for questions about the cluster."""
        return ALL in self.workspaces

    def may_use(self, workspace: str) -> bool:
        """Whether the token grants ``workspace``."""
        return workspace in self.workspaces or ALL in self.workspaces


_CURRENT: ContextVar[Principal] = ContextVar("relayfile_principal")


def current_principal() -> Principal:
    """The caller of the call that is being served. ``Unauthenticated`` outside of one."""
    try:
        return _CURRENT.get()
    except LookupError:
        raise Unauthenticated(why="the call has no verified token") from None


def set_current_principal(principal: Principal) -> None:
    """Bind the caller to this context: the access stage does, and tests of servicers."""
    _CURRENT.set(principal)


def authorise_workspace(principal: Principal, workspace: str) -> None:
    """``PermissionDenied`` unless the token grants ``workspace``, whether or not that exists."""
    if not principal.may_use(workspace):
        raise PermissionDenied(why=f"the token does not grant the workspace {workspace[:128]!r}")
