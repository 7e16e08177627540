"""A try that failed may have reached the provider: an object is written once a second at most all the same."""

import pytest

from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.limits import SECOND_US, WritebackLimits
from relayfile.store.plan.writeback.rows import OperationFault, OperationKind, OperationRow, OperationState

NOW_US = 1_790_000_000_000_000
LIMITS = WritebackLimits()


def claimed(claimed_us: int) -> OperationRow:
    return OperationRow(
        operation_id="op", provider="linear", object_key="o:issue/1", kind=OperationKind.WRITE,
        state=OperationState.CLAIMED, path="/linear/1", revision=1, actor="ada", created_us=1, claimable_us=1,
        claim_number=1, claimed_us=claimed_us, claim_expire_us=claimed_us + 30 * SECOND_US, attempt_count=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("claimed_ago_us", "retry_after_us", "expected_us"),
    [
        (10_000, None, SECOND_US - 10_000),
        (800_000, None, 500_000),
        (10 * SECOND_US, None, 500_000),
        (10_000, 0, SECOND_US - 10_000),
        (10_000, 7 * SECOND_US, 7 * SECOND_US),
    ],
)
def test_the_next_try_is_a_second_after_the_last_claim_at_least(
    claimed_ago_us: int, retry_after_us: int | None, expected_us: int
) -> None:
    fault = OperationFault("PROVIDER_UNAVAILABLE", "", retryable=True, retry_after_us=retry_after_us)
    again = lifecycle.failed(claimed(NOW_US - claimed_ago_us), fault, LIMITS, NOW_US, jitter=0.0)
    assert again.state is OperationState.PENDING
    assert again.claimable_us - NOW_US == expected_us
