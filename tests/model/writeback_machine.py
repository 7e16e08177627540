"""The state machine of files with write-back: workers that claim, answer, fail, are late, and people that step in."""

from collections.abc import Sequence

from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule

from relayfile.v1 import writeback_pb2
from tests.model.machine import FileMachine
from tests.model.operations import CONCURRENCY_MAX, SECOND_US, Operation, Operations
from tests.support.writeback import W, seconds

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
        given = self.driver.wait(self.driver.stage.claim(count, lease=seconds(lease_s)))
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
        row, number, claim = data.draw(st.sampled_from(self.claims))
        model, stage = self.operations, self.driver.stage
        if ending == "success":
            _, refusal = self.driver.ask(stage.succeed(claim))
            assert model.succeed(row, number) is not bool(refusal)
        elif ending == "retry":
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
    @rule(data=st.data(), verb=st.sampled_from(("cancel", "replay")))
    def order(self, data: st.DataObject, verb: str) -> None:
        """One operation, whatever its state."""
        row = data.draw(st.sampled_from(self.operations.made))
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
        else:
            again = writeback_pb2.ReplayOperationRequest(workspace_id=W, operation_id=row.operation_id)
            _, refusal = self.driver.ask(stage.client.writeback.ReplayOperation(again, metadata=stage.client.metadata))
            assert self.operations.replay(row) is not bool(refusal)
            assert refusal in {"", "OPERATION_NOT_DEAD_LETTERED"}

    # --- what always holds

    @invariant()
    def operations_agree(self) -> None:
        """All, in the order in which they were made; of one object one is claimed at most."""
        told = self.driver.wait(self.driver.stage.operations())
        made = self.operations.made
        assert [_shown(each) for each in told] == [
            (each.kind, each.state, each.path, each.moved_from, each.revision, each.base_revision, each.folded,
             each.claim_number, each.attempts, len(each.content or b""), each.is_draft)
            for each in made
        ]  # fmt: skip
        for row, each in zip(made, told, strict=True):
            assert row.operation_id in {"", each.operation_id}
            row.operation_id = each.operation_id
        claimed = [each.key for each in self.operations.claimed()]
        assert len(claimed) == len(set(claimed)), "two of one object are claimed"

    # --- hooks

    def after_edits(self, operation_ids: Sequence[str]) -> None:
        """They become operations."""
        self.operations.take_edits()
        self.driver.wait(self.driver.stage.tend())  # the node does so by itself, at once, but in its own time
        self.operations.free_taken_back()

    def after_time(self) -> None:
        """Claims end."""
        self.driver.wait(self.driver.stage.tend())
        self.operations.expire()


def _shown(row: writeback_pb2.Operation) -> tuple[object, ...]:
    kind = writeback_pb2.OperationKind.Name(row.kind).removeprefix("OPERATION_KIND_").lower()
    state = writeback_pb2.OperationState.Name(row.state).removeprefix("OPERATION_STATE_").lower()
    return (
        kind, state, row.path, row.moved_from, row.revision, row.base_revision, row.folded_count,
        row.claim_number, row.attempt_count, row.size_bytes, row.draft,
    )  # fmt: skip
