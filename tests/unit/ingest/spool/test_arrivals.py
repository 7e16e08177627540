from typing import cast

from relayfile.ingest.spool.backlog import ARRIVED_BYTES_MAX, QUIET_ROW_BYTES, Arrivals, Rows
from relayfile.ingest.spool.payload import PayloadBuilder
from relayfile.v1 import types_pb2


class Seen:
    """Remembers which rows were left."""

    held_total = 0

    def __init__(self) -> None:
        self.left: list[str] = []

    def arrived(self, row: PayloadBuilder) -> None:
        """Not looked at."""

    def leave(self, row: PayloadBuilder) -> None:
        self.left.append(row.workspace_id)


def row(workspace_id: str, size_bytes: int) -> PayloadBuilder:
    made = PayloadBuilder(1, workspace_id)
    made.add(types_pb2.Envelope(workspace_id=workspace_id, provider="p"), bytes(size_bytes))
    return made


def failed(error: Exception) -> None:
    raise error


async def test_a_quiet_workspace_finds_room_beside_a_noisy_one_that_filled_it() -> None:
    seen = Seen()
    arrivals = Arrivals(lambda: cast(Rows, seen), failed)
    noisy = [row("noisy", ARRIVED_BYTES_MAX // 8) for _ in range(12)]
    arrivals.put([*noisy, row("quiet", 1_000), row("quiet", 1_000), row("large", 2 * QUIET_ROW_BYTES)])
    assert set(seen.left[:-2]) == {"noisy"}
    assert seen.left[-2:] == ["quiet", "large"], "only the first small row of a workspace"
    assert arrivals.size_bytes < 2 * ARRIVED_BYTES_MAX
