"""The mirrors of this process: kept in one database over restarts, opened, followed and closed.

Owns `mirrors.db`, a folder with a journal per mirror, and the tasks that follow. Refuses to know how a mirror works.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import apsw

from relayfile.clock import Clock
from relayfile.errors import (
    InvalidArgument,
    MirrorAlreadyExists,
    MirrorNotFound,
    MirrorRefused,
    StartRefused,
    UnsentEdits,
)
from relayfile.ids import IdSource
from relayfile.paths import contains
from relayfile.syncd.answers import Answers, Kept
from relayfile.syncd.journal import Journal
from relayfile.syncd.journal_problems import PROBLEMS_MAX
from relayfile.syncd.journal_rows import storage_errors
from relayfile.syncd.journal_scopes import dropped
from relayfile.syncd.mirror import Mirror
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.root import Marker, Root, create_root
from relayfile.syncd.shown import MirrorRecord
from relayfile.syncd.unsent import Unsent

_FORMAT: Final = 1
_COLUMNS = "mirror_id, workspace_id, directory, remote_paths, follow, read_only, token_file, create_us"

OpenWith = Callable[[MirrorRecord, Root, Journal], OpenMirror]


class Registry:
    """All mirrors. ``serve`` runs those that follow; ``close`` when it has ended.

    ``StartRefused`` when a newer release wrote the database.
    """

    def __init__(
        self, data_dir: Path, clock: Clock, ids: IdSource, open_with: OpenWith, problems_max: int = PROBLEMS_MAX
    ) -> None:
        self._data_dir = data_dir
        self._clock = clock
        self._ids = ids
        self._open_with = open_with
        self._problems_max = problems_max
        self._mirrors: dict[str, Mirror] = {}
        self._to_follow: asyncio.Queue[Mirror] = asyncio.Queue()
        self._following: dict[str, asyncio.Task[None]] = {}
        (data_dir / "mirrors").mkdir(parents=True, exist_ok=True)
        with storage_errors():
            self._db = _opened(data_dir / "mirrors.db")
            self.answers = Answers(self._db, clock)
            for row in self._db.execute(f"SELECT {_COLUMNS} FROM mirror ORDER BY mirror_id").fetchall():
                self._add(_record(row))

    async def serve(self) -> None:
        """Follow the mirrors that follow, and those that are told to later, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                mirror = await self._to_follow.get()
                mirror_id = mirror.record.mirror_id
                running = self._following.get(mirror_id)
                if self._mirrors.get(mirror_id) is mirror and (running is None or running.done()):
                    self._following[mirror_id] = tasks.create_task(mirror.run(), name=f"mirror {mirror_id}")

    def close(self) -> None:
        """Close every journal and directory; nothing may run any more."""
        for mirror in self._mirrors.values():
            mirror.close()
        with storage_errors():
            self._db.close()

    def __iter__(self) -> Iterator[Mirror]:
        return iter([self._mirrors[mirror_id] for mirror_id in sorted(self._mirrors)])

    def __len__(self) -> int:
        return len(self._mirrors)

    def get(self, mirror_id: str) -> Mirror:
        """``MirrorNotFound`` when there is none."""
        if mirror_id not in self._mirrors:
            raise MirrorNotFound(mirror=mirror_id)
        return self._mirrors[mirror_id]

    def create(self, wanted: MirrorRecord, *, adopt_existing: bool, request_id: str, fingerprint: bytes) -> Mirror:
        """Make a mirror of ``wanted`` (its id and time are given here)."""
        repeated = self.answers.find(request_id, fingerprint)
        if repeated is not None:
            return self.get(repeated.mirror_id)
        if self.at(wanted.directory) is not None:
            raise MirrorAlreadyExists(root=wanted.directory)
        mirror = self._create(wanted, adopt_existing=adopt_existing)
        self.answers.keep(request_id, fingerprint, Kept(mirror.record.mirror_id, mirror.record.workspace_id, None))
        return mirror

    def at(self, directory: str) -> Mirror | None:
        """The mirror of exactly this directory."""
        return next((each for each in self if each.record.directory == directory), None)

    async def update(self, mirror: Mirror, wanted: MirrorRecord, *, request_id: str, fingerprint: bytes) -> Mirror:
        """Change a mirror's settings to those of ``wanted``; what it follows goes on afterwards.

        ``UnsentEdits`` when a path is dropped while anything is unsent: it would stay behind.
        """
        repeated = self.answers.find(request_id, fingerprint)
        if repeated is not None:
            return self.get(repeated.mirror_id)
        old = mirror.record
        if wanted.workspace_id != old.workspace_id:
            raise InvalidArgument.of("workspace_id", f"cannot be changed: the directory mirrors {old.workspace_id}")
        record = replace(
            old,
            remote_paths=wanted.remote_paths,
            follow=wanted.follow or old.follow,
            read_only=wanted.read_only,
            token_file=wanted.token_file or old.token_file,
        )
        await mirror.look()
        if dropped(old.remote_paths, record.remote_paths) and (unsent := mirror.unsent()):
            raise UnsentEdits(mirror=old.directory, edits=unsent.edits, conflicts=unsent.conflicts)
        # The row first: after a kill the journal is made one of these paths when it is opened.
        self._store(record)
        if record != old:
            await self._stop_following(old.mirror_id)
            await mirror.change(record)
            if record.follow:
                self._to_follow.put_nowait(mirror)
        self.answers.keep(request_id, fingerprint, Kept(old.mirror_id, old.workspace_id, None))
        return mirror

    async def forget(self, mirror: Mirror, *, force: bool) -> Unsent:
        """End a mirror: what runs on it, its journal, its marker. The files stay; returns what was never sent.

        ``UnsentEdits`` when there is any and not ``force``. Nobody else may ask for the mirror from then on.
        """
        record = mirror.record
        await mirror.look()
        unsent = mirror.unsent()
        if unsent and not force:
            raise UnsentEdits(mirror=record.directory, edits=unsent.edits, conflicts=unsent.conflicts)
        # The row first: a kill after it leaves files that nobody reads, never a mirror without its journal.
        with storage_errors():
            self._db.execute("DELETE FROM mirror WHERE mirror_id = ?", (record.mirror_id,))
        self._mirrors.pop(record.mirror_id, None)
        await self._stop_following(record.mirror_id)
        await mirror.retire()
        for suffix in ("", "-wal", "-shm"):
            self._journal_path(record.mirror_id).with_name(f"{record.mirror_id}.db{suffix}").unlink(missing_ok=True)
        return unsent

    async def _stop_following(self, mirror_id: str) -> None:
        following = self._following.pop(mirror_id, None)
        if following is not None:
            following.cancel()
            await asyncio.wait({following})

    def _create(self, wanted: MirrorRecord, *, adopt_existing: bool) -> Mirror:
        record = MirrorRecord(
            self._ids.new_id(),
            wanted.workspace_id,
            wanted.directory,
            wanted.remote_paths,
            wanted.follow,
            wanted.read_only,
            wanted.token_file,
            self._clock.now_us(),
        )
        below = next((each for each in self if contains(record.directory, each.record.directory)), None)
        if below is not None:
            why = f"ROOT_AROUND_OTHER_MIRROR: {below.record.directory} is a mirror; choose another place"
            raise MirrorRefused(mirror=record.directory, why=why)
        # The marker first: a row without one would be a mirror that halts; a marker without a row is only a name.
        create_root(record.directory, Marker(record.mirror_id, record.workspace_id), adopt_existing=adopt_existing)
        self._store(record)
        return self._add(record)

    def _store(self, record: MirrorRecord) -> None:
        with storage_errors():
            self._db.execute(
                f"INSERT OR REPLACE INTO mirror ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    record.mirror_id,
                    record.workspace_id,
                    record.directory,
                    json.dumps(record.remote_paths),
                    record.follow,
                    record.read_only,
                    record.token_file,
                    record.create_time_us,
                ),
            )

    def _add(self, record: MirrorRecord) -> Mirror:
        path = self._journal_path(record.mirror_id)
        mirror = Mirror(
            record,
            self._clock,
            lambda root: Journal(path, mirror.record.remote_paths, folds=root.folds, problems_max=self._problems_max),
            lambda root, journal: self._open_with(mirror.record, root, journal),
        )
        self._mirrors[record.mirror_id] = mirror
        if record.follow:
            self._to_follow.put_nowait(mirror)
        return mirror

    def _journal_path(self, mirror_id: str) -> Path:
        return self._data_dir / "mirrors" / f"{mirror_id}.db"


def _opened(path: Path) -> apsw.Connection:
    """The database, made where it is missing; one of another format is not touched."""
    db = apsw.Connection(str(path))
    try:
        found = db.execute("PRAGMA user_version").get
        if found not in (0, _FORMAT):
            raise StartRefused(
                why=f"{path} has format {found}, this release knows {_FORMAT}; start the release that wrote it"
            )
        db.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")
        # 0 is a new file, or one from before the number was kept, which has the tables of format 1.
        db.execute((Path(__file__).parent / "registry.sql").read_text())
        if "answer" not in {str(row[1]) for row in db.execute("PRAGMA table_info(request)")}:
            db.execute("ALTER TABLE request ADD COLUMN workspace_id TEXT NOT NULL DEFAULT ''")
            db.execute("ALTER TABLE request ADD COLUMN answer BLOB")
        if found == 0:
            db.execute(f"PRAGMA user_version = {_FORMAT}")
    except BaseException:
        db.close()
        raise
    return db


def _record(row: Sequence[object]) -> MirrorRecord:
    mirror_id, workspace_id, directory, remote_paths, follow, read_only, token_file, create_us = row
    assert isinstance(create_us, int), row
    return MirrorRecord(
        str(mirror_id),
        str(workspace_id),
        str(directory),
        tuple(json.loads(str(remote_paths))),
        bool(follow),
        bool(read_only),
        str(token_file),
        create_us,
    )
