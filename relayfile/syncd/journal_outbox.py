"""Edits on their way to the store: one entry per path, durable from the moment in which they are seen.

An entry that is not sent yet takes in later edits of its path. One that was sent keeps what it is until its answer is
known: after a crash the same request is repeated. An answer moves the base (``disk_hash``); what the store *has* is
learned from its event only, because the digest stands at the cursor. In between the row's state says that the disk is
ahead. Changes are part of the transaction around them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apsw

from relayfile.syncd.journal_problems import Problems
from relayfile.syncd.journal_rows import INSERT, durable, load, one, stat_columns, storage_errors, transaction
from relayfile.syncd.rows import Answered, DiskStat, Edit, EditKind, Entry, EntryState, FileRow, FileState, Problem

_SELECT: Final = (
    "SELECT outbox.path, coalesce(file.disk_path, substr(outbox.path, 2)), outbox.sequence, outbox.kind, outbox.state, "
    "outbox.if_revision, outbox.known_revision, outbox.content_hash, outbox.device, outbox.inode, outbox.disk_size, "
    "outbox.mtime_ns, outbox.ctime_ns, file.device, file.inode, file.disk_size, file.mtime_ns, file.ctime_ns, "
    "file.disk_hash, outbox.request_id, outbox.from_path, outbox.attempt_count "
    "FROM outbox LEFT JOIN file USING (path) "
)
DELETE_LINGER_US: Final = 1_000_000
"""A delete waits so long for its other half, and for its like: many of them are held."""
NEVER_US: Final = 1 << 62
"""As the time of an attempt: none before the file changes."""
_DELAY_MAX_US: Final = 300_000_000
"""No attempt is put off for longer."""
_DUE: Final = (
    f"(attempt_us <= ?4 OR (attempt_us < {NEVER_US} AND (create_us > ?4 OR attempt_us > ?4 + {_DELAY_MAX_US})))"
)
"""Also what no clock that was not set back would have put off."""
_NOT_SENT: Final = f"({EntryState.QUEUED:d}, {EntryState.REFUSED:d}, {EntryState.HELD:d})"
_UNDER_WAY: Final = f"({EntryState.SENT:d}, {EntryState.ACKNOWLEDGED:d})"
_SETTLE_ROW: Final = "UPDATE file SET state = CASE WHEN remote_hash IS disk_hash THEN 1 ELSE 2 END WHERE path = ?"


@dataclass(frozen=True, slots=True)
class OutboxTotals:
    """What the store has not acknowledged; times in Unix microseconds, 0: none."""

    pending_count: int
    pending_bytes: int
    refused_count: int
    held_count: int
    oldest_us: int
    last_acknowledged_us: int


class Outbox:
    """The outbox in a mirror's journal."""

    def __init__(self, db: apsw.Connection, problems: Problems) -> None:
        self._db = db
        self._problems = problems

    # --- what is in it ----------------------------------------------------------------------------------------------

    def load(self, paths: Iterable[str]) -> dict[str, Entry]:
        """The entries of those paths that have one."""
        found: dict[str, Entry] = {}
        with storage_errors():
            for path in paths:
                for row in self._db.execute(_SELECT + "WHERE outbox.path = ?", (path,)):
                    found[path] = _entry(row)
        return found

    def due(self, now_us: int, cursor_revision: int, limit: int) -> list[Entry]:
        """What may be sent now, in the order in which it was seen. Not what `bring` has to look at first."""
        query = _SELECT + (
            "WHERE outbox.state = ?1 AND file.state = ?2 AND await_revision <= ?3 "
            f"AND {_DUE} ORDER BY sequence LIMIT ?5"
        )
        found: list[Entry] = []
        for state in (EntryState.QUEUED, EntryState.REFUSED):  # each by its index: together they would all be sorted
            bindings = tuple(map(int, (state, FileState.OUTGOING, cursor_revision, now_us, limit)))
            with storage_errors():
                found += [_entry(row) for row in self._db.execute(query, bindings)]
        found.sort(key=lambda entry: entry.sequence)
        return found[:limit]

    def next_attempt_us(self, now_us: int) -> int | None:
        """When the next entry will be due by the clock; None when none will. What waits for events is told of."""
        query = "SELECT min(attempt_us) FROM outbox WHERE state IN (?, ?) AND attempt_us > ?"
        found = one(self._db, query, (int(EntryState.QUEUED), int(EntryState.REFUSED), now_us))[0]
        return None if found is None else int(found)

    def attempts_us(self, paths: Iterable[str]) -> dict[str, int]:
        """When those of these paths that the store refused are sent again; ``NEVER_US``: when the file has changed."""
        query = "SELECT attempt_us FROM outbox WHERE path = ? AND state = ?"
        refused = int(EntryState.REFUSED)
        with storage_errors():
            return {path: int(row[0]) for path in paths for row in self._db.execute(query, (path, refused))}

    def unanswered(self) -> list[list[Entry]]:
        """Entries whose answer is not known, by request, each in the request's order."""
        query = _SELECT + "WHERE outbox.state = ? ORDER BY outbox.request_id, outbox.position"
        groups: dict[str, list[Entry]] = {}
        with storage_errors():
            for row in self._db.execute(query, (int(EntryState.SENT),)):
                entry = _entry(row)
                groups.setdefault(entry.request_id, []).append(entry)
        return list(groups.values())

    def in_state(self, state: EntryState, after: str, limit: int) -> list[Entry]:
        """By path, after ``after``."""
        query = _SELECT + "WHERE outbox.state = ? AND outbox.path > ? ORDER BY outbox.path LIMIT ?"
        with storage_errors():
            return [_entry(row) for row in self._db.execute(query, (int(state), after, limit))]

    def held(self) -> Iterator[tuple[str, bytes, int]]:
        """Deletes that wait for somebody's decision, by path: with what the file was, hash and bytes; read singly."""
        query = (
            "SELECT path, coalesce(file.disk_hash, x''), CASE WHEN file.inode IS NULL THEN 0 ELSE file.disk_size END "
            "FROM outbox LEFT JOIN file USING (path) WHERE outbox.state = ? ORDER BY path"
        )
        with storage_errors():
            for path, base_hash, size in self._db.execute(query, (int(EntryState.HELD),)):
                assert isinstance(path, str), path
                assert isinstance(base_hash, bytes), path
                assert isinstance(size, int), path
                yield path, base_hash, size

    def last_sequence(self) -> int:
        """Of the edit that was seen last."""
        return int(one(self._db, "SELECT last_sequence FROM mirror")[0])

    def waits(self) -> bool:
        """Whether any edit is still to be sent, or on its way."""
        return self.waits_up_to(self.last_sequence())

    def waits_up_to(self, sequence: int) -> bool:
        """Whether an edit seen up to ``sequence`` is still to be sent, or on its way."""
        query = "SELECT EXISTS (SELECT 1 FROM outbox WHERE state IN (?, ?) AND sequence <= ?)"
        return bool(one(self._db, query, (int(EntryState.QUEUED), int(EntryState.SENT), sequence))[0])

    def totals(self) -> OutboxTotals:
        query = (
            "SELECT coalesce(sum(state <> 3), 0), coalesce(sum(CASE WHEN state <> 3 THEN disk_size END), 0), "
            "coalesce(sum(state = 4), 0), coalesce(sum(state = 5), 0), "
            "coalesce(min(CASE WHEN state <> 3 THEN create_us END), 0) FROM outbox"
        )
        pending, size, refused, held, oldest = one(self._db, query)
        last_us = one(self._db, "SELECT last_acknowledged_us FROM mirror")[0]
        return OutboxTotals(int(pending), int(size), int(refused), int(held), int(oldest), int(last_us))

    # --- before it is sent ------------------------------------------------------------------------------------------

    def queue(self, edits: Sequence[Edit], now_us: int) -> None:
        """Take edits in; what waits for the same path becomes the later edit. Not for entries that are under way."""
        with transaction(self._db):
            for edit in edits:
                self._queue(edit, now_us)

    def withdraw(self, paths: Iterable[str]) -> None:
        """These need not be sent after all: the disk has the base. What was acknowledged of them is still awaited."""
        with transaction(self._db):
            for path in paths:
                self._db.execute(
                    "UPDATE outbox SET state = 3, revision = known_revision WHERE path = ? "
                    f"AND state IN {_NOT_SENT} AND known_revision > (SELECT revision FROM mirror)",
                    (path,),
                )
                self._db.execute(f"DELETE FROM outbox WHERE path = ? AND state IN {_NOT_SENT}", (path,))
                self._settle_row(path)

    def holds(self) -> bool:
        """Whether deletes wait for somebody's decision."""
        return bool(one(self._db, "SELECT EXISTS (SELECT 1 FROM outbox WHERE state = 5)")[0])

    def unsent_deletes(self, after_sequence: int = 0) -> list[Entry]:
        """Deletes that wait, seen after a sequence number, and that nobody has approved. Half of a rename is none."""
        query = _SELECT + (
            "WHERE outbox.content_hash IS NULL AND outbox.state IN (1, 5) AND outbox.sequence > ? "
            "AND NOT outbox.approved AND NOT EXISTS "
            "(SELECT 1 FROM outbox AS other WHERE other.content_hash IS file.disk_hash AND other.inode = file.inode "
            "AND other.device = file.device) ORDER BY outbox.path"
        )
        with storage_errors():
            return [_entry(row) for row in self._db.execute(query, (after_sequence,))]

    def movable(self) -> list[Entry]:
        """Deletes that wait and may turn out to be the other half of a rename."""
        query = _SELECT + "WHERE outbox.state = 1 AND outbox.content_hash IS NULL AND file.state = 6 AND file.inode > 0"
        with storage_errors():
            return [_entry(row) for row in self._db.execute(query)]

    def hold(self, paths: Iterable[str]) -> None:
        """These deletes wait for somebody's decision."""
        self._db.executemany("UPDATE outbox SET state = 5 WHERE path = ?", [(path,) for path in paths])

    def forget(self, paths: Iterable[str]) -> None:
        """As ``withdraw``, but the rows are somebody else's who knows what is on disk now."""
        self._db.executemany(f"DELETE FROM outbox WHERE path = ? AND state IN {_NOT_SENT}", [(path,) for path in paths])

    def release(self, *, approved: bool) -> None:
        """The deletes that were held: send them, or forget them, so that the files are fetched again."""
        with transaction(self._db):
            if approved:
                self._db.execute("UPDATE outbox SET state = 1, approved = 1 WHERE state = 5")
                return
            paths = [(str(row[0]),) for row in self._db.execute("SELECT path FROM outbox WHERE state = 5")]
            self._db.execute("DELETE FROM outbox WHERE state = 5")
            self._db.executemany(
                "UPDATE file SET disk_hash = NULL, inode = NULL, state = 2 WHERE path = ? AND remote_hash IS NOT NULL",
                paths,
            )
            self._db.executemany("DELETE FROM file WHERE path = ? AND remote_hash IS NULL", paths)

    # --- on the way -------------------------------------------------------------------------------------------------

    def sent(self, entries: Sequence[Entry]) -> None:
        """These go out now, in this order and under their request ids: on disk when this returns."""
        with durable(self._db), transaction(self._db):
            self._db.executemany(
                "UPDATE outbox SET state = ?, kind = ?, request_id = ?, position = ?, from_path = ? WHERE path = ?",
                [
                    (int(EntryState.SENT), int(each.kind), each.request_id, position, each.from_path, each.path)
                    for position, each in enumerate(entries)
                ],
            )

    def acknowledged(self, answers: Sequence[Answered], now_us: int) -> None:
        """The store has these: the base moves; what the store has is told by its events."""
        with transaction(self._db):
            for answer in answers:
                entry = answer.entry
                content_hash = None if entry.kind in (EditKind.DELETE, EditKind.MOVED_AWAY) else entry.content_hash
                self._db.execute(
                    "UPDATE file SET disk_hash = ?, base_revision = ?, device = ?, inode = ?, disk_size = ?, "
                    "mtime_ns = ?, ctime_ns = ? WHERE path = ?",
                    (
                        content_hash,
                        answer.revision,
                        *stat_columns(entry.disk_stat if content_hash else None),
                        entry.path,
                    ),
                )
                self._db.execute(
                    "UPDATE outbox SET state = ?1, revision = ?2, known_revision = max(known_revision, ?2), "
                    "request_id = '', from_path = '' WHERE path = ?3",
                    (int(EntryState.ACKNOWLEDGED), answer.revision, entry.path),
                )
            self._problems.drop(answer.entry.path for answer in answers)
            self._db.execute("UPDATE mirror SET last_acknowledged_us = ?", (now_us,))
            self.told()

    def again(self, entries: Sequence[Entry], attempt_us: int, await_revision: int = 0) -> None:
        """Not taken, and to be sent anew: not before a time, and not before the cursor is at a revision."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE outbox SET state = ?, kind = ?, request_id = '', from_path = '', attempt_us = ?, "
                "await_revision = ?, attempt_count = attempt_count + 1 WHERE path = ?",
                [
                    (int(EntryState.QUEUED), int(plain(each.kind)), attempt_us, await_revision, each.path)
                    for each in entries
                ],
            )
            for each in entries:
                self._meet_what_was_told(each.path)

    def defer(self, paths: Iterable[str], attempt_us: int) -> None:
        """Edits that wait are not sent before ``attempt_us``."""
        with transaction(self._db):
            self._db.executemany(
                "UPDATE outbox SET attempt_us = max(attempt_us, ?) WHERE path = ? AND state = 1",
                [(attempt_us, path) for path in paths],
            )

    def rebase(self, path: str, revision: int, known_revision: int) -> None:
        """The store has what an edit that waits changes, at ``revision``; 0: it has nothing, and so has the base."""
        self._db.execute(
            "UPDATE outbox SET if_revision = ?, known_revision = ?, await_revision = 0 WHERE path = ? AND state = 1",
            (revision, known_revision, path),
        )

    def meet(self, path: str) -> None:
        """What the journal knows of the store's version counts, whatever its number."""
        with transaction(self._db):
            self._db.execute("UPDATE outbox SET known_revision = 0 WHERE path = ? AND state = 1", (path,))
            self._meet_what_was_told(path)

    def other_history(self) -> None:
        """The store counts anew, perhaps from an earlier state: no number that it told says anything any more.

        What was sent is sent anew. What was acknowledged and not told may be gone there: a file is an edit again, a
        delete is nobody's wish any more.
        """
        with transaction(self._db):
            acknowledged = "path IN (SELECT path FROM outbox WHERE state = 3 AND content_hash IS {})"
            self._db.execute(
                "UPDATE file SET disk_hash = remote_hash, inode = NULL WHERE " + acknowledged.format("NOT NULL")
            )
            self._db.execute("UPDATE file SET state = 2 WHERE " + acknowledged.format("NULL"))
            self._db.execute("DELETE FROM outbox WHERE state = 3 AND content_hash IS NULL")
            self._db.execute("DELETE FROM file WHERE state = 2 AND remote_hash IS NULL AND disk_hash IS NULL")
            self._db.execute(
                "UPDATE outbox SET if_revision = coalesce((SELECT revision FROM file WHERE file.path = outbox.path "
                "AND remote_hash IS NOT NULL), 0), kind = 1, attempt_us = 0 WHERE state = 3"
            )
            self._db.execute(
                "UPDATE outbox SET state = CASE WHEN state IN (2, 3) THEN 1 ELSE state END, request_id = '', "
                "kind = CASE kind WHEN 3 THEN 1 WHEN 4 THEN 2 ELSE kind END, from_path = '', known_revision = 0, "
                "await_revision = 0, revision = 0"
            )

    def refused(self, entries: Sequence[Entry], problems: Sequence[Problem], attempt_us: int) -> None:
        """The store says no; tried again at ``attempt_us``, or when the file changes."""
        with transaction(self._db):
            self.again(entries, attempt_us)
            self._db.executemany(
                "UPDATE outbox SET state = ? WHERE path = ?",
                [(int(EntryState.REFUSED), each.path) for each in entries],
            )
            self._problems.add(problems)

    def told(self) -> None:
        """Acknowledged edits up to the cursor have had their events: their rows say what the store has."""
        # Named: SQLite would take the other index, and read every edit that still waits for its event.
        query = "SELECT path FROM outbox INDEXED BY outbox_acknowledged WHERE state = 3 "
        query += "AND revision <= (SELECT revision FROM mirror)"
        for (path,) in self._db.execute(query).fetchall():
            self._db.execute("DELETE FROM outbox WHERE path = ?", (path,))
            self._settle_row(str(path))

    # --- what events do to rows that are ahead ----------------------------------------------------------------------

    def met(self, row: FileRow, revision: int, content_hash: bytes | None) -> bool:
        """An event of a path that has an entry; whether `bring` must look at the file now.

        False: the entry's way goes on, whatever the store had in between.
        """
        entry = self.load((row.path,)).get(row.path)
        if entry is None:
            return True
        if entry.state in (EntryState.SENT, EntryState.ACKNOWLEDGED) or revision <= entry.known_revision:
            return False
        if content_hash == row.disk_hash:  # the base itself: told late, or only its semantics changed
            self._db.execute(
                "UPDATE outbox SET if_revision = ?, known_revision = ? WHERE path = ?",
                (revision if content_hash is not None else 0, revision, row.path),
            )
            return False
        if content_hash is None and entry.content_hash is None:  # gone on both sides
            self._db.execute("DELETE FROM outbox WHERE path = ?", (row.path,))
        return True

    # --- inside -----------------------------------------------------------------------------------------------------

    def _queue(self, edit: Edit, now_us: int) -> None:
        row = load(self._db, (edit.path,)).get(edit.path)
        old = self.load((edit.path,)).get(edit.path)
        assert old is None or old.state is not EntryState.SENT, f"{edit.path} is under way"
        if row is None:
            disk_path = None if edit.disk_path == edit.path[1:] else edit.disk_path
            self._db.execute(INSERT, (edit.path, 0, None, 0, int(FileState.OUTGOING), disk_path, *(None,) * 6, 0))
        if old is not None and old.content_hash == edit.content_hash and old.state is EntryState.REFUSED:
            return  # the same again: the refusal stands, and so does its time
        if_revision, known_revision = _base(row, old)
        (sequence,) = one(self._db, "UPDATE mirror SET last_sequence = last_sequence + 1 RETURNING last_sequence")
        kind = EditKind.WRITE if edit.content_hash is not None else EditKind.DELETE
        attempt_us = now_us + (DELETE_LINGER_US if kind is EditKind.DELETE else 0)
        self._db.execute(
            "INSERT OR REPLACE INTO outbox (path, sequence, kind, state, if_revision, known_revision, content_hash, "
            "device, inode, disk_size, mtime_ns, ctime_ns, attempt_us, create_us) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                edit.path,
                sequence,
                int(kind),
                int(EntryState.QUEUED),
                if_revision,
                known_revision,
                edit.content_hash,
                *stat_columns(edit.disk_stat),
                attempt_us,
                now_us,
            ),
        )
        self._db.execute("UPDATE file SET state = ? WHERE path = ?", (int(FileState.OUTGOING), edit.path))
        self._problems.drop((edit.path, edit.disk_path))  # the latter: listed when only the disk had it

    def _meet_what_was_told(self, path: str) -> None:
        """Events that came while an entry was under way: another version is for `bring`, the base itself is no news."""
        newer = "path = ?1 AND revision > (SELECT known_revision FROM outbox WHERE path = ?1)"
        for revision, content_hash, same in self._db.execute(
            f"SELECT revision, remote_hash, remote_hash IS disk_hash FROM file WHERE {newer}", (path,)
        ).fetchall():
            if not same:
                self._db.execute("UPDATE file SET state = 2 WHERE path = ?", (path,))
                continue
            self._db.execute(
                "UPDATE outbox SET if_revision = ?, known_revision = ? WHERE path = ?",
                (revision if content_hash is not None else 0, revision, path),
            )

    def _settle_row(self, path: str) -> None:
        self._db.execute("DELETE FROM file WHERE path = ? AND remote_hash IS NULL AND disk_hash IS NULL", (path,))
        self._db.execute(
            f"{_SETTLE_ROW} AND state = 6 AND NOT EXISTS "
            f"(SELECT 1 FROM outbox WHERE outbox.path = file.path AND outbox.state IN {_UNDER_WAY})",
            (path,),
        )


def _base(row: FileRow | None, old: Entry | None) -> tuple[int, int]:
    """(the revision that the next edit of a path changes, up to which its events are known)."""
    if old is not None and old.state is EntryState.ACKNOWLEDGED:
        exists = old.kind not in (EditKind.DELETE, EditKind.MOVED_AWAY)
        return (old.known_revision if exists else 0), old.known_revision
    if old is not None and (row is None or row.revision <= old.known_revision):
        return old.if_revision, old.known_revision
    if row is None or row.remote_hash is None:
        return 0, 0 if row is None else row.revision
    return row.revision, row.revision


def plain(kind: EditKind) -> EditKind:
    """What an entry is when it is not on its way."""
    return {EditKind.MOVE: EditKind.WRITE, EditKind.MOVED_AWAY: EditKind.DELETE}.get(kind, kind)


def _entry(row: tuple[Any, ...]) -> Entry:
    """A row in the order of ``_SELECT``; SQLite's types are those of the schema."""
    path, disk_path, sequence, kind, state, if_revision, known_revision, content_hash = row[:8]
    request_id, from_path, attempts = row[19:22]
    return Entry(
        path,
        disk_path,
        sequence,
        EditKind(kind),
        EntryState(state),
        if_revision,
        known_revision,
        content_hash,
        _stat(row[8:13]),
        _stat(row[13:18]),
        row[18],
        request_id,
        from_path,
        attempts,
    )


def _stat(columns: tuple[Any, ...]) -> DiskStat | None:
    return None if columns[1] is None else DiskStat(*columns)
