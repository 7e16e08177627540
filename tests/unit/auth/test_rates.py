from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.auth import Principal, RateLimits, Rates, rate_stage, set_current_principal
from relayfile.auth.rates import BURST_S, DEBT_S
from relayfile.clock import ManualClock
from relayfile.errors import PermissionDenied, RateLimited
from relayfile.interception import Call
from relayfile.status import to_status
from relayfile.v1 import file_pb2


def test_no_limits_admit_everything() -> None:
    assert not RateLimits()
    rates = Rates(RateLimits())
    assert not any(rates.admit("w", "a", 1, 1 << 30, 0.0) for _ in range(1_000))


def test_a_burst_and_then_the_rate() -> None:
    rates = Rates(RateLimits(caller_calls=10))
    assert [rates.admit("w", "a", 1, 0, 0.0) for _ in range(20)] == [0.0] * 20
    assert rates.admit("w", "a", 1, 0, 0.0) == pytest.approx(0.1)
    assert rates.admit("w", "a", 1, 0, 0.05) == pytest.approx(0.05)
    assert rates.admit("w", "a", 1, 0, 0.1) == 0.0
    assert rates.admit("w", "b", 1, 0, 0.1) == 0.0, "another caller has a bucket of its own"
    assert rates.admit("v", "a", 1, 0, 0.1) == 0.0, "and so has the same one elsewhere"


def test_the_callers_of_a_workspace_share_its_bucket() -> None:
    rates = Rates(RateLimits(workspace_calls=5))
    assert [bool(rates.admit("w", f"a{n}", 1, 0, 0.0)) for n in range(11)] == [False] * 10 + [True]
    assert not rates.admit("v", "a0", 1, 0, 0.0)
    assert not any(rates.admit("", "a", 1, 0, 0.0) for _ in range(100)), "about no workspace"


def test_what_is_refused_takes_nothing() -> None:
    rates = Rates(RateLimits(caller_calls=1, caller_bytes=1_000))
    assert not rates.admit("w", "a", 1, 1_500, 0.0)
    for _ in range(10):
        assert rates.admit("w", "a", 1, 1_500, 0.0) == pytest.approx(1.0)
    assert not rates.admit("w", "a", 1, 500, 0.0)


def test_more_than_a_bucket_holds_passes_when_it_is_full_and_is_owed() -> None:
    rates = Rates(RateLimits(caller_bytes=100))
    assert not rates.admit("w", "a", 1, 1_000, 0.0)
    assert rates.admit("w", "a", 1, 1, 0.0) == pytest.approx(8.01)
    assert not rates.admit("w", "a", 1, 1, 8.02)


def test_answers_are_charged_afterwards_up_to_a_debt() -> None:
    rates = Rates(RateLimits(caller_bytes=100, workspace_bytes=100))
    rates.charge("w", "a", 400, 0.0)
    assert rates.admit("w", "a", 1, 1, 0.0) == pytest.approx(2.01)
    rates.charge("w", "a", 1 << 40, 0.0)
    assert rates.admit("w", "a", 1, 1, 0.0) == pytest.approx(DEBT_S + 0.01)


def test_the_number_of_buckets_is_bounded() -> None:
    rates = Rates(RateLimits(caller_calls=1), buckets_max=10)
    for n in range(1_000):
        rates.admit(f"w{n}", "a", 1, 0, 0.0)
    assert len(rates._buckets) == 10


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(0, 3), st.integers(0, 500)), max_size=60))
def test_over_any_time_no_more_is_admitted_than_burst_and_rate(steps: list[tuple[float, int, int]]) -> None:
    limits = RateLimits(workspace_calls=3, caller_calls=2, workspace_bytes=300, caller_bytes=200)
    rates, now, calls, size = Rates(limits), 0.0, 0, 0
    for passed, asked_calls, asked_bytes in steps:
        now += passed
        wait_s = rates.admit("w", "a", asked_calls, min(asked_bytes, 400), now)
        if not wait_s:
            calls, size = calls + asked_calls, size + min(asked_bytes, 400)
        else:
            assert not Rates(limits).admit("w", "a", asked_calls, min(asked_bytes, 400), now)
    assert calls <= (BURST_S + now) * limits.caller_calls + 1e-6
    assert size <= (BURST_S + now) * limits.caller_bytes + 1e-6


METHOD = "/relayfile.v1.FileService/GetFile"


def call_of(subject: str, service: str = "", is_allowed: Any = None) -> Call:
    workspaces = frozenset({"*"})
    set_current_principal(Principal(subject=subject, workspaces=workspaces, service=service, expires_at_us=0))
    nothing: Any = SimpleNamespace()
    return Call(METHOD, nothing, {}, "c", is_allowed)


async def test_the_stage_counts_a_call_once_and_its_bytes() -> None:
    clock = ManualClock()
    stage = rate_stage(Rates(RateLimits(caller_calls=1)), clock)
    request = file_pb2.GetFileRequest(workspace_id="w", path="/a")
    call = call_of("a")
    async with stage(call):
        assert call.on_request is not None
        for _ in range(10):
            call.on_request(request)
    call = call_of("a")
    async with stage(call):
        assert call.on_request is not None
        call.on_request(request)
    call = call_of("a")
    async with stage(call):
        assert call.on_request is not None
    with pytest.raises(RateLimited) as caught:
        call.on_request(request)
    assert (caught.value.workspace, caught.value.retry_after_s) == ("w", 1.0)
    assert "RetryInfo" in str(to_status(caught.value))


async def test_processes_of_the_cluster_are_not_held() -> None:
    stage = rate_stage(Rates(RateLimits(caller_calls=1)), ManualClock())
    call = call_of("store", service="store")
    async with stage(call):
        assert call.on_request is None


async def test_what_may_not_be_asked_costs_nothing() -> None:
    rates = Rates(RateLimits(caller_calls=1))

    def refuse(_request: Any) -> None:
        raise PermissionDenied(why="it is a test")

    for _ in range(10):
        call = call_of("a", is_allowed=refuse)
        async with rate_stage(rates, ManualClock())(call):
            assert call.on_request is not None
            with pytest.raises(PermissionDenied):
                call.on_request(file_pb2.GetFileRequest(workspace_id="w"))
    assert not rates._buckets


async def test_answers_count_when_they_are_sent() -> None:
    stage = rate_stage(Rates(RateLimits(caller_bytes=100)), ManualClock())
    call = call_of("a")
    async with stage(call):
        assert call.on_request is not None
        assert call.on_answer is not None
        call.on_request(file_pb2.GetFileRequest(workspace_id="w"))
        call.on_answer(b"x" * 1_000)
    call = call_of("a")
    async with stage(call):
        assert call.on_request is not None
        with pytest.raises(RateLimited):
            call.on_request(file_pb2.GetFileRequest(workspace_id="w"))
