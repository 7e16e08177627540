"""The state machine of files with write-back: workers that claim, answer, fail, are late, and people that step in."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from relayfile.v1 import writeback_pb2
from tests.model.machine import FileMachine
from tests.model.operation import CONCURRENCY_MAX, SECOND_US, Operation
from tests.model.operations import Operations
from tests.support.writeback import W, seconds

T = TypeVar("T")
FOR_SURE_S = 400.0
"""Asked for by the provider: longer than any pause that is partly random."""


class WritebackMachine(FileMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = Operations(self.model, self.driver.clock.now_us)
        self.claims: list[tuple[Operation, int, writeback_pb2.ClaimedOperation]] = []
        """(operation, number of the claim, as it was given), all that ever were."""

    # --- workers

    @rule(count=st.sampled_from((1, 2, 100)), lease_s=st.sampled_from((1, 30)))
    def claim(self, count: int, lease_s: int) -> None:
        """What is claimable, and nothing else."""
        fields: dict[str, Any] = {"lease": seconds(lease_s)}
        if self.driver.kill_steps is not None:
            fields["request_id"] = self._new_request_id()
        given, _ = self.driver.ask_surely(lambda: self.driver.stage.claim(count, **fields))
        assert given is not None
        claimable = self.operations.claimable()
        room = CONCURRENCY_MAX - len(self.operations.claimed())
        assert len(given) == min(count, room, len(claimable))
        for claim in given:
            [row] = [each for each in claimable if each.operation_id == claim.operation.operation_id]
            assert claim.content == (row.content or b"")
            self.operations.claim(row, lease_s * SECOND_US)
            assert claim.claim_number == row.claim_number
            self.claims.append((row, claim.claim_number, claim))

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), ending=st.sampled_from(("success", "success", "retry", "never", "release", "delay", "renew")))
    def answer(self, data: st.DataObject, ending: str) -> None:
        """One of the claims that ever were: of those that have ended nothing is taken."""
        row, number, claim = one_of(data, self.claims)
        if ending == "success":
            self.succeed(data, row, number, claim)
            return
        model, stage = self.operations, self.driver.stage
        if ending == "retry":
            _, refusal = self.driver.ask(stage.fail(claim, retry_after=FOR_SURE_S))
            assert model.fail(row, number, round(FOR_SURE_S * SECOND_US)) is not bool(refusal)
        elif ending == "never":
            _, refusal = self.driver.ask(stage.fail(claim, retryable=False))
            assert model.fail(row, number, None) is not bool(refusal)
        elif ending == "renew":
            request = writeback_pb2.RenewClaimRequest(
                workspace_id=W, operation_id=row.operation_id, claim_number=number, lease=seconds(60)
            )
            _, refusal = self.driver.ask(stage.client.writeback.RenewClaim(request, metadata=stage.client.metadata))
            assert model.renew(row, number, 60 * SECOND_US) is not bool(refusal)
        else:
            delay_s = 2 if ending == "delay" else 0
            given_back = writeback_pb2.ReleaseClaim(delay=seconds(delay_s))
            _, refusal = self.driver.ask(stage.ack(claim, release=given_back))
            assert model.release(row, number, delay_s * SECOND_US) is not bool(refusal)
        assert refusal in {"", "CLAIM_EXPIRED"}

    # --- people

    @precondition(lambda self: self.operations.made)
    @rule(data=st.data(), verb=st.sampled_from(("cancel", "replay", "approve")))
    def order(self, data: st.DataObject, verb: str) -> None:
        """One operation, whatever its state."""
        row = one_of(data, self.operations.made)
        stage = self.driver.stage
        if verb == "cancel":
            chosen = writeback_pb2.CancelOperationsRequest(workspace_id=W, operation_ids=[row.operation_id])
            answer = self.driver.wait(stage.client.writeback.CancelOperations(chosen, metadata=stage.client.metadata))
            counted = {
                "canceled": answer.canceled_count,
                "claimed": answer.claimed_count,
                "skipped": len(answer.skipped_operation_ids),
            }
            assert {name for name, number in counted.items() if number} == {self.operations.cancel(row)}
        elif verb == "approve":
            let = writeback_pb2.ApproveOperationsRequest(workspace_id=W, operation_ids=[row.operation_id])
            done = self.driver.wait(stage.client.writeback.ApproveOperations(let, metadata=stage.client.metadata))
            assert (done.approved_count == 1) is self.operations.approve(row) is not bool(done.skipped_operation_ids)
        else:
            again = writeback_pb2.ReplayOperationRequest(workspace_id=W, operation_id=row.operation_id)
            _, refusal = self.driver.ask(stage.client.writeback.ReplayOperation(again, metadata=stage.client.metadata))
            assert self.operations.replay(row) is not bool(refusal)
            assert refusal in {"", "OPERATION_NOT_DEAD_LETTERED"}

    # --- what always holds

    def checks(self) -> list[Callable[[], None]]:
        """As there, and more."""
        return [*super().checks(), self.operations_agree]

    def operations_agree(self) -> None:
        """All, in the order in which they were made; of one object one is claimed at most."""
        told = self.driver.wait(self.driver.stage.operations())
        made = self.operations.made
        differing = [(row, each) for row, each in zip_longest(map(_expected, made), map(_shown, told)) if row != each]
        assert not differing, differing[0]
        for row, each in zip(made, told, strict=True):
            assert row.operation_id in {"", each.operation_id}
            row.operation_id, row.correlation_id = each.operation_id, each.correlation_id
        claimed = [each.key for each in self.operations.claimed()]
        assert len(claimed) == len(set(claimed)), "two of one object are claimed"

    # --- hooks

    def succeed(self, data: st.DataObject, row: Operation, number: int, claim: writeback_pb2.ClaimedOperation) -> None:
        """A worker says that the provider did it."""
        raise NotImplementedError

    def after_edits(self, operation_ids: Sequence[str]) -> None:
        """They become operations."""
        self.operations.take_edits()
        self.driver.wait(self.driver.stage.tend())  # the node does so by itself, at once, but in its own time
        self.operations.free_taken_back()

    def after_time(self) -> None:
        """Claims end."""
        self.driver.wait(self.driver.stage.tend())
        self.operations.expire()


def _expected(row: Operation) -> tuple[object, ...]:
    return (
        row.kind, row.state, row.path, row.moved_from, row.revision, row.base_revision, row.folded,
        row.claim_number, row.attempts, len(row.content or b""), row.is_draft,
    )  # fmt: skip


def _shown(row: writeback_pb2.Operation) -> tuple[object, ...]:
    kind = writeback_pb2.OperationKind.Name(row.kind).removeprefix("OPERATION_KIND_").lower()
    state = writeback_pb2.OperationState.Name(row.state).removeprefix("OPERATION_STATE_").lower()
    return (
        kind, state, row.path, row.moved_from, row.revision, row.base_revision, row.folded_count,
        row.claim_number, row.attempt_count, row.size_bytes, row.draft,
    )  # fmt: skip


def one_of(data: st.DataObject, known: Sequence[T]) -> T:
    """One of them, shown by its number."""
    return known[data.draw(st.integers(0, len(known) - 1), label="number")]
