from relayfile.clock import ManualClock, SystemClock
from relayfile.ids import IdSource

NOW_US = 1_800_000_000_123_456


def test_a_known_time_and_known_randomness_make_a_known_id() -> None:
    ids = IdSource(ManualClock(now_us=NOW_US), random_bytes=lambda count: b"\x00" * count)
    assert ids.new_id() == "01MCC5RM3V0000000000000000"
    assert ids.new_id() == "01MCC5RM3V0000000000000001"


def test_ids_increase_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    clock = ManualClock(now_us=NOW_US)
    ids = IdSource(clock, random_bytes=lambda count: b"\xff" * count)
    made = [ids.new_id() for _ in range(100)]
    clock.set_now_us(NOW_US - 60_000_000)
    made += [ids.new_id() for _ in range(100)]
    clock.set_now_us(NOW_US + 1000)
    made.append(ids.new_id())
    assert made == sorted(set(made))
    assert {len(identifier) for identifier in made} == {26}


def test_sources_differ() -> None:
    assert IdSource(SystemClock()).new_id() != IdSource(SystemClock()).new_id()
