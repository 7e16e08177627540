"""An audit names every kind of damage, one planted at a time, and finds nothing where nothing is wrong."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path

import apsw
import pytest

from relayfile.clock import ManualClock
from relayfile.data_directory import DataDirectory
from relayfile.errors import DataCorrupted, StartRefused, WorkspaceNotFound
from relayfile.placement import shard_of
from relayfile.store.integrity.finding import (
    ALL_CHECKS,
    CHEAP_CHECKS,
    AuditEnd,
    AuditOrder,
    Check,
    Finding,
    Place,
    Tally,
)
from relayfile.store.plan.buckets import BUILT
from relayfile.store.sqlite.audit import directories, files, index, log, node, step
from relayfile.store.sqlite.audit.run import TURN_S, SqliteAudit
from relayfile.store.sqlite.periods import slot_of
from relayfile.store.sqlite.stopped import audit_over, node_directories, stopped_audit
from relayfile.v1 import shard_pb2, types_pb2
from tests.support.running_node import SHARDS, Sender, fold, running_node, sub_batch, upsert

W = "acme"
SHARD = shard_of(W, SHARDS)
SLOT = slot_of(ManualClock().now_us())
DELIVERIES, DUPLICATES = f"delivery_{SLOT}", f"duplicate_seen_{SLOT}"
CLOCK = ManualClock()
STRICT = AuditOrder(checks=ALL_CHECKS, is_strict=True)


def member(number: int, path: str, **fields: object) -> shard_pb2.FoldMember:
    made = upsert(number, b"content %d" % number)
    made.path = path
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def failed(number: int) -> shard_pb2.FoldMember:
    made = upsert(number)
    made.kind = shard_pb2.MEMBER_KIND_FAILED
    made.failure.CopyFrom(types_pb2.Failure(reason="MALFORMED_JSON", message="It ends too early."))
    made.raw.body = b"{"
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with every outcome that a shard decides, several levels, rules, and a move."""
    directory = tmp_path_factory.mktemp("sound")

    async def fill() -> None:
        async with running_node(directory, clock=ManualClock()) as running, Sender(running.address) as sender:
            deep = [member(number, f"/a/{number % 3}/b-{number % 2}/{number}.json") for number in range(1, 40)]
            ruled = member(50, "/a/1/ruled.json")
            ruled.semantics.permissions.extend(["deny:agent:eve", "a tag"])
            ruled.semantics.relations.extend(["blocks:2", "blocks:3"])
            ruled.semantics.comments.append("A comment.")
            ruled.semantics.properties["text"] = "ü" * 200
            moved = member(1, "/moved/1.json", delivery_id="moved", envelope_id="envelope-moved")
            again = member(2, deep[1].path, delivery_id="again", envelope_id="envelope-again")
            gone = upsert(3)
            gone.kind, gone.delivery_id, gone.envelope_id = shard_pb2.MEMBER_KIND_DELETE, "gone", "envelope-gone"
            repeated = member(4, deep[3].path, envelope_id="envelope-repeated")
            batches = [
                sub_batch(W, 1, [fold(each) for each in (*deep, ruled, failed(60), failed(61))], epoch=1),
                sub_batch(W, 2, [fold(each) for each in (moved, again, gone, repeated)], epoch=1),
                sub_batch("other", 1, [fold(upsert(1))], epoch=1),
            ]
            for batch in batches:
                await sender.send(batch)
                await sender.answered(batch)

    asyncio.run(fill())
    return directory


@pytest.fixture
def damaged(sound: Path, tmp_path: Path) -> Path:
    """A copy to plant something in."""
    return Path(shutil.copytree(sound, tmp_path / "store"))


def plant(directory: Path, statement: str) -> None:
    """Change rows behind the store's back; what triggers would keep in step stays as it is."""
    connection = apsw.Connection(str(directory / "store.db"))
    for (trigger,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall():
        connection.execute(f"DROP TRIGGER {trigger}")
    connection.execute(statement)
    assert connection.changes(), statement
    connection.close()


async def audited(directory: Path, order: AuditOrder = STRICT) -> tuple[list[Finding], AuditEnd]:
    found: list[Finding] = []
    with stopped_audit(directory, ManualClock(), order.workspace_id) as auditor:
        assert auditor is not None
        async for item in auditor.run(order):
            match item:
                case Finding():
                    found.append(item)
                case AuditEnd():
                    return found, item
    raise AssertionError("an audit has an end")


async def test_nothing_is_found_where_nothing_is_wrong(sound: Path) -> None:
    found, end = await audited(sound)
    assert (found, end.is_clean, end.is_truncated) == ([], True, False)
    tally = end.tally
    assert (tally.workspace_count, tally.workspace_total, tally.file_count) == (2, 2, 40)
    assert (tally.event_count, tally.change_count) == (44, 47)
    assert tally.content_count == 40


DAMAGE = {
    "digest": ("UPDATE directory SET digest = zeroblob(32) WHERE path = '/a/1'", {"DIGEST_MISMATCH"}),
    "file count": (
        "UPDATE directory SET file_count = file_count + 1 WHERE path = '/moved' AND workspace_id = 'acme'",
        {"FILE_COUNT_MISMATCH"},
    ),
    "bytes": ("UPDATE directory SET total_bytes = total_bytes + 1 WHERE path = '/a'", {"TOTAL_BYTES_MISMATCH"}),
    "rules": ("UPDATE directory SET rule_count = 0 WHERE path = '/a/1'", {"RULE_COUNT_MISMATCH"}),
    "entries": (
        "UPDATE directory SET entry_count = entry_count - 1 WHERE path = '/' AND workspace_id = 'acme'",
        {"ENTRY_COUNT_MISMATCH"},
    ),
    "directory lost": ("DELETE FROM directory WHERE path = '/a/2'", {"DIRECTORY_MISSING"}),
    "root lost": ("DELETE FROM directory WHERE path = '/' AND workspace_id = 'acme'", {"DIRECTORY_MISSING"}),
    "directory left over": (
        f"INSERT INTO directory VALUES ({SHARD}, 'acme', '/a/ghost', 0, 0, 0, zeroblob(32), 0, 1, NULL)",
        {"DIRECTORY_EMPTY"},
    ),
    "bucket": (f"UPDATE directory SET buckets_to = {BUILT!r} WHERE path = '/a'", {"BUCKET_MISMATCH"}),
    "semantics": ("UPDATE file SET semantics = '{' WHERE path = '/a/1/ruled.json'", {"SEMANTICS_UNREADABLE"}),
    "file lost": ("DELETE FROM file WHERE path = '/moved/1.json'", {"DIGEST_MISMATCH", "OBJECT_PATH_MISMATCH"}),
    "hash of a file": (
        "UPDATE file SET content_sha256 = zeroblob(32) WHERE path = '/moved/1.json'",
        {"DIGEST_MISMATCH", "HASH_MISMATCH", "EVENT_MISMATCH"},
    ),
    "content changed": (
        "UPDATE content SET data = CAST('CONTENT 1' AS BLOB) WHERE data = CAST('content 1' AS BLOB)",
        {"HASH_MISMATCH"},
    ),
    "content of another size": (
        "UPDATE content SET data = CAST(data || 'x' AS BLOB)",
        {"CONTENT_SIZE_MISMATCH", "HASH_MISMATCH"},
    ),
    "content lost": (
        "DELETE FROM content WHERE content_id = (SELECT content_id FROM file WHERE path = '/moved/1.json')",
        {"CONTENT_MISSING"},
    ),
    "content orphaned": (f"INSERT INTO content VALUES (0, {SHARD}, 'x')", {"CONTENT_ORPHANED"}),
    "content released": (
        f"INSERT INTO content_garbage SELECT {SHARD}, 1800000000000000, max(content_id) FROM file",
        {"CONTENT_RELEASED"},
    ),
    "garbage overdue": ("UPDATE content_garbage SET released_us = 5", {"GARBAGE_OVERDUE"}),
    "body of a dead letter lost": (
        "DELETE FROM content WHERE content_id = (SELECT max(content_id) FROM dead_letter)",
        {"CONTENT_MISSING"},
    ),
    "event lost": ("DELETE FROM event WHERE revision = 20", {"REVISION_GAP", "EVENT_MISMATCH"}),
    "newest event lost": ("DELETE FROM event WHERE revision = 43", {"REVISION_MISMATCH"}),
    "revision": ("UPDATE workspace SET revision = revision - 1 WHERE workspace_id = 'acme'", {"REVISION_MISMATCH"}),
    "revision of a file": (
        "UPDATE file SET revision = 999 WHERE path = '/moved/1.json'",
        {"REVISION_AHEAD"},
    ),
    "a file that missed its event": (
        "UPDATE file SET revision = 2 WHERE path = '/moved/1.json'",
        {"FILE_BEHIND_EVENT", "EVENT_MISMATCH"},
    ),
    "object of a file": (
        "UPDATE file SET object_key = 'o:issue/999' WHERE path = '/moved/1.json'",
        {"OBJECT_BINDING_MISMATCH", "OBJECT_PATH_MISMATCH"},
    ),
    "path of an object": (
        "UPDATE object SET path = '/elsewhere' WHERE path = '/moved/1.json'",
        {"OBJECT_BINDING_MISMATCH", "OBJECT_PATH_MISMATCH"},
    ),
    "object lost": ("DELETE FROM object WHERE path = '/moved/1.json'", {"OBJECT_BINDING_MISMATCH"}),
    "deleted object": ("UPDATE object SET deleted = 1 WHERE path = '/moved/1.json'", {"OBJECT_PATH_MISMATCH"}),
    "outcome": (
        "UPDATE outcome_count SET count = count + 1 WHERE workspace_id = 'acme' AND outcome = 1",
        {"OUTCOME_MISMATCH", "SHARD_TOTAL_MISMATCH"},
    ),
    "delivery lost": (f"DELETE FROM {DELIVERIES} WHERE delivery_id = 'delivery-7'", {"OUTCOME_MISMATCH"}),
    "outcome of a delivery": (f"UPDATE {DELIVERIES} SET outcome = 5 WHERE delivery_id = 'gone'", {"OUTCOME_MISMATCH"}),
    "duplicate lost": (f"DELETE FROM {DUPLICATES}", {"OUTCOME_MISMATCH"}),
    "sum of a shard": ("UPDATE outcome_total SET count = count + 1", {"SHARD_TOTAL_MISMATCH"}),
    "sum of failures": ("UPDATE failure_total SET count = 0", {"SHARD_TOTAL_MISMATCH"}),
    "failures": ("UPDATE failure_count SET count = 0", {"FAILURE_COUNT_MISMATCH", "SHARD_TOTAL_MISMATCH"}),
    "dead letter lost": (
        "DELETE FROM dead_letter WHERE delivery_id = 'delivery-60'",
        {"DEAD_LETTER_TOTAL_MISMATCH", "FAILURE_COUNT_MISMATCH", "CONTENT_ORPHANED"},
    ),
    "bytes of dead letters": ("UPDATE dead_letter_total SET body_bytes = 0", {"DEAD_LETTER_TOTAL_MISMATCH"}),
    "shard": (
        "UPDATE workspace SET shard_id = 3 WHERE workspace_id = 'other'",
        {"SHARD_MISMATCH", "WORKSPACE_MISSING"},
    ),
    "term lost": ("DELETE FROM file_term WHERE kind = 2 AND value = 'a tag'", {"TERM_MISSING"}),
    "term cut": (
        "UPDATE file_term SET value = substr(value, 1, 127) WHERE kind = 4",
        {"TERM_MISSING", "TERM_LEFT_OVER"},
    ),
    "kind of a term": ("UPDATE file_term SET kind = 9 WHERE kind = 1", {"TERM_MISSING", "TERM_LEFT_OVER"}),
    "term of another file": (
        "UPDATE file_term SET path = '/moved/1.json' WHERE kind = 3",
        {"TERM_MISSING", "TERM_LEFT_OVER"},
    ),
    "term of no file": ("UPDATE file_term SET path = '/nowhere' WHERE kind = 3", {"TERM_MISSING", "TERM_LEFT_OVER"}),
    "semantics lost": ("UPDATE file SET semantics = NULL WHERE path = '/a/1/ruled.json'", {"TERM_LEFT_OVER"}),
    "directory of a provider lost": (
        "DELETE FROM provider_directory WHERE path = '/moved/'",
        {"PROVIDER_DIRECTORY_MISSING"},
    ),
    "directory of a provider left over": (
        f"INSERT INTO provider_directory VALUES ({SHARD}, 'acme', 'notion', '/a/ghost/', 1)",
        {"PROVIDER_DIRECTORY_EMPTY"},
    ),
    "directory of another provider": (
        "UPDATE provider_directory SET provider = 'notion' WHERE path = '/moved/'",
        {"PROVIDER_DIRECTORY_MISSING", "PROVIDER_DIRECTORY_EMPTY"},
    ),
    "files of a provider": (
        "UPDATE provider_directory SET file_count = file_count + 1 WHERE path = '/a/1/'",
        {"PROVIDER_COUNT_MISMATCH"},
    ),
    "count of none of a provider's files": (
        f"INSERT INTO provider_directory VALUES ({SHARD}, 'acme', 'github', '/', 0)",
        {"PROVIDER_DIRECTORY_EMPTY"},
    ),
    "terms of no workspace": (f"INSERT INTO file_term VALUES ({SHARD}, 'no', 1, 'x', '/x')", {"WORKSPACE_MISSING"}),
    "provider of a file": (
        "UPDATE file SET provider = 'notion' WHERE path = '/a/1/ruled.json'",
        {"PROVIDER_DIRECTORY_MISSING", "PROVIDER_DIRECTORY_EMPTY"},
    ),
    "workspace lost": ("DELETE FROM workspace WHERE workspace_id = 'other'", {"WORKSPACE_MISSING"}),
}


@pytest.mark.parametrize(("statement", "reasons"), DAMAGE.values(), ids=DAMAGE)
async def test_damage_is_named(damaged: Path, statement: str, reasons: set[str]) -> None:
    plant(damaged, statement)
    found, end = await audited(damaged)
    assert reasons <= {finding.reason for finding in found}
    assert not end.is_clean
    assert end.finding_count == len(found)


async def test_buckets_count_when_they_are_built(damaged: Path) -> None:
    plant(damaged, f"INSERT INTO directory_bucket VALUES ({SHARD}, 'acme', '/a', 7, 1, 1, zeroblob(32))")
    assert (await audited(damaged))[1].is_clean


async def test_what_heals_by_itself_counts_only_in_a_strict_audit(damaged: Path) -> None:
    plant(damaged, "UPDATE content_garbage SET released_us = 5")
    found, end = await audited(damaged, AuditOrder())
    assert (found, end.is_clean) == ([], True)


async def test_contents_are_hashed_only_when_asked(damaged: Path) -> None:
    plant(damaged, "UPDATE content SET data = CAST('CONTENT 1' AS BLOB) WHERE data = CAST('content 1' AS BLOB)")
    found, _ = await audited(damaged, AuditOrder(checks=CHEAP_CHECKS))
    assert not found
    [finding], _ = await audited(damaged, AuditOrder(W, checks=[Check.CONTENT]))
    assert (finding.subject, finding.workspace_id, finding.shard_id) == ("/moved/1.json", W, SHARD)


async def test_it_ends_at_the_findings_that_were_asked_for(damaged: Path) -> None:
    plant(damaged, "UPDATE directory SET digest = zeroblob(32)")
    found, end = await audited(damaged, AuditOrder(findings_max=3))
    assert (len(found), end.finding_count, end.is_truncated) == (3, 3, True)


async def test_only_the_workspace_that_was_asked_for(damaged: Path) -> None:
    plant(damaged, "UPDATE directory SET digest = zeroblob(32) WHERE workspace_id = 'other'")
    assert (await audited(damaged, AuditOrder(W)))[1].is_clean
    assert not (await audited(damaged, AuditOrder("other")))[1].is_clean
    with pytest.raises(WorkspaceNotFound):
        await audited(damaged, AuditOrder("nobody"))


async def test_many_short_steps_find_what_one_does(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (directories, index, log, node):
        monkeypatch.setattr(module, "ROWS_PER_STEP", 3)
    monkeypatch.setattr(files, "FILES_PER_STEP", 2)
    found, end = await audited(damaged)
    assert (found, end.tally.file_count, end.tally.event_count) == ([], 40, 44)
    plant(damaged, "UPDATE directory SET digest = zeroblob(32) WHERE path = '/a/1/b-1'")
    found, _ = await audited(damaged)
    assert {finding.subject for finding in found} == {"/a/1", "/a/1/b-1"}


def test_a_directory_that_is_in_use_or_is_none_is_refused(sound: Path, tmp_path: Path) -> None:
    with DataDirectory(sound), pytest.raises(StartRefused, match="another process"), stopped_audit(sound, CLOCK):
        pass
    with pytest.raises(StartRefused, match=r"store\.db"):
        node_directories(tmp_path)


def test_a_file_of_another_schema_is_refused(damaged: Path) -> None:
    plant(damaged, "UPDATE schema_migrations SET version = '9999' WHERE version = '0001'")
    with pytest.raises(StartRefused, match="9999"), stopped_audit(damaged, CLOCK):
        pass


async def test_a_file_that_cannot_be_read_is_damage(damaged: Path) -> None:
    path = damaged / "store.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:8_192] + b"\xa5" * (len(whole) - 8_192))
    with pytest.raises(DataCorrupted):
        await audited(damaged)


async def test_a_live_system_is_clean_while_everything_moves(tmp_path: Path) -> None:
    """Files are made, edited, moved and deleted while audit after audit runs over them."""
    async with running_node(tmp_path) as running, Sender(running.address) as sender, asyncio.timeout(60):
        ending = asyncio.Event()
        rounds = 0

        async def write() -> None:
            nonlocal rounds
            while not ending.is_set():
                rounds += 1
                folds = []
                for number in range(1, 60):
                    change = member(number, f"/{(number + rounds) % 5}/{number}.json")
                    change.content = b"%d" % rounds
                    change.semantics.relations.extend([f"round:{rounds}", f"of:{number % 7}"])
                    change.delivery_id = f"{rounds}/{number}"
                    change.envelope_id = f"envelope-{rounds:06d}-{number:06d}"
                    if not (rounds + number) % 4:
                        change.kind = shard_pb2.MEMBER_KIND_DELETE
                    folds.append(fold(change))
                await sender.send(batch := sub_batch(W, rounds, folds, epoch=1))
                await sender.answered(batch)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            auditor = SqliteAudit(running.engine.snapshot, running.node.clock, SHARDS)
            ends = 0
            while ends < 20 or rounds < 5:
                async for item in auditor.run(STRICT):
                    assert not isinstance(item, Finding), item
                    ends += isinstance(item, AuditEnd)
            ending.set()


async def test_many_short_steps_give_way_like_a_long_one(sound: Path) -> None:
    """No step of this audit takes a turn's time; together they take several."""

    class Slowly(ManualClock):
        def monotonic(self) -> float:
            self.advance(TURN_S / 1_000)
            return super().monotonic()

    connection = apsw.Connection(str(sound / "store.db"))
    try:
        auditor = audit_over(connection, sound, Slowly(), gives_way=True)
        turns = 0
        async with asyncio.TaskGroup() as tasks:

            async def work() -> None:
                nonlocal turns
                while True:
                    await asyncio.sleep(0)
                    turns += 1

            others = tasks.create_task(work())
            for _ in range(20):
                async for item in auditor.run(STRICT):
                    assert not isinstance(item, Finding), item
            others.cancel()
        assert turns
    finally:
        connection.close()


async def test_a_finding_that_the_second_look_does_not_confirm_is_none(sound: Path) -> None:
    with stopped_audit(sound, CLOCK) as auditor:
        assert auditor is not None
        looks = 0

        def wavering(cursor: apsw.Cursor, tally: Tally) -> step.Look:
            nonlocal looks
            looks += 1
            if looks == 1:
                yield Finding(Check.DIGESTS, SHARD, W, "/", "DIGEST_MISMATCH", "")
            return None

        assert await auditor._look_twice(wavering, Tally(), 10) == ([], None)
        assert looks == 2


async def test_contents_are_looked_at_from_any_place_on(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the workspace of the place is no more."""
    monkeypatch.setattr(files, "FILES_PER_STEP", 2)
    places: list[tuple[Place, int]] = []

    async def counted(order: AuditOrder) -> int:
        with stopped_audit(sound, CLOCK) as auditor:
            assert auditor is not None
            async for item in auditor.run(order):
                if isinstance(item, AuditEnd):
                    return item.tally.content_count
                if isinstance(item, Tally) and order.after is None and item.place is not None:
                    places.append((item.place, item.content_count))
        raise AssertionError("an audit has an end")

    order = AuditOrder(checks=(Check.CONTENT,))
    total = await counted(order)
    assert len({place for place, _ in places}) > 2
    for place, count in places:
        assert count + await counted(replace(order, after=place)) == total, place
    [other] = {place.workspace_id for place, _ in places} - {W}
    assert await counted(replace(order, after=Place(-1, "gone", "/x"))) == total, other
