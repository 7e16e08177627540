"""The engine over one SQLite file: inline reads, one writer, commits that are durable.

Why not a writer thread that runs the statements: apsw lets go of the interpreter lock at every step, and a thread that
takes it back from a busy loop waits up to 5 ms each time (measured: 1,600 rows/s instead of 35,000). So rows are
inserted on the loop, a few milliseconds at a time, and only what waits for the disk runs in threads: COMMIT in the one
writer thread, checkpoints in their own (`checkpoints`). While it does, the loop loads and plans.

Concurrency: `_turn` is held from BEGIN to the end of COMMIT; nothing else touches the writer connection, but for loads
that are over before the loop goes on, while nobody holds it. Readers have their own connections and snapshots and wait
for nobody.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import apsw

from relayfile import faults
from relayfile.clock import Clock
from relayfile.data_directory import DataDirectory
from relayfile.errors import DataCorrupted, StorageFailed, Unavailable
from relayfile.store.engine import (
    NOTHING_HELD,
    AdminActionFilter,
    Fence,
    ListedWorkspace,
    PlannedEntry,
    ProviderOutcomes,
    ShardRow,
    Sweep,
    WorkspaceFilter,
    WorkspaceKey,
)
from relayfile.store.plan.entry import Entry
from relayfile.store.plan.needs import first_needs, more_needs
from relayfile.store.plan.rows import AdminActionRow
from relayfile.store.plan.slice import Needs, Slice
from relayfile.store.sqlite.buckets import add_digest_sum, bucket_builds
from relayfile.store.sqlite.checkpoints import PAGE_BYTES, Checkpoints
from relayfile.store.sqlite.connection import open_reader, open_writer
from relayfile.store.sqlite.expiry import (
    GARBAGE_PER_COMMIT,
    START,
    EventRetention,
    empty_slot,
    expired_slot,
    remove_actions,
    remove_contents,
    remove_events,
    remove_garbage,
)
from relayfile.store.sqlite.letters import remove_acknowledged, replaying_workspaces
from relayfile.store.sqlite.load import load_slice
from relayfile.store.sqlite.operations import remove_ended, workspaces_at_work
from relayfile.store.sqlite.orders import NODE_PAUSES, find_node_actions
from relayfile.store.sqlite.periods import slot_of
from relayfile.store.sqlite.removal import remove_deleted
from relayfile.store.sqlite.schema import NodeIdentity, check_identity, migrate, page_key
from relayfile.store.sqlite.shrinking import shrink
from relayfile.store.sqlite.state import WriterState, errors_as_ours, read_errors_as_ours, start_errors_as_ours
from relayfile.store.sqlite.view import (
    LAST_ID,
    NODE_FAILURES,
    NODE_OUTCOMES,
    NODE_PROVIDERS_SEEN,
    SqliteView,
    provider_outcomes,
)
from relayfile.store.sqlite.workspaces import list_workspaces
from relayfile.store.sqlite.write import statements
from relayfile.threads import started_threads

Result = TypeVar("Result")
DATABASE_NAME: Final = "store.db"
LOOP_SLICE_S = 0.003
"""Longest piece of work that a commit does on the loop before others get a turn."""
ROWS_PER_STEP = 200
READERS_KEPT_MAX = 8
CHUNK_CACHE_BYTES = 8 << 20

_ACQUIRE = (
    "INSERT INTO shard (shard_id, epoch, owner, address, state) VALUES (?, 1, ?, ?, 3) ON CONFLICT (shard_id)"
    " DO UPDATE SET epoch = epoch + 1, owner = excluded.owner, address = excluded.address, state = excluded.state"
    " RETURNING shard_id, epoch, owner, address"
)
_FENCES = "SELECT shard_id, epoch FROM shard WHERE shard_id IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteLimits:
    """How much the engine may use."""

    cache_bytes: int = 64 << 20
    """Page cache of the writer."""
    wal_bytes_max: int = 64 << 20
    """The write-ahead log stays below this; see `Checkpoints`."""
    delivery_retention_us: int = 7 * 86_400 * 1_000_000
    """Of request ids too."""
    letter_retention_us: int = 7 * 86_400 * 1_000_000
    """Age at which an acknowledged dead letter goes; others stay."""
    event_retention_us: int = 86_400 * 1_000_000
    events_max: int = 1_000_000
    """Of one workspace; the older ones go."""
    admin_action_retention_us: int = 90 * 86_400 * 1_000_000
    tombstone_retention_us: int = 30 * 86_400 * 1_000_000
    operation_retention_us: int = 30 * 86_400 * 1_000_000
    """After their end; dead-lettered ones too."""


def open_engine(
    directory: DataDirectory,
    identity: NodeIdentity,
    clock: Clock,
    limits: SqliteLimits = SqliteLimits(),
    watch_log: Callable[[int], None] = lambda _: None,
) -> "SqliteEngine":
    """Open the file in `directory`, which the caller has acquired; make it where there is none.

    `watch_log` is told the size of the write-ahead log in bytes after every commit, in the writer's thread.

    `SettingError` when it was made for another node or another number of shards, `StartRefused` when a newer release
    wrote it or the disk is full, `DataCorrupted` when an earlier failed fsync left damage.
    """
    path = directory.path / DATABASE_NAME
    failure = directory.failure()
    if failure is not None:
        directory.drop_cached_pages((DATABASE_NAME, DATABASE_NAME + "-wal"))
    with start_errors_as_ours(path):
        writer = open_writer(path, limits.cache_bytes)
        try:
            if failure is not None:
                _verify(writer, path, failure)
                directory.clear_failure()
            migrate(writer, path)
            add_digest_sum(writer)
            cluster_id = check_identity(writer, path, identity)
            directory.sync()
            return SqliteEngine(path, writer, limits, directory, clock, cluster_id, watch_log)
        except BaseException:
            writer.close()
            raise


def _verify(connection: apsw.Connection, path: Path, failure: str) -> None:
    """What an fsync that failed left behind must be whole before anything builds on it."""
    try:
        answers = [str(row[0]) for row in connection.execute("PRAGMA quick_check(10)")]
    except apsw.Error as error:
        answers = [str(error)]
    if answers != ["ok"]:
        raise DataCorrupted(what=f"{path}, after an earlier failure ({failure}): {'; '.join(answers)}")


class SqliteEngine:
    """One node's file. Made by `open_engine`; used from one event loop."""

    def __init__(
        self,
        path: Path,
        writer: apsw.Connection,
        limits: SqliteLimits,
        directory: DataDirectory,
        clock: Clock,
        cluster_id: str,
        watch_log: Callable[[int], None],
    ) -> None:
        self.cluster_id = cluster_id
        self.page_key = page_key(writer)
        """See `relayfile.page_token.SealedTokens`."""
        self._watch_log = watch_log
        self._path = path
        self._writer = writer
        self._limits = limits
        self._directory = directory
        self._clock = clock
        self._loader = self._open_reader()
        self._readers: list[apsw.Connection] = []
        self._thread = started_threads(1, "store-writer")
        self._turn = asyncio.Lock()
        self._state = WriterState.read(writer)
        self._checkpoints = Checkpoints(path, limits.wal_bytes_max)
        writer.set_wal_hook(self._note_wal_size)

    async def load(self, key: WorkspaceKey, entry: Entry) -> Slice:
        return await self.load_rounds(key, first_needs(entry), partial(more_needs, entry))

    async def load_rounds(self, key: WorkspaceKey, first: Needs, more: Callable[[Slice], Needs]) -> Slice:
        # The writer's pages stay in memory over its own commits; another connection's are dropped by each of them.
        cursor = (self._loader if self._is_writing else self._writer).cursor()
        with errors_as_ours(self._fail):
            cursor.execute("BEGIN")
            try:
                return load_slice(cursor, key, first, more, self._state.slots_newest_first(self._clock.now_us()))
            finally:
                cursor.execute("ROLLBACK")

    @property
    def _is_writing(self) -> bool:
        """Whether the writer connection is in use, here or in its thread, or is to be left alone."""
        return self._turn.locked() or bool(self._state.failure)

    async def commit(self, fences: Sequence[Fence], entries: Sequence[PlannedEntry]) -> frozenset[int]:
        async with self._transaction():
            fenced = self._fenced(fences)
            live = [entry for entry in entries if entry.key.shard_id not in fenced] if fenced else entries
            await self._write(live)
            if any(entry.plan.contents_released for entry in live):
                # While edits go on, as much room is freed as they take: a sweep comes only once in a while.
                shards = {entry.key.shard_id for entry in live}
                await self._remove_garbage(shards, self._clock.now_us(), GARBAGE_PER_COMMIT)
            faults.point("store.commit.before_commit")
        return fenced

    @asynccontextmanager
    async def view(self, key: WorkspaceKey) -> AsyncIterator[SqliteView]:
        with read_errors_as_ours(self._fail):
            connection = self._readers.pop() if self._readers else self._open_reader()
            cursor = connection.cursor()
            try:
                cursor.execute("BEGIN")
                yield SqliteView(cursor, key)
            finally:
                self._give_back(connection, cursor)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[apsw.Cursor]:
        """Everything in the file as of now, for checks and copies."""
        async with self.view(WorkspaceKey(0, "")) as view:
            yield view.cursor

    async def content_chunk(self, key: WorkspaceKey, content_id: int, offset: int, length: int) -> bytes | None:
        with read_errors_as_ours(self._fail):
            try:
                # Not substr(), which reads the whole content for each piece.
                blob = self._loader.blob_open("main", "content", "data", content_id, False)
            except apsw.SQLError as error:
                if "no such rowid" in str(error):
                    return None
                raise
            try:
                blob.seek(min(offset, blob.length()))
                return blob.read(length)
            finally:
                blob.close()

    async def node_outcomes(self) -> list[ProviderOutcomes]:
        execute = self._loader.execute
        with read_errors_as_ours(self._fail):
            return provider_outcomes(execute(NODE_OUTCOMES), execute(NODE_PROVIDERS_SEEN), execute(NODE_FAILURES))

    async def pauses(self) -> list[tuple[str, str]]:
        with read_errors_as_ours(self._fail):
            return list(self._loader.execute(NODE_PAUSES))

    async def admin_actions(
        self, chosen: AdminActionFilter, before_id: str, limit: int
    ) -> list[tuple[str, AdminActionRow]]:
        with read_errors_as_ours(self._fail):
            return find_node_actions(self._loader, chosen, before_id or LAST_ID, limit)

    async def replaying_workspaces(self) -> list[WorkspaceKey]:
        with read_errors_as_ours(self._fail):
            return replaying_workspaces(self._loader, self._state.shard_ids)

    async def workspaces_at_work(self) -> list[WorkspaceKey]:
        with read_errors_as_ours(self._fail):
            return workspaces_at_work(self._loader, self._state.shard_ids)

    async def workspaces(self, chosen: WorkspaceFilter, after: str, limit: int) -> list[ListedWorkspace]:
        with read_errors_as_ours(self._fail):
            reader = self._readers.pop() if self._readers else self._open_reader()
            try:
                reader.execute("BEGIN")
                return list_workspaces(reader, self._state.shard_ids, chosen, after, limit)
            finally:
                self._give_back(reader, reader.cursor())

    async def bucket_builds(self, limit: int) -> list[tuple[WorkspaceKey, str]]:
        with read_errors_as_ours(self._fail):
            return bucket_builds(self._loader, limit)

    async def acquire_shards(self, shard_ids: Sequence[int], owner: int, address: str) -> list[ShardRow]:
        acquired: list[ShardRow] = []
        with start_errors_as_ours(self._path):
            async with self._transaction():
                for shard_id in sorted(shard_ids):
                    acquired += [ShardRow(*row) for row in self._writer.execute(_ACQUIRE, (shard_id, owner, address))]
        self._state.shard_ids = tuple(row.shard_id for row in acquired)
        return acquired

    async def remove_expired(self, now_us: int, limit: int, held: Mapping[WorkspaceKey, int] = NOTHING_HELD) -> Sweep:
        async with self._transaction():
            removed = await self._remove_garbage(self._state.shard_ids, now_us, limit)
            slot = expired_slot(now_us, self._limits.delivery_retention_us)
            if removed < limit and slot is not None and slot in self._state.filled_slots:
                emptied = empty_slot(self._writer, slot, limit - removed)
                if not emptied:
                    self._state.filled_slots.discard(slot)
                removed += emptied
            if removed < limit:
                oldest_us = now_us - self._limits.admin_action_retention_us
                removed += remove_actions(self._writer, self._state.shard_ids, oldest_us, limit - removed)
            if removed < limit:
                shards, created_before_us = self._state.shard_ids, now_us - self._limits.letter_retention_us
                removed += remove_acknowledged(self._writer, shards, created_before_us, now_us, limit - removed)
            if removed < limit:
                ended_before_us = now_us - self._limits.tombstone_retention_us
                removed += remove_deleted(self._writer, self._state.shard_ids, now_us, ended_before_us, limit - removed)
            if removed < limit:
                ended_before_us = now_us - self._limits.operation_retention_us
                removed += remove_ended(self._writer, self._state.shard_ids, ended_before_us, limit - removed)
            if removed < limit:
                retention = EventRetention(now_us, self._limits.event_retention_us, self._limits.events_max, held)
                swept_to = self._state.events_swept_to
                gone, self._state.events_swept_to = remove_events(self._writer, swept_to, retention, limit - removed)
                removed += gone
        is_shrinking = removed < limit and await self._shrink()
        return Sweep(removed, removed < limit and self._state.events_swept_to == START and not is_shrinking)

    async def _remove_garbage(self, shards: Iterable[int], now_us: int, limit: int) -> int:
        count, large = remove_garbage(self._writer, shards, now_us, limit)
        if large:
            await self._in_thread(partial(remove_contents, self._writer, large))
        return count

    async def _shrink(self) -> bool:
        """In a transaction of its own: on a full disk it must not undo what was removed."""
        async with self._transaction():
            return await self._in_thread(partial(shrink, self._writer, self._clock.monotonic))

    async def close(self) -> None:
        async with self._turn:
            try:
                await self._settle_checkpoint(last=True)
            except Unavailable:
                pass  # The disk is full: what was committed stays in the log.
            finally:
                self._thread.shutdown()
                self._checkpoints.close()
                for reader in (*self._readers, self._loader):
                    reader.close()
                self._writer.set_wal_hook(None)
                self._writer.close()

    @property
    def commit_count(self) -> int:
        """Transactions committed since the engine was opened, each with one fsync."""
        return self._state.commit_count

    def _open_reader(self) -> apsw.Connection:
        return open_reader(self._path, CHUNK_CACHE_BYTES)

    def _give_back(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        """End the snapshot. Of a reader whose read failed SQLite may have ended it already."""
        try:
            if connection.in_transaction:
                # By the cursor that read: a statement of it that is not finished would hold the snapshot.
                cursor.execute("ROLLBACK")
        except apsw.Error:
            connection.close()
            raise
        if len(self._readers) < READERS_KEPT_MAX:
            self._readers.append(connection)
        else:
            connection.close()

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[None]:
        """BEGIN to durable. What fails before COMMIT is undone and raised; a disk that fails ends the process."""
        async with self._turn:
            await self._settle_checkpoint()
            if self._state.failure:
                raise StorageFailed(what=self._state.failure)
            with errors_as_ours(self._fail):
                self._writer.execute("BEGIN IMMEDIATE")
            try:
                with errors_as_ours(self._fail):
                    yield
                    await self._in_thread(self._commit)
            except BaseException:
                self._roll_back()
                raise
            self._state.commit_count += 1
            self._checkpoints.begin(self._state.wal_bytes)

    async def _write(self, entries: Sequence[PlannedEntry]) -> None:
        """All rows of the entries, a few milliseconds at a time."""
        self._state.filled_slots.update(slot_of(entry.planned_us) for entry in entries)
        started = self._clock.monotonic()
        executemany = self._writer.executemany
        for statement, rows in statements(entries, self._state.content_ids):
            for first in range(0, len(rows), ROWS_PER_STEP):
                executemany(statement, rows[first : first + ROWS_PER_STEP])
                if self._clock.monotonic() - started > LOOP_SLICE_S:
                    await asyncio.sleep(0)
                    started = self._clock.monotonic()

    def _fenced(self, fences: Sequence[Fence]) -> frozenset[int]:
        ids = json.dumps(sorted(fence.shard_id for fence in fences))
        current: dict[int, int] = dict(self._writer.execute(_FENCES, (ids,)))
        return frozenset(fence.shard_id for fence in fences if current.get(fence.shard_id) != fence.epoch)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Run `work` in the writer thread. A cancelled caller still waits: the connection is in use until it ends."""
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        cancelled = False
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError:
                cancelled = True
        result = future.result()
        if cancelled:
            raise asyncio.CancelledError
        return result

    def _commit(self) -> None:
        self._writer.execute("COMMIT")

    def _roll_back(self) -> None:
        if self._writer.in_transaction:
            try:
                self._writer.execute("ROLLBACK")
            except apsw.Error as error:
                self._fail(f"ROLLBACK: {error}")

    def _fail(self, what: str) -> StorageFailed:
        """From here on nothing is acknowledged; the next start verifies the file."""
        if not self._state.failure:
            self._state.failure = what
            # Closing would write the log back, and ask the disk for another fsync.
            self._writer.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._directory.mark_failed(what)
        return StorageFailed(what=what)

    async def _settle_checkpoint(self, *, last: bool = False) -> None:
        with errors_as_ours(self._fail):
            await self._checkpoints.settle(self._state.wal_bytes, last=last)

    def _note_wal_size(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._state.wal_bytes = pages * PAGE_BYTES
        self._watch_log(self._state.wal_bytes)
        return apsw.SQLITE_OK
