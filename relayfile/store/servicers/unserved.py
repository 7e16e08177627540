"""Services of a store node of which nothing is served yet: each RPC answers that it comes later.

Owns nothing. Where an RPC becomes served, its service gets a module of its own and leaves this one.
"""

from relayfile.interception import not_served
from relayfile.v1 import writeback_pb2_grpc


class WritebackService(writeback_pb2_grpc.WritebackServiceServicer):
    """Operations that carry edits to their providers."""

    ListOperations = not_served
    GetOperation = not_served
    WatchOperations = not_served
    ClaimOperations = not_served
    RenewClaim = not_served
    AckOperation = not_served
    ReadOperationContent = not_served
    ReplayOperation = not_served
    ApproveOperations = not_served
    CancelOperations = not_served
