"""Every service of a store node but `ShardService`: which class serves it, put together from one set of parts.

Owns the list.
"""

from dataclasses import dataclass

from relayfile.clock import Clock
from relayfile.serving import Service
from relayfile.store.cursor_holds import CursorHolds
from relayfile.store.deletion import WorkspaceDeletions
from relayfile.store.existence import WorkspaceExistence
from relayfile.store.letters.dead_letters import DeadLetters
from relayfile.store.operations.desk import OperationDesk
from relayfile.store.ownership import Ownership
from relayfile.store.servicers.admin_service import AdminParts, AdminService
from relayfile.store.servicers.dead_letter_service import DeadLetterService
from relayfile.store.servicers.event_service import EventService
from relayfile.store.servicers.file_service import FileService, ReadLimits
from relayfile.store.servicers.file_upload import FileUpload
from relayfile.store.servicers.file_writing import FileWriting, Mutating, WriteLimits
from relayfile.store.servicers.operation_answer import AnswerReading
from relayfile.store.servicers.operation_reading import OperationReading
from relayfile.store.servicers.reading import Reading
from relayfile.store.servicers.route_service import RouteService, RouteStore
from relayfile.store.servicers.topology_service import TopologyService
from relayfile.store.servicers.workspace_listing import WorkspaceListing
from relayfile.store.servicers.workspace_service import WorkspaceMaker, WorkspaceService
from relayfile.store.servicers.writeback_service import WritebackService
from relayfile.v1 import (
    admin_pb2_grpc,
    dead_letter_pb2_grpc,
    event_pb2_grpc,
    file_pb2_grpc,
    route_pb2_grpc,
    topology_pb2_grpc,
    workspace_pb2_grpc,
    writeback_pb2_grpc,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceParts:
    """What the services are made of."""

    reading: Reading
    limits: ReadLimits
    ownership: Ownership
    maker: WorkspaceMaker
    deletions: WorkspaceDeletions
    dead_letters: DeadLetters
    dead_letter_retention_us: int
    routes: RouteStore
    operations: OperationDesk
    mutating: Mutating
    write_limits: WriteLimits
    existence: WorkspaceExistence
    admin: AdminParts
    clock: Clock
    mark_interval_s: float
    holds: CursorHolds
    cluster_id: str
    version: str
    started_us: int


def store_services(parts: ServiceParts) -> list[Service]:
    """The services, ready to be served."""
    write_limits = parts.write_limits
    writing = FileWriting(parts.mutating, write_limits.content_bytes_max)
    uploads = FileUpload(writing, write_limits.upload_bytes_max, write_limits.upload_idle_s)
    files = FileService(parts.reading, parts.limits, writing, uploads)
    events = EventService(parts.reading, parts.clock, parts.mark_interval_s, parts.holds)
    existence = parts.existence
    listing = WorkspaceListing(
        parts.reading, existence.peers, existence.timeout_s, parts.deletions.tombstone_retention_us
    )
    workspaces = WorkspaceService(parts.reading, parts.maker, parts.deletions, listing)
    dead_letters = DeadLetterService(parts.reading, parts.dead_letters, parts.dead_letter_retention_us)
    topology = TopologyService(parts.ownership, parts.cluster_id, parts.version, parts.started_us)
    admin = AdminService(parts.reading, parts.clock, parts.admin)
    answers = AnswerReading(
        parts.clock, write_limits.content_bytes_max, write_limits.upload_bytes_max, write_limits.upload_idle_s
    )
    operations = OperationReading(parts.reading, parts.operations.feed)
    writeback = WritebackService(operations, parts.operations, answers)
    routes = RouteService(parts.reading, parts.routes, parts.existence)
    return [
        Service("relayfile.v1.FileService", file_pb2_grpc.add_FileServiceServicer_to_server, files),
        Service("relayfile.v1.EventService", event_pb2_grpc.add_EventServiceServicer_to_server, events),
        Service("relayfile.v1.WorkspaceService", workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server, workspaces),
        Service(
            "relayfile.v1.DeadLetterService",
            dead_letter_pb2_grpc.add_DeadLetterServiceServicer_to_server,
            dead_letters,
        ),
        Service("relayfile.v1.TopologyService", topology_pb2_grpc.add_TopologyServiceServicer_to_server, topology),
        Service(
            "relayfile.v1.WritebackService",
            writeback_pb2_grpc.add_WritebackServiceServicer_to_server,
            writeback,
        ),
        Service("relayfile.v1.RouteService", route_pb2_grpc.add_RouteServiceServicer_to_server, routes),
        Service("relayfile.v1.AdminService", admin_pb2_grpc.add_AdminServiceServicer_to_server, admin),
    ]
