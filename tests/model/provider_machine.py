"""The state machine of files and write-back with a provider: its changes, its answers, and what it says it echoes."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from relayfile.model import NO_SEMANTICS, MemberKind
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.result import MemberResult
from relayfile.v1 import dead_letter_pb2, types_pb2, workspace_pb2, writeback_pb2
from relayfile.wire import from_us
from tests.model.drawn import CONTENTS
from tests.model.operation import DELETE, FETCH, Operation
from tests.model.provider import (
    DEAD_LETTERED,
    DELETED,
    DUPLICATE,
    PATCHED,
    SIGNALLED,
    UPSERTED,
    Change,
    Provider,
)
from tests.model.writeback_machine import WritebackMachine, one_of
from tests.support.writeback import PROVIDER, W

OBJECTS = ("issue/1", "issue/2", "issue/3", "page/4")
OBJECT_PATHS = ("", "", "/linear/moved.json", "/linear/two.json", "/a/1/p.json")
CANONICAL_PATHS = ("", "", "/linear/issues/K.json", "/linear/two.json", "/linear/_new/other.json")
PATCHES = (b'{"k":3}', b'{"k":1}', b'{"k":null}', b'{"l":{"m":null,"n":[1]}}', b'{"k":4,"o":"p"}')
COUNTED = (
    "applied", "coalesced", "duplicate", "suppressed", "stale", "unchanged", "ignored", "dead_lettered",
)  # fmt: skip

objects = st.sampled_from(OBJECTS)
bodies = st.one_of(
    st.tuples(st.just(UPSERTED), st.sampled_from(CONTENTS)),
    st.tuples(st.just(UPSERTED), st.sampled_from(CONTENTS)),
    st.tuples(st.just(DELETED), st.just(b"")),
    st.tuples(st.just(PATCHED), st.sampled_from(PATCHES)),
    st.tuples(st.just(SIGNALLED), st.just(b"")),
)


class ProviderMachine(WritebackMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = Provider(self.model, self.operations, self.driver.clock.now_us)
        self.operations.let_go = self.provider.release
        self.newest_us = 0
        """Of all changes."""
        self.delivered: list[tuple[str, Change]] = []
        """(envelope, change), all that ever were."""
        self.owners: dict[int, str] = {}
        """Delivery -> the envelope that brought it, or brought it again after a dead letter."""

    # --- deliveries

    @rule(object_id=objects, path=st.sampled_from(OBJECT_PATHS), body=bodies, is_timed=st.sampled_from((1, 1, 1, 0)))
    def change(self, object_id: str, path: str, body: tuple[str, bytes], is_timed: bool) -> None:
        """Newer than all before it."""
        kind, content = body
        where = path if kind == UPSERTED else ""
        self._deliver(kind, object_id, where, content, self._new_time_us() if is_timed else None)

    @rule(object_id=objects, body=bodies, is_older=st.booleans())
    def late(self, object_id: str, body: tuple[str, bytes], is_older: bool) -> None:
        """A change that the provider made a moment before, or behind, the newest one that is known of its object."""
        known = self.provider.objects.get(object_id)
        if known is None or not known.newest_us:
            return
        step_us = next(self.numbers)
        self._deliver(body[0], object_id, "", body[1], known.newest_us + (step_us - 500 if is_older else step_us))

    @precondition(lambda self: self.delivered)
    @rule(data=st.data(), is_resent=st.booleans())
    def again(self, data: st.DataObject, is_resent: bool) -> None:
        """A delivery that the provider repeats, or that ingest sends once more because it has heard nothing."""
        envelope, change = one_of(data, self.delivered)
        if not is_resent:
            self._arrive(change)
            return
        told = self.driver.wait(self._applied(envelope, change))
        assert not told.counted
        outcome = self.provider.recorded[change.delivery] if self.owners[change.delivery] == envelope else DUPLICATE
        assert told.outcome is not None
        assert told.outcome.name.lower() == outcome

    @precondition(lambda self: any(change.occurred_us for change in self.provider.dead.values()))
    @rule(data=st.data())
    def replay_letter(self, data: st.DataObject) -> None:
        """A dead letter is tried again. (Only what has a provider's time: the rest is older than what came since.)"""
        dead = [delivery for delivery, change in self.provider.dead.items() if change.occurred_us]
        delivery = one_of(data, dead)
        kept = {letter.envelope_id: letter.dead_letter_id for letter in self.driver.wait(self._letters())}
        letter_id = kept[self.owners[delivery]]
        self.driver.wait(self._replayed(letter_id))
        outcome = self.provider.replay(delivery)
        left = {letter.dead_letter_id for letter in self.driver.wait(self._letters())}
        assert (letter_id in left) is (outcome == DEAD_LETTERED)

    @precondition(lambda self: any(row.claim_number for row in self.operations.made))
    @rule(data=st.data(), is_true=st.sampled_from((1, 1, 0)), is_signal=st.sampled_from((0, 0, 1)), by=st.booleans())
    def echo(self, data: st.DataObject, is_true: bool, is_signal: bool, by: bool) -> None:
        """A change that names an operation, and brings what that brought, or something else."""
        claimed = [row for row in self.operations.made if row.claim_number]
        row = one_of(data, claimed)
        object_id = row.key[2:] if row.key.startswith("o:") else OBJECTS[0]
        kind, content = (DELETED, b"") if row.kind == DELETE else (UPSERTED, row.content or b"")
        if not is_true:
            kind, content = UPSERTED, b'{"other":1}'
        if is_signal:
            kind, content = SIGNALLED, b""
        named = {"operation_id": row.operation_id} if by else {"correlation_id": row.correlation_id}
        self._deliver(kind, object_id, "", content, self._new_time_us(), **named)

    # --- answers

    def succeed(self, data: st.DataObject, row: Operation, number: int, claim: writeback_pb2.ClaimedOperation) -> None:
        """With what the provider made of an edit, or has for a fetch; or with the name of a draft."""
        success = writeback_pb2.OperationSuccess(provider_status=200)
        at_us = data.draw(st.sampled_from(("absent", "new", "new", "old")), label="time")
        occurred_us = {"absent": None, "new": self._new_time_us(), "old": self.newest_us - 100_500}[at_us]
        change: Change | None = None
        if row.kind == FETCH or (row.key.startswith("o:") and occurred_us and data.draw(st.booleans(), label="change")):
            content = data.draw(st.sampled_from((*CONTENTS, None)), label="content")
            kind = DELETED if content is None else UPSERTED
            path = data.draw(st.sampled_from(OBJECT_PATHS), label="path") if content is not None else ""
            change = Change(kind, row.key[2:], path, content or b"", occurred_us)
            success.change.CopyFrom(_file_change(change))
        if row.kind != FETCH and occurred_us is not None:
            success.occurred_at.CopyFrom(from_us(occurred_us))
        if row.is_draft:
            free = [each for each in OBJECTS if self.provider.look(each).held is None]
            success.provider_object_id = data.draw(st.sampled_from(("", *free)), label="object")
            if success.provider_object_id:
                success.canonical_path = data.draw(st.sampled_from(CANONICAL_PATHS), label="canonical")
        head = writeback_pb2.AckOperationHead(
            workspace_id=W, operation_id=row.operation_id, claim_number=number, success=success
        )
        if self.driver.kill_steps is not None:
            head.request_id = self._new_request_id()
        answer, refusal = self.driver.ask_surely(lambda: self._acknowledged(head))
        assert refusal in {"", "CLAIM_EXPIRED"}
        if not self.operations.holds(row, number):
            assert self.operations.late(row, number) is not bool(refusal)
            return
        assert answer is not None
        if success.provider_object_id:
            self.provider.link(row, success.provider_object_id, success.canonical_path)
        is_placed = change is None or self.provider.answered(row, change)
        if change is not None and change.kind == UPSERTED:
            row.result = change.content
        if row.kind != FETCH and occurred_us is not None and not row.is_draft:
            self.provider.acknowledged(row, occurred_us)
        self.operations.succeed(row, (success.HasField("occurred_at") and occurred_us) or None, is_placed=is_placed)

    # --- what always holds

    def checks(self) -> list[Callable[[], None]]:
        """As there, and more."""
        return [*super().checks(), self.outcomes_agree]

    def outcomes_agree(self) -> None:
        """Every change that was accepted has ended in exactly one outcome, and the dead letters are those that have."""
        request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
        client = self.driver.stage.client
        workspace = self.driver.wait(client.workspaces.GetWorkspace(request, metadata=client.metadata)).workspace
        [told] = workspace.providers or [workspace_pb2.ProviderSync()]
        expected = {name: self.provider.outcomes[name] for name in COUNTED}
        assert {name: getattr(told.status, name) for name in COUNTED} == expected
        assert told.status.accepted == sum(expected.values()) == len(self.delivered) + self.provider.left_by_answers
        assert (told.status.pending, told.pending_dead_letter_count) == (0, expected[DEAD_LETTERED])

    # ---

    def _new_time_us(self) -> int:
        self.newest_us = max(self.newest_us + 1_000, self.driver.clock.now_us())
        return self.newest_us

    def _deliver(
        self, kind: str, object_id: str, path: str, content: bytes, occurred_us: int | None, **named: str
    ) -> None:
        number = next(self.numbers)
        self._arrive(Change(kind, object_id, path, content, occurred_us, number, **named))

    def _arrive(self, change: Change) -> None:
        """In a new envelope."""
        envelope = f"envelope-{next(self.numbers):017d}"
        self.driver.die_in(lambda: self._applied(envelope, change))
        result = self.driver.wait(self._applied(envelope, change))
        assert result.outcome is not None
        outcome = self.provider.deliver(change)
        assert result.outcome.name.lower() == outcome, (result.outcome, outcome, result.failure)
        self.delivered.append((envelope, change))
        if outcome != DUPLICATE:
            self.owners[change.delivery] = envelope

    async def _applied(self, envelope: str, change: Change) -> MemberResult:
        """What the store makes of it."""
        stage = self.driver.stage
        member = Member(
            MemberKind[change.kind.upper()], envelope, f"delivery-{change.delivery}", 0, change.path, change.object_id,
            self.driver.clock.now_us(), change.occurred_us, change.content, change.content_type, NO_SEMANTICS,
            change.correlation_id, "", change.operation_id,
        )  # fmt: skip
        fold = Fold(PROVIDER, f"o:{change.object_id}", (member,), "ingest-0")
        node = stage.node.node
        work = node.committer.submit(stage.key, node.apply_folds, (fold,), change_count=1, byte_count=0)
        [[result]] = await work
        return result

    async def _letters(self) -> Sequence[dead_letter_pb2.DeadLetter]:
        client = self.driver.stage.client
        request = dead_letter_pb2.ListDeadLettersRequest(workspace_id=W, page_size=1_000)
        return (await client.dead_letters.ListDeadLetters(request, metadata=client.metadata)).dead_letters

    async def _replayed(self, letter_id: str) -> None:
        """Return when that has ended."""
        client = self.driver.stage.client
        request = dead_letter_pb2.ReplayDeadLettersRequest(workspace_id=W, dead_letter_ids=[letter_id])
        answer = await client.dead_letters.ReplayDeadLetters(request, metadata=client.metadata)
        assert answer.queued_count == 1
        replaying = dead_letter_pb2.DEAD_LETTER_STATE_REPLAYING
        states = [replaying]
        while replaying in states:
            await asyncio.sleep(0.001)
            states = [each.state for each in await self._letters()]

    def _acknowledged(self, head: writeback_pb2.AckOperationHead) -> Awaitable[Any]:
        stage = self.driver.stage
        messages = [writeback_pb2.AckOperationRequest(head=head)]
        return stage.client.writeback.AckOperation(iter(messages), metadata=stage.client.metadata)


def _file_change(change: Change) -> types_pb2.FileChange:
    kind = types_pb2.CHANGE_KIND_DELETE if change.kind == DELETED else types_pb2.CHANGE_KIND_UPSERT
    message = types_pb2.FileChange(
        kind=kind, path=change.path, content=change.content, content_type=change.content_type
    )
    if change.occurred_us is not None:
        message.occurred_at.CopyFrom(from_us(change.occurred_us))
    return message
