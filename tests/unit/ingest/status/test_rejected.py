from relayfile.ingest.status.rejected import REASONS_MAX, SENDERS_MAX, RejectedRequests


def test_the_log_is_bounded_and_newest_first() -> None:
    log = RejectedRequests(3)
    for number in range(5):
        log.add(number, workspace="w" if number % 2 else "v", provider="github", reason="TOO_LARGE")
    assert [each.time_us for each in log.newest("", 0, 10)] == [4, 3, 2]
    assert [each.time_us for each in log.newest("v", 0, 10)] == [4, 2]
    assert [each.time_us for each in log.newest("", 4, 10)] == [2]
    assert log.totals() == {"TOO_LARGE": 5}


def test_refusals_are_counted_by_sender_since_the_start() -> None:
    log = RejectedRequests(1)
    log.add(0, workspace="w", provider="github", reason="TOO_LARGE")
    log.add(0, workspace="w", provider="github", reason="TOO_LARGE", count=4)
    log.add(0, workspace="v", provider="github", reason="TOO_LARGE")
    log.add(0, workspace="w", provider="no-such", reason="PROVIDER_NOT_FOUND", is_known_provider=False)
    assert log.of_workspace("w") == {"github": 5, "unknown": 1}
    assert log.of_workspace("") == {"github": 6, "unknown": 1}
    assert log.of_workspace("x") == {}
    assert log.totals() == {"TOO_LARGE": 6, "PROVIDER_NOT_FOUND": 1}


def test_of_too_many_senders_the_quiet_ones_are_forgotten() -> None:
    log = RejectedRequests(1)
    for number in range(2 * SENDERS_MAX):
        log.add(0, workspace=f"w{number}", provider="github", reason="TOO_LARGE")
        log.add(0, workspace="noisy", provider="github", reason="TOO_LARGE")
    assert len(log.by_sender()) == SENDERS_MAX
    assert log.of_workspace("noisy") == {"github": 2 * SENDERS_MAX}


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
