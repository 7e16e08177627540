"""A good request of each RPC of a store node, and what its fields may be: what bad requests are made from."""

from collections.abc import Mapping, Sequence
from typing import Final

from google.protobuf.message import Message

from relayfile.v1 import (
    admin_pb2,
    dead_letter_pb2,
    event_pb2,
    file_pb2,
    route_pb2,
    topology_pb2,
    types_pb2,
    workspace_pb2,
    writeback_pb2,
)
from tests.support.bad_requests import UNKNOWN_WORKSPACE

W, OTHER, APP = "acme", "umbrella", "hub"
ID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
"""Of nothing."""

GOOD: Mapping[str, Sequence[Message]] = {
    "FileService/ListTree": [file_pb2.ListTreeRequest(workspace_id=W)],
    "FileService/GetFile": [file_pb2.GetFileRequest(workspace_id=W, path="/notes/a.txt")],
    "FileService/BatchGetFiles": [file_pb2.BatchGetFilesRequest(workspace_id=W, paths=["/notes/a.txt"])],
    "FileService/ReadFile": [file_pb2.ReadFileRequest(workspace_id=W, path="/notes/a.txt")],
    "FileService/ReadFiles": [file_pb2.ReadFilesRequest(workspace_id=W, paths=["/notes/a.txt"])],
    "FileService/ExportTree": [
        file_pb2.ExportTreeRequest(start=file_pb2.ExportStart(workspace_id=W), have_complete=True)
    ],
    "FileService/GetTreeDigest": [file_pb2.GetTreeDigestRequest(workspace_id=W)],
    "FileService/WriteFile": [file_pb2.WriteFileRequest(workspace_id=W, path="/new.txt", content=b"x", force=True)],
    "FileService/WriteFiles": [
        file_pb2.WriteFilesRequest(
            workspace_id=W, items=[file_pb2.WriteFilesItem(write=file_pb2.WriteItem(path="/new.txt", content=b"x"))]
        )
    ],
    "FileService/UploadFile": [
        file_pb2.UploadFileRequest(
            head=file_pb2.WriteFileRequest(workspace_id=W, path="/new.txt", force=True), size_bytes=1
        ),
        file_pb2.UploadFileRequest(chunk=types_pb2.ContentChunk(data=b"x", last=True)),
    ],
    "FileService/DeleteFile": [file_pb2.DeleteFileRequest(workspace_id=W, path="/notes/a.txt", force=True)],
    "FileService/MoveFile": [
        file_pb2.MoveFileRequest(workspace_id=W, path="/notes/a.txt", to_path="/notes/b.txt", force=True)
    ],
    "FileService/QueryFiles": [file_pb2.QueryFilesRequest(workspace_id=W, provider="github")],
    "EventService/ListEvents": [event_pb2.ListEventsRequest(workspace_id=W)],
    "EventService/WatchEvents": [event_pb2.WatchEventsRequest(workspace_id=W)],
    "WorkspaceService/CreateWorkspace": [workspace_pb2.CreateWorkspaceRequest(workspace_id="newcomer")],
    "WorkspaceService/DeleteWorkspace": [
        workspace_pb2.DeleteWorkspaceRequest(workspace_id=OTHER, history_id="0" * 32, reason="gone")
    ],
    "WorkspaceService/GetWorkspace": [workspace_pb2.GetWorkspaceRequest(workspace_id=W)],
    "DeadLetterService/ListDeadLetters": [dead_letter_pb2.ListDeadLettersRequest(workspace_id=W)],
    "DeadLetterService/GetDeadLetter": [dead_letter_pb2.GetDeadLetterRequest(workspace_id=W, dead_letter_id=ID)],
    "DeadLetterService/ReadDeadLetter": [dead_letter_pb2.ReadDeadLetterRequest(workspace_id=W, dead_letter_id=ID)],
    "DeadLetterService/ReplayDeadLetters": [
        dead_letter_pb2.ReplayDeadLettersRequest(
            workspace_id=W, filter=dead_letter_pb2.DeadLetterFilter(provider="none")
        )
    ],
    "DeadLetterService/AcknowledgeDeadLetter": [
        dead_letter_pb2.AcknowledgeDeadLetterRequest(workspace_id=W, dead_letter_id=ID)
    ],
    "TopologyService/GetTopology": [topology_pb2.GetTopologyRequest()],
    "RouteService/PutRoute": [route_pb2.PutRouteRequest(app=APP, tenant="t9", workspace_id=W)],
    "RouteService/GetRoute": [route_pb2.GetRouteRequest(app=APP, tenant="t1")],
    "RouteService/ListRoutes": [route_pb2.ListRoutesRequest(app=APP)],
    "RouteService/DeleteRoute": [route_pb2.DeleteRouteRequest(app=APP, tenant="t1")],
    "WorkspaceService/ListWorkspaces": [workspace_pb2.ListWorkspacesRequest()],
    "TopologyService/WatchTopology": [topology_pb2.WatchTopologyRequest()],
    "AdminService/Backup": [
        admin_pb2.BackupRequest(node_index=0, target=admin_pb2.BACKUP_TARGET_NODE_DIRECTORY, directory_name="b")
    ],
    "AdminService/DrainNode": [admin_pb2.DrainNodeRequest(node_index=0)],
    "AdminService/GetConfig": [admin_pb2.GetConfigRequest()],
    "AdminService/GetStats": [admin_pb2.GetStatsRequest()],
    "WritebackService/ListOperations": [writeback_pb2.ListOperationsRequest(workspace_id=W)],
    "WritebackService/GetOperation": [writeback_pb2.GetOperationRequest(workspace_id=W, operation_id=ID)],
    "WritebackService/WatchOperations": [writeback_pb2.WatchOperationsRequest(workspace_id=W)],
    "WritebackService/ReadOperationContent": [
        writeback_pb2.ReadOperationContentRequest(workspace_id=W, operation_id=ID)
    ],
    "WritebackService/ClaimOperations": [writeback_pb2.ClaimOperationsRequest(workspace_id=W, worker_id="w")],
    "WritebackService/RenewClaim": [writeback_pb2.RenewClaimRequest(workspace_id=W, operation_id=ID, claim_number=1)],
    "WritebackService/AckOperation": [
        writeback_pb2.AckOperationRequest(
            head=writeback_pb2.AckOperationHead(
                workspace_id=W, operation_id=ID, claim_number=1, success=writeback_pb2.OperationSuccess()
            )
        )
    ],
    "WritebackService/ReplayOperation": [writeback_pb2.ReplayOperationRequest(workspace_id=W, operation_id=ID)],
    "WritebackService/ApproveOperations": [
        writeback_pb2.ApproveOperationsRequest(workspace_id=W, filter=writeback_pb2.OperationFilter())
    ],
    "WritebackService/CancelOperations": [
        writeback_pb2.CancelOperationsRequest(workspace_id=W, filter=writeback_pb2.OperationFilter())
    ],
    "AdminService/Audit": [admin_pb2.AuditRequest(workspace_id=W)],
    "AdminService/Scrub": [admin_pb2.ScrubRequest(workspace_id=W)],
    "AdminService/ListAdminActions": [admin_pb2.ListAdminActionsRequest(workspace_id=W)],
}

_FILE = types_pb2.FileChange(kind=types_pb2.CHANGE_KIND_UPSERT, path="/a")
_ACK_CHANGE = writeback_pb2.AckOperationRequest(
    head=writeback_pb2.AckOperationHead(
        workspace_id=W, operation_id=ID, claim_number=1, success=writeback_pb2.OperationSuccess(change=_FILE)
    )
)
_ACK_FAILURE = writeback_pb2.AckOperationRequest(
    head=writeback_pb2.AckOperationHead(
        workspace_id=W, operation_id=ID, claim_number=1, failure=writeback_pb2.OperationFailure(reason="BUSY")
    )
)
_REPLAY_IDS = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id=W, dead_letter_ids=[ID])
VARIANTS: Final[Mapping[str, Mapping[str, Message]]] = {
    "AdminService/Backup": {"target": admin_pb2.BackupRequest(node_index=0)},
    "DeadLetterService/ReplayDeadLetters": {"dead_letter_ids": _REPLAY_IDS},
    "WritebackService/ApproveOperations": {
        "operation_ids": writeback_pb2.ApproveOperationsRequest(workspace_id=W, operation_ids=[ID])
    },
    "WritebackService/CancelOperations": {
        "operation_ids": writeback_pb2.CancelOperationsRequest(workspace_id=W, operation_ids=[ID])
    },
    "WritebackService/AckOperation": {"success.change.": _ACK_CHANGE, "failure.": _ACK_FAILURE},
}

MAY_BE_EMPTY: Final[Mapping[str, Sequence[str]]] = {
    "AdminService/Audit": ["workspace_id"],
    "AdminService/ListAdminActions": ["workspace_id"],
    "AdminService/Scrub": ["workspace_id"],
    "EventService/WatchEvents": ["after_revision"],
    "RouteService/ListRoutes": ["workspace_id"],
    "WritebackService/ClaimOperations": ["workspace_id"],
}
_SELECTING: Final = ["filter.providers", "filter.provider_object_id", "filter.quarantine_id"]
FREE: Final[Mapping[str, Sequence[str]]] = {
    # What nothing is found by finds nothing. The list of a deleted workspace is still there.
    "AdminService/ListAdminActions": ["actor", "method", UNKNOWN_WORKSPACE],
    "DeadLetterService/ListDeadLetters": ["filter.provider", "filter.reason"],
    "DeadLetterService/ReplayDeadLetters": ["filter.provider", "filter.reason"],
    "EventService/ListEvents": ["filter.providers"],
    "EventService/WatchEvents": ["filter.providers"],
    "FileService/QueryFiles": ["provider", "relation", "permission", "comment"],
    "RouteService/ListRoutes": [UNKNOWN_WORKSPACE],
    "WorkspaceService/CreateWorkspace": [UNKNOWN_WORKSPACE],
    "AdminService/GetConfig": ["name_prefix"],
    "TopologyService/WatchTopology": ["known_map_version"],
    "WorkspaceService/ListWorkspaces": ["workspace_id_prefix"],
    "WritebackService/AckOperation": ["success.change.operation_id", "success.change.repetition"],
    "WritebackService/ApproveOperations": _SELECTING,
    "WritebackService/CancelOperations": _SELECTING,
    "WritebackService/ListOperations": _SELECTING,
    "WritebackService/WatchOperations": _SELECTING,
}
