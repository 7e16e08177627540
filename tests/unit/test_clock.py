import time

from relayfile.clock import ManualClock, SteadyClock, SystemClock


def test_the_system_clock_counts_microseconds_since_1970() -> None:
    before = time.time()
    assert before - 1 <= SystemClock().now_us() / 1_000_000 <= before + 60
    clock = SystemClock()
    assert clock.monotonic() <= clock.monotonic()


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(now_us=5_000_000, monotonic=10.0)
    assert (clock.now_us(), clock.monotonic()) == (5_000_000, 10.0)
    clock.advance(0.25)
    assert (clock.now_us(), clock.monotonic()) == (5_250_000, 10.25)
    clock.set_now_us(1)
    assert (clock.now_us(), clock.monotonic()) == (1, 10.25)


def test_a_steady_clock_never_goes_back() -> None:
    clock = ManualClock(now_us=5_000_000, monotonic=10.0)
    steady = SteadyClock(clock)
    assert steady.now_us() == 5_000_000
    clock.set_now_us(1)
    assert (steady.now_us(), steady.monotonic()) == (5_000_000, 10.0)
    clock.set_now_us(6_000_000)
    assert steady.now_us() == 6_000_000
