"""What is refused for lack of room, what is charged, and when it is worth trying again."""

import pytest

from relayfile.errors import Unavailable
from relayfile.ingest.admission import RETRY_AFTER_S_MAX, RETRY_AFTER_S_MIN, Admission
from relayfile.ingest.intake import PastShare
from relayfile.ingest.spool.payload import ENVELOPE_OVERHEAD_BYTES
from relayfile.v1 import types_pb2

MAX = 1_000_000


class Room:
    """An admission and the sizes that it asks for."""

    def __init__(self) -> None:
        self.used_bytes = 0
        self.waiting_bytes = 0
        self.admission = Admission(
            MAX, 300_000, used_bytes=lambda: self.used_bytes, waiting_bytes=lambda: self.waiting_bytes
        )

    def ask(self, *wanted: tuple[str, str, int]) -> None:
        """Admit envelopes of (workspace, provider, bytes that they count for)."""
        envelopes = [types_pb2.Envelope(workspace_id=workspace, provider=provider) for workspace, provider, _ in wanted]
        self.admission.admit(envelopes, [bytes(size - ENVELOPE_OVERHEAD_BYTES) for _, _, size in wanted])


def test_the_noisy_one_is_refused_alone_past_half_and_everybody_when_all_is_full() -> None:
    room = Room()
    for _ in range(6):
        room.ask(("noisy", "p", 100_000))
    with pytest.raises(PastShare, match="'p' of workspace 'noisy'") as refusal:
        room.ask(("noisy", "p", 1_000))
    assert refusal.value.seconds.keys() == {("noisy", "p")}
    room.ask(("quiet", "p", 200_000))
    room.ask(("noisy", "quiet provider", 100_000))
    assert room.admission.stored_bytes == 900_000
    with pytest.raises(Unavailable, match="full"):
        room.ask(("new", "p", 100_001))


def test_a_batch_is_taken_whole_or_not_at_all_and_names_all_that_is_past_its_share() -> None:
    room = Room()
    room.ask(("a", "p", 300_000), ("b", "p", 300_000))
    with pytest.raises(PastShare) as refusal:
        room.ask(("a", "p", 1_000), ("b", "p", 1_000), ("c", "p", 1_000))
    assert refusal.value.seconds.keys() == {("a", "p"), ("b", "p")}
    assert refusal.value.apart()["b", "p"].what == "share of provider 'p' of workspace 'b'"
    assert room.admission.stored_bytes == 600_000
    room.ask(("c", "p", 1_000))


def test_pages_that_are_in_use_count_when_they_are_more() -> None:
    room = Room()
    room.ask(("a", "p", 1_000))
    room.used_bytes = MAX - 1_000
    with pytest.raises(Unavailable, match="full"):
        room.ask(("b", "p", 1_001))


def test_shares_shrink_with_what_the_pages_take() -> None:
    room = Room()
    room.ask(("noisy", "p", 300_000))
    room.used_bytes = 600_000
    with pytest.raises(PastShare):
        room.ask(("noisy", "p", 1_000))
    room.ask(("quiet", "p", 100_000))


def test_a_slow_disk_refuses_what_would_wait_in_memory() -> None:
    room = Room()
    room.waiting_bytes = 300_000
    with pytest.raises(Unavailable, match="slow"):
        room.ask(("a", "p", 1_000))


def test_a_request_larger_than_any_share_is_taken_while_there_is_room() -> None:
    room = Room()
    room.ask(("a", "p", 900_000))
    room.admission.release([(("a", "p"), 900_000)])
    assert room.admission.stored_bytes == 0


def test_the_time_to_try_again_follows_the_drain() -> None:
    room = Room()
    room.ask(("a", "p", 600_000))
    with pytest.raises(PastShare) as refusal:
        room.ask(("a", "p", 100_000))
    assert refusal.value.retry_after_s == RETRY_AFTER_S_MAX
    for _ in range(20):
        room.admission.recovered("b", {"q": 50_000})
        room.admission.release([(("b", "q"), 50_000)])
        room.admission.tick(1.0)
    with pytest.raises(PastShare) as refusal:
        room.ask(("a", "p", 100_000))
    assert 4.0 <= refusal.value.retry_after_s < 4.1
    room.admission.release([(("a", "p"), 99_000)])
    with pytest.raises(PastShare) as refusal:
        room.ask(("a", "p", 1_000))
    assert refusal.value.retry_after_s == RETRY_AFTER_S_MIN
