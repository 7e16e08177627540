"""What each RPC needs: the action that a scope must grant, and where the request names its workspace.

The table is complete: a served RPC without an entry stops the process at its start. Workspace claims and scopes are
enforced from this table, for each request message, before a servicer sees it. What is inside of the workspace (rows
that a narrow scope or a rule of a file hides) is filtered by `relayfile.store.access`, for the RPCs that say so here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from relayfile.errors import StartRefused

PACKAGE = "relayfile.v1"
PUBLISH_SCOPE = "sync:trigger"
"""What whoever brings changes needs, over gRPC and HTTP."""


class Reach(Enum):
    """What a request is about."""

    WORKSPACE = "workspace"
    """One workspace, named in the request; the token must grant it."""
    WORKSPACE_OR_CLUSTER = "workspace or cluster"
    """One workspace, or with none named the cluster."""
    CLUSTER = "cluster"
    """The cluster: the token must be for all workspaces."""
    SERVICE = "service"
    """Only processes of the cluster."""
    RECORDS = "records"
    """Many workspaces, or one known by another name (a mirror): the servicer calls ``authorise_workspace``."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """What one RPC needs."""

    action: str
    """Resource and action of the scope: ``fs:read`` means ``relayfile:fs:read:<path>``. Empty for services."""
    reach: Reach = Reach.WORKSPACE
    workspace_field: str = "workspace_id"
    """Where a request message names its workspace."""
    app_field: str = ""
    """Where it names an app, whose system workspace says which node serves it; empty: it names none."""
    path_fields: tuple[str, ...] = ()
    """Where it names files, each of which the scope must grant; an empty field asks for nothing."""
    tree_field: str = ""
    """Where it names a directory, of which the scope must grant something; the answer shows no more than that."""
    is_filtered: bool = False
    """It is about paths that are known only later: a scope with any path is enough, and the servicer goes by it."""

    @property
    def takes_narrow_scopes(self) -> bool:
        """Whether a scope with a path can satisfy it: of the others no path is required, which only `*` matches."""
        return bool(self.path_fields or self.tree_field) or self.is_filtered


def _rpcs(service: str, entries: Mapping[str, Requirement]) -> dict[str, Requirement]:
    table: dict[str, Requirement] = {}
    for names, requirement in entries.items():
        table.update({f"/{PACKAGE}.{service}/{name}": requirement for name in names.split()})
    return table


_FS_READ_FILTERED = Requirement("fs:read", is_filtered=True)
_ADMIN_READ = Requirement("admin:read", Reach.CLUSTER)
_ADMIN_WRITE = Requirement("admin:write", Reach.CLUSTER)
_SERVICE = Requirement("", Reach.SERVICE)

REQUIREMENTS: Mapping[str, Requirement] = {
    **_rpcs(
        "IngestService",
        {
            "PublishEnvelope": Requirement(PUBLISH_SCOPE, workspace_field="envelope.workspace_id"),
            "PublishEnvelopes": Requirement(PUBLISH_SCOPE, Reach.RECORDS),
            "GetIngestStatus ListRejectedRequests": Requirement("sync:read", Reach.WORKSPACE_OR_CLUSTER),
            "Pause Resume": Requirement(PUBLISH_SCOPE),
        },
    ),
    **_rpcs(
        "RouteService",
        {
            "PutRoute DeleteRoute": Requirement("admin:write", Reach.CLUSTER, app_field="app"),
            "GetRoute ListRoutes": Requirement("admin:read", Reach.CLUSTER, app_field="app"),
        },
    ),
    **_rpcs("ShardService", {"ApplyEnvelopes FinishRedo SetPause GetOutcomes": _SERVICE}),
    **_rpcs(
        "FileService",
        {
            "ListTree GetTreeDigest": Requirement("fs:read", tree_field="path"),
            "QueryFiles": Requirement("fs:read", tree_field="path_prefix"),
            "ExportTree": Requirement("fs:read", workspace_field="start.workspace_id", tree_field="start.path"),
            "GetFile ReadFile": Requirement("fs:read", path_fields=("path",)),
            "BatchGetFiles ReadFiles": _FS_READ_FILTERED,
            "WriteFile DeleteFile": Requirement("fs:write", path_fields=("path",)),
            "MoveFile": Requirement("fs:write", path_fields=("path", "to_path")),
            "WriteFiles": Requirement("fs:write", is_filtered=True),
            "UploadFile": Requirement("fs:write", workspace_field="head.workspace_id", path_fields=("head.path",)),
        },
    ),
    **_rpcs("EventService", {"ListEvents WatchEvents": _FS_READ_FILTERED}),
    **_rpcs(
        "WritebackService",
        {
            "ListOperations GetOperation WatchOperations ReadOperationContent": Requirement(
                "ops:read", is_filtered=True
            ),
            "ClaimOperations": Requirement("ops:write", Reach.WORKSPACE_OR_CLUSTER),
            "RenewClaim CancelOperations": Requirement("ops:write"),
            "AckOperation": Requirement("ops:write", workspace_field="head.workspace_id"),
            "ReplayOperation ApproveOperations": Requirement("ops:replay"),
        },
    ),
    **_rpcs(
        "DeadLetterService",
        {
            "ListDeadLetters GetDeadLetter ReadDeadLetter": Requirement("sync:read"),
            "ReplayDeadLetters AcknowledgeDeadLetter": Requirement("ops:replay"),
        },
    ),
    **_rpcs(
        "WorkspaceService",
        {
            "CreateWorkspace DeleteWorkspace": Requirement("admin:write"),
            "GetWorkspace": _FS_READ_FILTERED,
            "ListWorkspaces": _ADMIN_READ,
        },
    ),
    **_rpcs("TopologyService", {"GetTopology WatchTopology": Requirement("topology:read", Reach.CLUSTER)}),
    **_rpcs(
        "AdminService",
        {
            "Audit Scrub": Requirement("admin:read", Reach.WORKSPACE_OR_CLUSTER),
            "Backup DrainNode": _ADMIN_WRITE,
            "GetConfig GetStats": _ADMIN_READ,
            "ListAdminActions": Requirement("admin:read", Reach.WORKSPACE_OR_CLUSTER),
        },
    ),
    **_rpcs(
        "MirrorService",
        {
            "CreateMirror": Requirement("mirror:write"),
            "ListMirrors": Requirement("mirror:read", Reach.RECORDS),
            "GetMirror ListConflicts ListProblems ListTrash WaitMirror WatchMirrors": Requirement(
                "mirror:read", Reach.RECORDS
            ),
            "DeleteMirror PullMirror AuditMirror FlushMirror ResolveConflict RestoreTrash ApproveDeletes": Requirement(
                "mirror:write", Reach.RECORDS
            ),
        },
    ),
}


def require_entries(methods: Iterable[str]) -> None:
    """``StartRefused`` when one of the served methods (``/package.Service/Rpc``) has no entry."""
    missing = sorted(set(methods) - REQUIREMENTS.keys())
    if missing:
        raise StartRefused(why=f"these RPCs have no entry in the table of required scopes: {', '.join(missing)}")
