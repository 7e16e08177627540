"""An audit names every kind of damage among operations, one planted at a time, and finds nothing in sound ones."""

import asyncio
import shutil
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.store.integrity.finding import ALL_CHECKS, AuditEnd, AuditOrder, Finding
from relayfile.store.sqlite.audit import operations
from relayfile.store.sqlite.stopped import stopped_audit
from tests.support.writeback import staged

STRICT = AuditOrder(checks=ALL_CHECKS, is_strict=True)
PENDING, CLAIMED, SUCCEEDED, DEAD_LETTERED, SUPERSEDED = "state = 1", "state = 2", "state = 3", "state = 4", "state = 5"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with operations in every state but quarantine, some of them of one object."""
    directory = tmp_path_factory.mktemp("sound")

    async def fill() -> None:
        async with staged(directory) as stage:
            for number in range(1, 6):
                path = f"/linear/issues/{number}.json"
                await stage.deliver(b"from the provider", object_id=f"issue/{number}", path=path)
            await stage.write("/linear/issues/1.json", b"done")
            await stage.succeed(await stage.one())
            await stage.write("/linear/issues/2.json", b"refused")
            await stage.fail(await stage.one(), retryable=False)
            await stage.write("/linear/issues/3.json", b"claimed")
            await stage.one()
            await stage.write("/linear/issues/3.json", b"waits for it")
            await stage.write("/linear/issues/4.json", b"folded")
            await stage.write("/linear/issues/4.json", b"in this one")
            await stage.write("/linear/draft.json", b"of no object")
            await stage.deliver(b"news", object_id="issue/4", path="/linear/issues/4.json")
            await stage.delete("/linear/issues/5.json")

    asyncio.run(fill())
    return directory


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """A copy to plant something in."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def data_of(directory: Path) -> Path:
    """The node's part of what was filled."""
    [file] = directory.rglob("store.db")
    return file.parent


def plant(directory: Path, statement: str) -> None:
    """Change rows behind the store's back; what triggers would keep in step stays as it is."""
    connection = apsw.Connection(str(data_of(directory) / "store.db"))
    for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(statement)
    assert connection.changes(), statement
    connection.close()


async def audited(directory: Path) -> list[Finding]:
    found: list[Finding] = []
    with stopped_audit(data_of(directory), ManualClock(), "") as auditor:
        assert auditor is not None
        async for item in auditor.run(STRICT):
            if isinstance(item, Finding):
                found.append(item)
            elif isinstance(item, AuditEnd):
                assert item.is_clean is not bool(found)
    return found


async def test_nothing_is_found_where_nothing_is_wrong(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await audited(sound) == []
    monkeypatch.setattr(operations, "ROWS_PER_STEP", 2)
    assert await audited(sound) == []


_WAITING = "is_blocked = 1"
DAMAGE = {
    "not blocked": (f"UPDATE operation SET is_blocked = 0 WHERE {_WAITING}", {"OPERATION_BLOCKED_MISMATCH"}),
    "blocked": ("UPDATE operation SET is_blocked = 1 WHERE kind = 2", {"OPERATION_BLOCKED_MISMATCH"}),
    "claimed at once": (
        f"UPDATE operation SET state = 2, claim_expire_us = 5, is_blocked = 0 WHERE {_WAITING}",
        {"OPERATIONS_CLAIMED_AT_ONCE"},
    ),
    "first of a line lost": (f"DELETE FROM operation WHERE {CLAIMED}", {"OPERATION_BLOCKED_MISMATCH"}),
    "a claim without an end": (
        f"UPDATE operation SET claim_expire_us = NULL WHERE {CLAIMED}",
        {"OPERATION_CLAIM_MISMATCH"},
    ),
    "a claim of nobody": (
        "UPDATE operation SET claim_expire_us = 5 WHERE kind = 2",
        {"OPERATION_CLAIM_MISMATCH"},
    ),
    "ended and pending": ("UPDATE operation SET ended_us = 5 WHERE kind = 2", {"OPERATION_END_MISMATCH"}),
    "succeeded without an end": (
        f"UPDATE operation SET ended_us = {(1 << 63) - 1} WHERE {SUCCEEDED}",
        {"OPERATION_END_MISMATCH"},
    ),
    "content of a pending one lost": (
        f"DELETE FROM content WHERE content_id = (SELECT content_id FROM operation WHERE {_WAITING})",
        {"CONTENT_MISSING"},
    ),
    "content of a dead letter lost": (
        f"DELETE FROM content WHERE content_id = (SELECT content_id FROM operation WHERE {DEAD_LETTERED})",
        {"CONTENT_MISSING"},
    ),
    "content of a held change lost": (
        "DELETE FROM content WHERE content_id = (SELECT content_id FROM held_change)",
        {"CONTENT_MISSING"},
    ),
    "content of another size": (
        f"UPDATE operation SET size_bytes = size_bytes + 1 WHERE {DEAD_LETTERED}",
        {"CONTENT_SIZE_MISMATCH"},
    ),
    "nothing to bring": (
        f"UPDATE operation SET content_id = 0 WHERE {CLAIMED}",
        {"OPERATION_CONTENT_MISSING", "HOLD_COUNT_MISMATCH"},
    ),
    "content of one that has ended": (
        f"UPDATE operation SET content_id = (SELECT max(content_id) FROM file) WHERE {SUPERSEDED}",
        {"OPERATION_CONTENT_KEPT", "HOLD_COUNT_MISMATCH"},
    ),
    "hold lost": (
        f"DELETE FROM content_hold WHERE content_id = (SELECT content_id FROM operation WHERE {_WAITING})",
        {"HOLD_COUNT_MISMATCH"},
    ),
    "hold left over": (
        "INSERT INTO content_hold SELECT shard_id, 4711, 1, NULL FROM workspace LIMIT 1",
        {"HOLD_COUNT_MISMATCH"},
    ),
    "held too often": ("UPDATE content_hold SET hold_count = hold_count + 1", {"HOLD_COUNT_MISMATCH"}),
    "released with a file": (
        "UPDATE content_hold SET released_us = 5 WHERE content_id = (SELECT max(content_id) FROM file)",
        {"CONTENT_RELEASED"},
    ),
    "workspace of operations lost": (
        "UPDATE operation SET workspace_id = 'nobody'",
        {"WORKSPACE_MISSING"},
    ),
    "workspace of what is held lost": ("UPDATE held_change SET workspace_id = 'nobody'", {"WORKSPACE_MISSING"}),
}


@pytest.mark.parametrize(("statement", "reasons"), DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_named(damaged: Path, statement: str, reasons: set[str]) -> None:
    plant(damaged, statement)
    assert reasons <= {finding.reason for finding in await audited(damaged)}
