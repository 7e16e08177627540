"""What acknowledgements hold in memory: room for their content until they are durable, given back however they end."""

from collections.abc import AsyncIterator, Iterator
from unittest.mock import patch

import pytest

from relayfile.clock import ManualClock
from relayfile.errors import InvalidArgument, Overloaded
from relayfile.store.servicers import operation_answer
from relayfile.store.servicers.operation_answer import AnswerReading
from relayfile.v1 import types_pb2, writeback_pb2


@pytest.fixture(autouse=True)
def a_call() -> Iterator[None]:
    with patch.object(operation_answer, "current_call") as call:
        call.return_value.correlation_id = "c"
        yield


async def brought(size: int, came: int) -> AsyncIterator[writeback_pb2.AckOperationRequest]:
    head = writeback_pb2.AckOperationHead(workspace_id="acme", operation_id="op", claim_number=1)
    head.success.change.kind = types_pb2.CHANGE_KIND_UPSERT
    head.success.change.content_follows_bytes = size
    yield writeback_pb2.AckOperationRequest(head=head)
    yield writeback_pb2.AckOperationRequest(chunk=types_pb2.ContentChunk(data=b"x" * came, last=True))


async def test_room_is_kept_until_the_answer_is_durable() -> None:
    answers = AnswerReading(ManualClock(), 80, 100, 5.0)
    async with answers.read(brought(80, 80)) as (workspace, answer, _):
        assert workspace == "acme"
        assert answer.success is not None
        with pytest.raises(Overloaded):
            async with answers.read(brought(30, 30)):
                pass
        async with answers.read(brought(20, 20)):
            pass
    async with answers.read(brought(80, 80)):
        pass


async def test_room_is_given_back_when_it_fails() -> None:
    answers = AnswerReading(ManualClock(), 80, 100, 5.0)
    for _ in range(3):
        with pytest.raises(InvalidArgument):
            async with answers.read(brought(80, 79)):
                pass
        with pytest.raises(RuntimeError):
            async with answers.read(brought(80, 80)):
                raise RuntimeError("the commit failed")
    async with answers.read(brought(80, 80)):
        pass
