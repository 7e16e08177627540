"""Leases of redos: one at a time for each dead letter, ended by time, by the stream, or by the result."""

from itertools import count

from relayfile.clock import ManualClock
from relayfile.store.letters.redo_desk import RedoDesk
from relayfile.v1 import shard_pb2


class Stream:
    def __init__(self) -> None:
        self.taken: list[shard_pb2.Redo] = []

    def hand_over(self, redo: shard_pb2.Redo) -> None:
        self.taken.append(redo)


def made() -> tuple[RedoDesk, ManualClock, list[int]]:
    clock, numbers, changes = ManualClock(), count(1), list[int]()
    desk = RedoDesk(clock, lambda: f"lease-{next(numbers)}", 60.0)
    desk.on_change = lambda: changes.append(1)
    return desk, clock, changes


def redo(dead_letter_id: str) -> shard_pb2.Redo:
    return shard_pb2.Redo(dead_letter_id=dead_letter_id)


def test_streams_get_as_many_as_they_take_the_freest_first() -> None:
    desk, clock, changes = made()
    assert desk.room == 0
    small, large, none = Stream(), Stream(), Stream()
    desk.join(small, 1)
    desk.join(large, 2)
    desk.join(none, 0)
    assert len(changes) == 2
    for name in "abc":
        desk.hand_over(redo(name))
    assert desk.room == 0
    assert ([len(stream.taken) for stream in (small, large, none)], desk.lease_count) == ([1, 2, 0], 3)
    expires_us = large.taken[0].lease_expire_time.ToMicroseconds()
    assert expires_us == clock.now_us() + 60_000_000


def test_a_lease_ends_with_its_time() -> None:
    desk, clock, _ = made()
    stream = Stream()
    desk.join(stream, 1)
    desk.hand_over(redo("a"))
    assert desk.is_current("a", "lease-1")
    assert not desk.is_current("a", "lease-2")
    assert not desk.is_current("b", "lease-1")
    clock.advance(59.0)
    assert desk.next_end_s() == 1.0
    assert desk.is_leased("a")
    clock.advance(1.0)
    assert not desk.is_leased("a")
    assert not desk.is_current("a", "lease-1")
    assert (desk.room, desk.next_end_s()) == (1, None)
    desk.hand_over(redo("a"))
    assert desk.is_current("a", "lease-2")


def test_what_a_stream_cannot_do_rests_and_makes_room() -> None:
    desk, clock, changes = made()
    stream = Stream()
    desk.join(stream, 1)
    desk.hand_over(redo("a"))
    before = len(changes)
    desk.postpone("a", "another lease")
    assert (desk.room, len(changes)) == (0, before)
    desk.postpone("a", "lease-1")
    assert (desk.room, len(changes)) == (1, before + 1)
    assert desk.is_leased("a")
    assert not desk.is_current("a", "lease-1")
    assert not desk.is_current("a", "")
    clock.advance(30.0)
    desk.hand_over(redo("b"))
    clock.advance(30.0)
    assert not desk.is_leased("a")
    assert (desk.is_leased("b"), desk.room, desk.next_end_s()) == (True, 0, 30.0)
    desk.leave(stream)
    assert desk.next_end_s() is None


def test_a_lease_ends_with_its_stream_and_with_its_result() -> None:
    desk, _, changes = made()
    lost, other = Stream(), Stream()
    desk.join(lost, 1)
    desk.hand_over(redo("a"))
    desk.join(other, 1)
    before = len(changes)
    desk.leave(lost)
    desk.leave(lost)
    assert len(changes) == before + 1
    assert not desk.is_current("a", "lease-1")
    desk.hand_over(redo("a"))
    assert [each.lease_id for each in other.taken] == ["lease-2"]
    desk.end("a")
    assert (desk.room, desk.lease_count) == (1, 0)
    desk.end("a")
    assert desk.room == 1
