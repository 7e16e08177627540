"""The age of what could be sent now: of ready lanes alone, less the window, and never of what a node holds up."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import cast

import pytest

from relayfile.clock import ManualClock
from relayfile.ingest.sending.coalesce import Fold
from relayfile.ingest.sending.lane import Lane
from relayfile.ingest.sending.node_stream import NodeStream
from relayfile.ingest.sending.parcel import Parcel
from relayfile.ingest.sending.router import Router
from relayfile.ingest.sending.traffic import Outcomes, Traffic
from relayfile.ingest.status.sendable_age import SendableAge
from relayfile.placement import shard_of

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
NODES = ("a:1", "b:1")


class Node:
    """Stands for a stream."""

    def __init__(self) -> None:
        self.takes = True
        self.asked = 0
        self.queued_bytes = 0

    def took_all(self) -> bool:
        self.asked += 1
        return self.takes


class Lanes(Traffic):
    """Traffic of which only the lanes matter."""

    def __init__(self, nodes: dict[str, Node]) -> None:
        super().__init__(Router(NODES, 256), 10, lambda address: cast(NodeStream, nodes[address]))

    def settled(self, refs: bytes, outcomes: Outcomes) -> int:
        raise AssertionError

    def unfold(self, fold: Fold, complete: AbstractSet[bytes] = frozenset()) -> Iterable[Parcel]:
        raise AssertionError


@dataclass
class Case:
    nodes: dict[str, Node]
    lanes: Lanes
    clock: ManualClock

    def lane(self, workspace: str, age_s: int, *, queued: bool = True) -> Lane:
        lane = self.lanes.lane_of(workspace)
        self.lanes.accepted(lane, "github", 1, START - age_s * SECOND)
        if queued:
            lane.push(Parcel("github", b"r" * 12, b"x", b"", None, ""))
        return lane

    def age(self, window_s: float = 0.0) -> float:
        return SendableAge(self.lanes, self.clock, window_s).look()


@pytest.fixture
def case() -> Case:
    nodes = {address: Node() for address in NODES}
    return Case(nodes, Lanes(nodes), ManualClock(START))


def workspaces(node: int, count: int) -> list[str]:
    names = (f"w{number}" for number in range(1_000))
    return [name for name in names if shard_of(name) % len(NODES) == node][:count]


def test_it_is_the_oldest_of_all_lanes_that_are_ready(case: Case) -> None:
    assert case.age() == 0.0
    for place, workspace in enumerate([*workspaces(0, 2), *workspaces(1, 2)]):
        case.lane(workspace, 10 + place)
    assert case.age() == 13.0
    assert {node.asked for node in case.nodes.values()} == {1}, "asking sets back what a stream remembers"


def test_a_window_is_no_wait(case: Case) -> None:
    case.lane("w", 10)
    assert case.age(window_s=3.0) == 7.0
    assert case.age(window_s=60.0) == 0.0


def test_what_windows_hold_or_a_node_has_is_not_meant(case: Case) -> None:
    case.lane("held", 100, queued=False)
    case.lane("sent", 100).in_flight = True
    assert case.age() == 0.0


def test_what_was_not_read_from_the_spool_is_meant(case: Case) -> None:
    lane = case.lane("w", 50, queued=False)
    lane.newest_row_id = 7
    assert case.age() == 50.0


def test_a_node_that_holds_up_is_left_out_and_the_others_are_not(case: Case) -> None:
    case.lane(workspaces(0, 1)[0], 1_000)
    case.lane(workspaces(1, 1)[0], 5)
    case.nodes[NODES[0]].takes = False
    assert case.age() == 5.0


def test_what_is_paused_is_left_out(case: Case) -> None:
    lane = case.lane("w", 1_000)
    case.lanes.accepted(lane, "linear", 1, START - 4 * SECOND)
    case.lanes.pauses.begin(NODES[0])
    case.lanes.pauses.told(NODES[0], [("w", frozenset({"github"}))], True, lambda workspace: True)
    assert case.age() == 4.0
