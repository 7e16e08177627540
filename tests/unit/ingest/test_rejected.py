from relayfile.ingest.rejected import REASONS_MAX, RejectedRequests


def test_the_log_is_bounded_and_newest_first() -> None:
    log = RejectedRequests(3)
    for number in range(5):
        log.add(number, workspace="w" if number % 2 else "v", provider="github", reason="TOO_LARGE")
    assert [each.time_us for each in log.newest("", 0, 10)] == [4, 3, 2]
    assert [each.time_us for each in log.newest("v", 0, 10)] == [4, 2]
    assert [each.time_us for each in log.newest("", 4, 10)] == [2]
    assert log.totals() == {"TOO_LARGE": 5}
    assert (log.remembered("v"), log.remembered("w"), log.remembered("x")) == ({"github": 2}, {"github": 1}, {})


def test_names_from_outside_are_cut_and_reasons_are_few() -> None:
    log = RejectedRequests(10)
    log.add(0, workspace="w" * 1000, provider="p" * 1000, reason="X", correlation_id="c" * 1000)
    (kept,) = log.newest("", 0, 1)
    assert (len(kept.workspace), len(kept.provider), len(kept.correlation_id)) == (128, 128, 128)
    for number in range(2 * REASONS_MAX):
        log.add(0, workspace="w", provider="p", reason=f"R{number}")
    assert len(log.totals()) == REASONS_MAX


def test_none_may_be_kept() -> None:
    log = RejectedRequests(0)
    log.add(0, workspace="w", provider="p", reason="X")
    assert log.newest("", 0, 10) == []
    assert log.totals() == {"X": 1}
