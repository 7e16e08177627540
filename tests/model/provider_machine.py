"""The state machine of files and write-back with a provider: changes that are new, repeated, or late."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from relayfile.model import NO_SEMANTICS, MemberKind
from relayfile.store.plan.entry import Fold, Member
from relayfile.store.plan.result import MemberResult
from tests.model.machine import CONTENTS
from tests.model.provider import DUPLICATE, STALE, Change, Provider
from tests.model.writeback_machine import WritebackMachine
from tests.support.writeback import PROVIDER, Stage

OBJECTS = ("issue/1", "issue/2")
OBJECT_PATHS = ("", "", "/linear/moved.json", "/linear/two.json", "/a/1/p.json")


class ProviderMachine(WritebackMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.provider = Provider(self.model, self.operations, self.driver.clock.now_us)
        self.operations.let_go = self.provider.release
        self.newest_us = 0
        """Of all changes."""
        self.delivered: list[Change] = []
        self.envelopes = 0

    @rule(
        object_id=st.sampled_from(OBJECTS),
        path=st.sampled_from(OBJECT_PATHS),
        content=st.sampled_from((*CONTENTS, None)),
    )
    def change(self, object_id: str, path: str, content: bytes | None) -> None:
        """Newer than all before it."""
        self.newest_us = max(self.newest_us + 1_000, self.driver.clock.now_us())
        where = path if content is not None else ""
        change = Change(object_id, where, content, self.newest_us, len(self.delivered) + 1)
        self.delivered.append(change)
        assert self._deliver(change) == self.provider.deliver(change)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        """A delivery that the provider repeats."""
        change = data.draw(st.sampled_from(self.delivered))
        if change.delivery in self.provider.dead:
            return
        assert self._deliver(change) == DUPLICATE
        self.provider.outcomes[DUPLICATE] += 1

    @rule(object_id=st.sampled_from(OBJECTS), content=st.sampled_from((*CONTENTS, None)))
    def late(self, object_id: str, content: bytes | None) -> None:
        """A change that the provider made before the newest one that is known of its object."""
        known = self.provider.objects.get(object_id)
        if known is None or not known.newest_us:
            return
        change = Change(object_id, "", content, known.newest_us - 500, len(self.delivered) + 1)
        self.delivered.append(change)
        assert self._deliver(change) == self.provider.deliver(change) == STALE

    def _deliver(self, change: Change) -> str:
        """Its outcome, by the store."""
        stage = self.driver.stage
        kind = MemberKind.DELETE if change.content is None else MemberKind.UPSERT
        self.envelopes += 1
        member = Member(
            kind, f"envelope-{self.envelopes:017d}", f"delivery-{change.delivery}", 0, change.path, change.object_id,
            self.driver.clock.now_us(), change.occurred_us, change.content or b"", "application/json", NO_SEMANTICS,
            "", "", "",
        )  # fmt: skip
        fold = Fold(PROVIDER, f"o:{change.object_id}", (member,), "ingest-0")
        result = self.driver.wait(self._applied(stage, fold))
        assert result.outcome is not None
        return result.outcome.name.lower()

    async def _applied(self, stage: Stage, fold: Fold) -> MemberResult:
        node = stage.node.node
        work = node.committer.submit(stage.key, node.apply_folds, (fold,), change_count=1, byte_count=0)
        [[result]] = await work
        return result
