"""Whether every directory's row follows from its direct entries (D9).

A directory of any width is read in one snapshot, since its entries must add up: its files by a scan that jumps over
what lies deeper, its directories by theirs.
"""

from collections.abc import Generator, Iterator
from functools import partial
from typing import Any

import apsw
import msgspec

from relayfile.model import Semantics
from relayfile.paths import ROOT, prefix_range
from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Tally
from relayfile.store.integrity.recount import Bucket, Recount
from relayfile.store.plan.buckets import BUILT
from relayfile.store.plan.rows import DirectoryRow
from relayfile.store.plan.rules import enforceable_count
from relayfile.store.sqlite.audit.step import ROWS_PER_STEP, ROWS_PER_TURN, Look
from relayfile.store.sqlite.rows import DIRECTORY_COLUMNS, directory_row

_KEY = "shard_id = ? AND workspace_id = ?"
_NEXT = f"SELECT {DIRECTORY_COLUMNS} FROM directory WHERE {_KEY} AND path >= ? ORDER BY path LIMIT 1"
_DIRECTORIES = f"SELECT {DIRECTORY_COLUMNS} FROM directory WHERE {_KEY} AND path >= ? AND path < ? ORDER BY path"
_FILES = (
    f"SELECT path, size_bytes, content_sha256, semantics FROM file WHERE {_KEY} AND path >= ? AND path < ?"
    " ORDER BY path"
)
_ANY_FILE = f"SELECT 1 FROM file WHERE {_KEY} LIMIT 1"
_BUCKETS = f"SELECT bucket, file_count, total_bytes, digest FROM directory_bucket WHERE {_KEY} AND path = ?"

_semantics = msgspec.json.Decoder(Semantics)


def check_directories(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, low: str = "") -> Look:
    """Every directory from `low` on, as many as fit into a step."""
    seen = 0
    while seen < ROWS_PER_STEP:
        columns = cursor.execute(_NEXT, (*key, low)).fetchone()
        if not low and (columns is None or columns[0] != ROOT) and cursor.execute(_ANY_FILE, key).fetchone():
            yield _finding(key, ROOT, "DIRECTORY_MISSING", "the root has no row, and there are files")
        if columns is None:
            return None
        row = directory_row(columns)
        seen += yield from _check_one(cursor, tally, key, row)
        low = row.path + "\0"
    return partial(check_directories, key=key, low=low)


def _check_one(
    cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, row: DirectoryRow
) -> Generator[Finding | None, None, int]:
    """Compare one directory with its entries; how many rows were read."""
    buckets = {
        number: Bucket(files, size, int.from_bytes(digest, "big"))
        for number, files, size, digest in cursor.execute(_BUCKETS, (*key, row.path))
        if row.buckets_to == BUILT
    }
    is_built = row.buckets_to == BUILT  # until then they hold what was counted so far
    recount = Recount(with_buckets=is_built)
    holding = yield from _add_files(cursor, key, row.path, recount)
    tally.file_count += recount.entry_count
    for columns in level(cursor.connection, _DIRECTORIES, key, row.path):
        if len(columns) == 1:
            continue  # its own row comes first; one that has none is missed below
        entry = directory_row(columns)
        recount.add_directory(entry)
        if entry.path not in holding:
            yield _finding(key, entry.path, "DIRECTORY_EMPTY", "the directory has a row and no file below it")
        holding.discard(entry.path)
        if not recount.entry_count % ROWS_PER_TURN:
            yield None
    for path in sorted(holding):
        yield _finding(key, path, "DIRECTORY_MISSING", "there are files below the directory, and it has no row")
    for reason, message in recount.differences(row):
        yield _finding(key, row.path, reason, message)
    if is_built and (wrong := recount.wrong_buckets(buckets)):
        shown = ", ".join(map(str, wrong[:8]))
        yield _finding(key, row.path, "BUCKET_MISMATCH", f"{len(wrong)} buckets are not the sums of theirs: {shown}")
    yield None
    return recount.entry_count + 1


def _add_files(
    cursor: apsw.Cursor, key: WorkspaceKey, directory: str, recount: Recount
) -> Generator[Finding | None, None, set[str]]:
    """Add the files directly in `directory`; the directories in it that have files."""
    holding: set[str] = set()
    for columns in level(cursor.connection, _FILES, key, directory):
        if len(columns) == 1:
            holding.add(columns[0])
            continue
        path, size_bytes, content_sha256, semantics = columns
        rules = 0
        if semantics is not None:
            try:
                rules = enforceable_count(_semantics.decode(semantics).permissions)
            except msgspec.DecodeError as error:
                yield _finding(key, path, "SEMANTICS_UNREADABLE", f"the column cannot be read ({error})")
        recount.add_file(path, size_bytes, content_sha256, rules)
        if not recount.entry_count % ROWS_PER_TURN:
            yield None
    return holding


def level(connection: apsw.Connection, query: str, key: WorkspaceKey, directory: str) -> Iterator[Any]:
    """The rows directly in `directory`; of an entry that has rows below it, its path alone."""
    low, high = prefix_range(directory)
    prefix = directory if directory == ROOT else directory + "/"
    while low:
        start, low = low, ""
        for columns in connection.execute(query, (*key, start, high)):
            path: str = columns[0]
            end = path.find("/", len(prefix))
            if end < 0:
                yield columns
            else:
                yield (path[:end],)
                low = path[:end] + "0"  # "0" follows "/"
                break


def _finding(key: WorkspaceKey, path: str, reason: str, message: str) -> Finding:
    return Finding(Check.DIGESTS, key.shard_id, key.workspace_id, path, reason, message)
