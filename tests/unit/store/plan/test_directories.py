"""Directories in the making."""

from relayfile.model import MemberKind
from relayfile.paths import PATH_BYTES_MAX
from tests.fakes.model_store import Deliveries, ModelStore


def test_the_deepest_path_that_is_legal_is_planned() -> None:
    store, make = ModelStore(), Deliveries()
    deepest = "/a" * (PATH_BYTES_MAX // 2)
    store.apply(make.fold("issue/1", [make.member(MemberKind.UPSERT, deepest, b"1")]))
    store.check()
    store.apply(make.fold("issue/1", [make.member(MemberKind.UPSERT, deepest[:-4] + "/b", b"1")]))
    assert list(store.tree()) == [deepest[:-4] + "/b"]
    store.check()
