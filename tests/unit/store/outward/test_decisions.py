"""Breaker, pace and what answers mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.store.outward.answers import (
    SAID_BYTES_MAX,
    Fetched,
    TargetAnswer,
    TargetFault,
    WriteDone,
    of_fetch,
    of_write,
    retry_after_s,
)
from relayfile.store.outward.breaker import FAILURES_MAX, REST_FIRST_S, REST_MAX_S, Breaker
from relayfile.store.outward.pace import Pace

NOW_US = 1_790_000_000_000_000


class TestBreaker:
    def test_it_opens_after_failures_in_a_row_and_lets_one_probe_through(self) -> None:
        breaker = Breaker()
        for _ in range(FAILURES_MAX - 1):
            breaker = breaker.failed(10.0)
            assert breaker.may_call(10.0)
        breaker = breaker.failed(10.0)
        assert not breaker.may_call(10.0 + REST_FIRST_S - 0.1)
        assert breaker.may_call(10.0 + REST_FIRST_S)
        probing = breaker.called()
        assert not probing.may_call(10.0 + REST_FIRST_S), "one finds out"
        assert probing.succeeded() == Breaker()
        again = probing.failed(20.0)
        assert not again.may_call(20.0 + 2 * REST_FIRST_S - 0.1)
        assert again.may_call(20.0 + 2 * REST_FIRST_S)
        assert probing.gave_up().may_call(10.0 + REST_FIRST_S), "a probe that told nothing is repeated"

    def test_one_success_between_keeps_it_closed(self) -> None:
        breaker = Breaker()
        for _ in range(3):
            for _ in range(FAILURES_MAX - 1):
                breaker = breaker.failed(0.0)
            breaker = breaker.succeeded()
        assert breaker == Breaker()

    @given(st.lists(st.sampled_from(["failed", "called", "gave_up"]), max_size=60))
    def test_it_never_rests_longer_than_its_limit(self, steps: list[str]) -> None:
        breaker = Breaker()
        for now, step in enumerate(steps):
            breaker = breaker.failed(float(now)) if step == "failed" else getattr(breaker, step)()
        assert breaker.open_until <= len(steps) + REST_MAX_S


class TestPace:
    def test_so_many_at_a_time(self) -> None:
        pace = Pace(2, 0).called(0).called(0)
        assert not pace.may_call(100)
        assert pace.ended().may_call(0)

    def test_so_many_a_second(self) -> None:
        pace = Pace(100, 4.0)
        sent, now = 0, 0.0
        while now < 10:
            if pace.may_call(now):
                pace, sent = pace.called(now), sent + 1
            now += 0.01
        assert 39 <= sent <= 41

    def test_not_before_the_target_wants_it(self) -> None:
        pace = Pace(1, 0).told_to_wait(5.0, 7.0)
        assert not pace.may_call(11.9)
        assert pace.may_call(12.0)
        assert pace.told_to_wait(5.0, 1.0) == pace, "a shorter wish shortens nothing"


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 204])
    def test_a_write_is_done_and_may_say_more(self, status: int) -> None:
        assert of_write(TargetAnswer(status, b""), NOW_US) == WriteDone(status)
        body = b'{"provider_object_id": "issue/9", "canonical_path": "/x.json", "occurred_at": "2026-01-02T03:04:05Z"}'
        done = of_write(TargetAnswer(status, body), NOW_US)
        assert done == WriteDone(status, "issue/9", "/x.json", 1_767_323_045_000_000)
        long = body[:-1] + b" " * SAID_BYTES_MAX + b"}"
        assert of_write(TargetAnswer(status, long), NOW_US) == WriteDone(status), "done, and not read"
        strange = b'{"provider_object_id": 9, "canonical_path": null, "occurred_at": "soon"}'
        assert of_write(TargetAnswer(status, strange), NOW_US) == WriteDone(status)

    @pytest.mark.parametrize(
        "body",
        [
            b'{"a":' + b"[" * 200_000 + b"}",
            b'{"provider_object_id": "x/\\ud800", "canonical_path": "/\\udfff.json"}',
            b'{"occurred_at": "9999-12-31T23:59:59.9-23:59"}',
            b'{"occurred_at": 1e999}',
        ],
    )
    def test_a_body_that_nobody_can_mean_leaves_the_write_done(self, body: bytes) -> None:
        assert of_write(TargetAnswer(200, body), NOW_US) == WriteDone(200)

    @pytest.mark.parametrize(
        ("status", "retryable"),
        [(301, False), (400, False), (404, False), (422, False), (401, True), (408, True), (429, True), (503, True)],
    )
    def test_other_answers_are_faults(self, status: int, retryable: bool) -> None:
        fault = of_write(TargetAnswer(status, b"no \xff", retry_after="7"), NOW_US)
        assert isinstance(fault, TargetFault)
        assert (fault.retryable, fault.status, fault.retry_after_s) == (retryable, status, 7.0)
        assert fault.message.startswith(f"HTTP {status}: no")

    def test_a_fetch_brings_content_or_the_end_of_the_object(self) -> None:
        answer = TargetAnswer(200, b"{}", "application/json; charset=utf-8")
        assert of_fetch(answer, NOW_US) == Fetched(200, b"{}", "application/json")
        assert of_fetch(TargetAnswer(404, b"gone"), NOW_US) == Fetched(404, None)
        assert of_fetch(TargetAnswer(410, b""), NOW_US) == Fetched(410, None)
        assert isinstance(of_fetch(TargetAnswer(204, b""), NOW_US), TargetFault), "nothing is no content"
        for strange in ("text/\udcff", "text/" + "x" * 10_000):
            assert of_fetch(TargetAnswer(200, b"", strange), NOW_US) == Fetched(200, b""), (
                "a type that no file can have"
            )

    @pytest.mark.parametrize(
        ("raw", "expected"),
        [
            ("", None), ("0", 0.0), ("120", 120.0), (" 3 ", 3.0), ("99999999999", 86_400.0), ("-1", None), ("x", None),
            ("Mon, 21 Sep 2026 14:13:30 GMT", 10.0), ("Mon, 21 Sep 2020 00:00:00 GMT", 0.0),
            ("Mon, 21 Sep 99999999999999999999 00:00:00 GMT", None),
            ("Mon, 21 Sep 2026 00:00:00 +99999999999999", None),
        ],
    )  # fmt: skip
    def test_retry_after(self, raw: str, expected: float | None) -> None:
        assert retry_after_s(raw, NOW_US) == expected
