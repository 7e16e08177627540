"""`FinishRedo`: puts together what the request of a dead letter amounts to now.

Bounded: only the holder of a current lease is read, and no more than was announced and is allowed. Refuses what is no
result: the lease then ends, and somebody else tries.
"""

from collections.abc import AsyncIterator
from typing import Final

from google.protobuf.message import DecodeError

from relayfile.errors import InvalidArgument, TooLarge
from relayfile.model import Failure
from relayfile.store.letters.dead_letters import DeadLetters
from relayfile.store.letters.letter_kinds import RedoResult
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.wire import read_member
from relayfile.v1 import shard_pb2
from relayfile.wire import CHANGES_MAX

RESULT_BYTES_MAX: Final = 256 << 20


async def finish_redo(
    letters: DeadLetters, requests: AsyncIterator[shard_pb2.FinishRedoRequest]
) -> shard_pb2.FinishRedoResponse:
    """Read the stream to its end and put the result in the place of the dead letter."""
    head = await _read_head(requests)
    if not letters.desk.is_current(head.dead_letter_id, head.lease_id):
        return shard_pb2.FinishRedoResponse(taken=False)
    if head.postponed:
        letters.desk.postpone(head.dead_letter_id, head.lease_id)
        return shard_pb2.FinishRedoResponse(taken=False)
    body = await _read_body(requests, head.folds_bytes)
    result = read_result(head, body)
    taken = await letters.finish_redo(head.workspace_id, head.lease_id, result, len(body))
    return shard_pb2.FinishRedoResponse(taken=taken)


def read_result(head: shard_pb2.RedoHead, body: bytes) -> RedoResult:
    """The result of a whole stream. `InvalidArgument` when it is none."""
    if head.HasField("failure"):
        failure = Failure(head.failure.reason, head.failure.message)
        return RedoResult(head.dead_letter_id, failure=failure, adapter_version=head.adapter_version)
    try:
        message = shard_pb2.WorkspaceFolds.FromString(body)
    except DecodeError as error:
        raise InvalidArgument.of("chunk", f"the pieces are no WorkspaceFolds ({error})") from None
    if message.workspace_id not in ("", head.workspace_id):
        raise InvalidArgument.of("chunk", f"is of workspace {message.workspace_id!r}, not {head.workspace_id!r}")
    folds = tuple(
        Fold(fold.provider, fold.change_key, tuple(map(_whole, fold.members)), replay=True) for fold in message.folds
    )
    changes = sum(len(fold.members) for fold in folds)
    if changes > CHANGES_MAX or not all(fold.members for fold in folds):
        raise InvalidArgument.of("folds.members", f"has {changes} entries in all; 1 to {CHANGES_MAX} are accepted")
    if len({(member.envelope_id, member.change_index) for fold in folds for member in fold.members}) < changes:
        raise InvalidArgument.of("folds.members.change_index", "is there twice in one envelope")
    keys = {(fold.provider, member.delivery_id, fold.change_key) for fold in folds for member in fold.members}
    if len(keys) < changes:
        raise InvalidArgument.of("folds.change_key", "is there twice in one delivery")
    return RedoResult(head.dead_letter_id, folds, adapter_version=head.adapter_version)


def _whole(message: shard_pb2.FoldMember) -> Member:
    if message.content_elided or message.content_follows_bytes:
        raise InvalidArgument.of("folds.members.content", "must be whole in the result of a redo")
    return read_member(message)


async def _read_head(requests: AsyncIterator[shard_pb2.FinishRedoRequest]) -> shard_pb2.RedoHead:
    async for request in requests:
        if not request.HasField("head"):
            break
        head = request.head
        if not 0 <= head.folds_bytes <= RESULT_BYTES_MAX:
            raise TooLarge(what="result of a redo", size=head.folds_bytes, limit=RESULT_BYTES_MAX)
        if head.folds_bytes and (head.forwarded or head.HasField("failure")):
            raise InvalidArgument.of("head.folds_bytes", "is only for changes that take the place of the dead letter")
        return head
    raise InvalidArgument.of("head", "must be the first message")


async def _read_body(requests: AsyncIterator[shard_pb2.FinishRedoRequest], announced: int) -> bytes:
    body = bytearray()
    async for request in requests:
        if not request.HasField("chunk") or len(body) + len(request.chunk.data) > announced:
            raise InvalidArgument.of("chunk", f"the pieces must add up to the {announced} bytes announced")
        body += request.chunk.data
    if len(body) != announced:
        raise InvalidArgument.of("chunk", f"{announced - len(body)} of {announced} announced bytes are missing")
    return bytes(body)
