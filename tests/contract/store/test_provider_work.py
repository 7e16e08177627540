"""What is open of each provider, as `GetWorkspace` tells it: stale files and operations that have not ended."""

from collections.abc import AsyncIterator
from pathlib import Path

import apsw
import pytest

from relayfile.model import MemberKind, Outcome
from relayfile.store.engine import ProviderWork, WorkspaceKey
from relayfile.store.sqlite import provider_work as counted
from relayfile.store.sqlite.schema import migrate
from relayfile.v1 import workspace_pb2
from tests.support.writeback import Stage, W, staged

T = 1_800_000_000_000_000
ISSUE = "/linear/issues/1.json"


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


async def told(stage: Stage) -> dict[str, tuple[int, int, int]]:
    """Provider to (stale files, unfinished operations, accepted changes)."""
    request = workspace_pb2.GetWorkspaceRequest(workspace_id=W)
    answer = await stage.client.workspaces.GetWorkspace(request, metadata=stage.client.metadata)
    return {
        each.status.provider: (each.stale_file_count, each.unfinished_operation_count, each.status.accepted)
        for each in answer.workspace.providers
    }


async def test_a_stale_file_counts_until_it_was_fetched(stage: Stage) -> None:
    assert await stage.deliver(b'{"n":0}', path=ISSUE, at_us=T) is Outcome.APPLIED
    assert await told(stage) == {"linear": (0, 0, 1)}
    assert await stage.deliver(kind=MemberKind.SIGNAL, at_us=T + 10) is Outcome.APPLIED
    assert await told(stage) == {"linear": (1, 1, 2)}, "the file, and the fetch that the signal made"
    assert await stage.deliver(b'{"n":1}', path=ISSUE, at_us=T + 20) is Outcome.APPLIED
    assert await told(stage) == {"linear": (0, 0, 3)}


async def test_a_provider_is_named_before_its_first_delivery(stage: Stage) -> None:
    assert await told(stage) == {}
    await stage.write("/github/issues/1.json", b"{}")
    assert await told(stage) == {"github": (0, 1, 0)}
    await stage.succeed(await stage.one(providers=["github"]))
    found = await told(stage)
    assert found.get("github", (0, 0, 0))[1] == 0, "it has ended"


def test_counting_ends_at_its_bound_and_reads_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counted, "COUNTED_MAX", 3)
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    migrate(connection, path)
    file = "INSERT INTO file VALUES (1, ?, ?, 1, 0, x'', 0, '', ?, '', 0, 0, NULL, ?)"
    connection.executemany(file, [("w", f"/a/{index}", "a", 7) for index in range(5)])
    connection.executemany(file, [("w", f"/b/{index}", "b", 7 if index else None) for index in range(3)])
    connection.execute(file, ("x", "/a/0", "c", 7))
    assert counted.provider_work(connection, WorkspaceKey(1, "w")) == {"a": ProviderWork(3, 0), "b": ProviderWork(2, 0)}
    plans = [
        str(detail)
        for entries in (counted._STALE, counted._UNFINISHED)
        for *_, detail in connection.execute(
            f"EXPLAIN QUERY PLAN SELECT count(*) FROM {entries} AND provider = ?3", (1, "w", "a")
        )
    ]
    assert all("USING COVERING INDEX" in plan and "provider=?" in plan for plan in plans), plans
    connection.close()
