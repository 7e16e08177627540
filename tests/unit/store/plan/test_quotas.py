"""What a provider's change does in a workspace that is full: a dead letter, and a replay when there is room again."""

from relayfile.model import MemberKind, Outcome
from relayfile.store.plan.entry import Fold
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.rows import WorkspaceRow
from tests.fakes.model_store import Deliveries, ModelStore

UPSERT, DELETE = MemberKind.UPSERT, MemberKind.DELETE
APPLIED, DEAD = Outcome.APPLIED, Outcome.DEAD_LETTERED


class World:
    def __init__(self, limits: PlanLimits) -> None:
        self.store, self.make = ModelStore(limits), Deliveries()

    def fold(self, name: str, content: bytes | None, path: str = "") -> Fold:
        kind = UPSERT if content is not None else DELETE
        return self.make.fold(name, [self.make.member(kind, path or f"/d/{name}", content or b"")])

    def do(self, *folds: Fold) -> list[Outcome | None]:
        outcomes = self.store.outcomes_of(*folds)
        self.store.check()
        return outcomes


def test_files_beyond_the_quota_are_dead_lettered() -> None:
    world = World(PlanLimits(files_max=2))
    outcomes = world.do(*(world.fold(f"{number}", b"1") for number in range(3)), world.fold("0", b"2"))
    assert outcomes[1:] == [APPLIED, DEAD, APPLIED]
    [letter] = world.store.dead_letters
    assert (letter.failure.reason, letter.failure.message) == (
        "QUOTA_EXCEEDED",
        "The workspace's quota of 2 files is used up.",
    )
    assert world.do(world.fold("0", b"", "/d/moved")) == [APPLIED], "a move makes no more files"
    assert world.do(world.fold("1", None)) == [APPLIED]
    assert world.store.replay(letter) is APPLIED
    world.store.check()


def test_bytes_beyond_the_quota_are_dead_lettered_and_shrinking_is_not() -> None:
    world = World(PlanLimits(total_bytes_max=10))
    assert world.do(world.fold("a", b"x" * 6), world.fold("b", b"x" * 5)) == [APPLIED, DEAD]
    assert world.do(world.fold("a", b"x" * 11)) == [DEAD]
    assert world.do(world.fold("a", b"x" * 10)) == [APPLIED]
    assert world.do(world.fold("a", b"x")) == [APPLIED]
    assert world.do(world.fold("b", b"x" * 9)) == [APPLIED]


def test_a_quota_of_the_workspace_goes_before_that_of_the_node() -> None:
    world = World(PlanLimits(files_max=1))
    world.store.workspace = WorkspaceRow("history", 0, 0, files_max=2)
    assert world.do(world.fold("a", b"1"), world.fold("b", b"1"), world.fold("c", b"1")) == [APPLIED, APPLIED, DEAD]


def test_a_fold_that_takes_the_place_of_another_object_needs_no_room() -> None:
    world = World(PlanLimits(files_max=1, total_bytes_max=4))
    assert world.do(world.fold("a", b"1234", "/d/x")) == [APPLIED]
    assert world.do(world.fold("b", b"4321", "/d/x")) == [APPLIED]
