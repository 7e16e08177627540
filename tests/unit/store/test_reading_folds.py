"""Folds of a stream are read in steps that are bounded in changes and in bytes, whatever the folds are."""

import pytest

from relayfile.store.wire import MEMBERS_MAX, STEP_BYTES, STEP_MEMBERS, read_folds, reading_folds
from relayfile.v1 import shard_pb2
from tests.support.running_node import fold, upsert

INGEST = "ingest-1"


def sized(number: int, content_bytes: int) -> shard_pb2.FoldMember:
    return upsert(number, b"x" * content_bytes)


@pytest.mark.parametrize(
    ("messages", "steps"),
    [
        ([fold(sized(number, 1)) for number in range(STEP_MEMBERS)], 1),
        ([fold(sized(number, 1)) for number in range(2 * STEP_MEMBERS + 1)], 3),
        ([fold(*(sized(number, 0) for number in range(MEMBERS_MAX)))], -(-MEMBERS_MAX // STEP_MEMBERS)),
        ([fold(sized(number, STEP_BYTES // 4)) for number in range(9)], 3),
        ([fold(sized(number, 2 * STEP_BYTES)) for number in range(3)], 3),
        ([], 1),
    ],
    ids=["one step", "many folds", "one long fold", "large contents", "larger than a step", "nothing"],
)
def test_steps_are_bounded(messages: list[shard_pb2.Fold], steps: int) -> None:
    refs: list[bytes] = []
    reading = reading_folds(messages, INGEST, refs)
    stops = [len(refs) for _ in reading]
    assert len(stops) == steps - 1
    assert all(after - before <= STEP_MEMBERS for before, after in zip([0, *stops], [*stops, len(refs)], strict=True))
    again: list[bytes] = []
    folds, byte_count = read_folds(messages, INGEST, again)
    assert again == refs
    assert [len(each.members) for each in folds] == [len(message.members) for message in messages]
    assert byte_count == sum(len(member.content) for message in messages for member in message.members)
