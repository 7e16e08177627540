"""Placement is pinned: a result that changes here moves workspaces away from their data."""

import pytest

from relayfile import placement

GOLDEN = [
    # workspace, of 256, of 16, of 1000
    ("acme", 160, 0, 872),
    ("w", 0, 0, 872),
    ("demo", 132, 4, 596),
    ("00000000-0000-0000-0000-000000000000", 148, 4, 868),
    ("_app/github", 55, 7, 23),
    ("ws_01HZX", 83, 3, 643),
    ("Z" * 128, 176, 0, 40),
]


@pytest.mark.parametrize(("workspace", "of_256", "of_16", "of_1000"), GOLDEN)
def test_golden_shards(workspace: str, of_256: int, of_16: int, of_1000: int) -> None:
    assert placement.shard_of(workspace) == of_256
    assert placement.shard_of(workspace, 16) == of_16
    assert placement.shard_of(workspace, 1000) == of_1000
    assert placement.shard_of(workspace, 1) == 0


def test_shards_are_used_evenly() -> None:
    counts = [0] * 256
    for number in range(25_600):
        counts[placement.shard_of(f"workspace-{number}")] += 1
    # 100 expected in each, standard deviation 10: five of them is beyond chance.
    assert min(counts) > 50
    assert max(counts) < 150


@pytest.mark.parametrize("node_count", [1, 2, 3, 256])
def test_every_shard_has_exactly_one_node(node_count: int) -> None:
    spread = [placement.shards_of_node(node, node_count) for node in range(node_count)]
    assert sorted(shard for shards in spread for shard in shards) == list(range(256))
    assert all(placement.node_of(shard, node_count) == node for node, shards in enumerate(spread) for shard in shards)


@pytest.mark.parametrize("name", ["a", "acme-co.uk_1", "-", "A" * 128, "0"])
def test_names_of_workspaces(name: str) -> None:
    assert placement.check_workspace_id(name) is None
    assert placement.check_any_workspace_id(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", ".a", "_x", "a/b", "a b", "ä", "a\n", "A" * 129, "_app/x", "a\x00"])
def test_names_that_no_user_may_have(name: str) -> None:
    reason = placement.check_workspace_id(name)
    assert reason is not None
    assert "128" in reason


def test_system_workspaces_belong_to_an_app() -> None:
    assert placement.check_any_workspace_id("_app/github") is None
    for wrong in ("_app/", "_app/..", "_app/a/b", "_app/" + "a" * 124):
        assert "app" in (placement.check_any_workspace_id(wrong) or "")
