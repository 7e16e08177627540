"""A store node that keeps nothing and answers every sub-batch at once: for measuring what is in front of it."""

from collections.abc import AsyncIterator

import grpc.aio

from relayfile.v1 import shard_pb2, shard_pb2_grpc, types_pb2


class AnsweringNode(shard_pb2_grpc.ShardServiceServicer):
    """Says `applied` to everything."""

    async def start(self) -> str:
        """Listen on a free port; returns the address."""
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 << 20)])
        shard_pb2_grpc.add_ShardServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return f"127.0.0.1:{port}"

    async def ApplyEnvelopes(
        self, request_iterator: AsyncIterator[shard_pb2.ApplyEnvelopesRequest], context: object
    ) -> AsyncIterator[shard_pb2.ApplyEnvelopesResponse]:
        async for request in request_iterator:
            if request.HasField("hello"):
                welcome = shard_pb2.StreamWelcome(shard_count=256, credit_bytes=16 << 20)
                yield shard_pb2.ApplyEnvelopesResponse(welcome=welcome, pauses_complete=True)
            acks = []
            for batch in request.sub_batches:
                refs = [
                    member.spool_ref
                    for workspace in batch.workspaces
                    for fold in workspace.folds
                    for member in fold.members
                ]
                outcomes = [types_pb2.OUTCOME_APPLIED] * len(refs)
                acks.append(
                    shard_pb2.SubBatchAck(
                        shard_id=batch.shard_id,
                        sequence=batch.sequence,
                        spool_refs=b"".join(refs),
                        outcomes=outcomes,
                    )
                )
            if acks:
                yield shard_pb2.ApplyEnvelopesResponse(acks=acks)

    async def FinishRedo(
        self, request_iterator: AsyncIterator[shard_pb2.FinishRedoRequest], context: object
    ) -> shard_pb2.FinishRedoResponse:
        raise NotImplementedError

    async def SetPause(self, request: shard_pb2.SetPauseRequest, context: object) -> shard_pb2.SetPauseResponse:
        raise NotImplementedError

    async def GetOutcomes(
        self, request: shard_pb2.GetOutcomesRequest, context: object
    ) -> shard_pb2.GetOutcomesResponse:
        raise NotImplementedError
