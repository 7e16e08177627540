"""The index of files: how a group's changes are written, and how files are found by it.

Owns the tables `file_term` and `provider_directory`. Every lookup goes by key and is bounded by what its caller wants
to look at: none reads a workspace.
"""

from collections.abc import Iterable, Iterator, Sequence

import apsw

from relayfile.store.engine import PlannedEntry, ProviderFiles, TermPath, WorkspaceKey
from relayfile.store.plan.file_index import Term
from relayfile.store.plan.rows import FileRow
from relayfile.store.sqlite.rows import FILE_COLUMNS, Rows, file_row

_KEY = "shard_id = ? AND workspace_id = ?"
_TERM_INSERT = "INSERT OR IGNORE INTO file_term VALUES (?, ?, ?, ?, ?)"
_TERM_DELETE = f"DELETE FROM file_term WHERE {_KEY} AND kind = ? AND value = ? AND path = ?"
_PROVIDER_COUNT = (
    "INSERT INTO provider_directory VALUES (?, ?, ?, ?, ?) ON CONFLICT (shard_id, workspace_id, provider, path)"
    " DO UPDATE SET file_count = file_count + excluded.file_count"
)
_PROVIDER_GONE = f"DELETE FROM provider_directory WHERE {_KEY} AND provider = ? AND path = ? AND file_count <= 0"

_TERM_COUNT = (
    f"SELECT count(*) FROM (SELECT 1 FROM file_term WHERE {_KEY} AND kind = ? AND value = ? AND path >= ? AND path < ?"
    " LIMIT ?)"
)
_TERM_PATHS = (
    "SELECT t.path, {others} FROM file_term AS t WHERE t.shard_id = ? AND t.workspace_id = ? AND t.kind = ?"
    " AND t.value = ? AND t.path >= ? AND t.path < ? ORDER BY t.path LIMIT ?"
)
_HAS_TERM = (
    "EXISTS (SELECT 1 FROM file_term AS o WHERE o.shard_id = t.shard_id AND o.workspace_id = t.workspace_id"
    " AND o.kind = ? AND o.value = ? AND o.path = t.path)"
)
_FILES = f"SELECT {FILE_COLUMNS} FROM file WHERE {_KEY} AND path >= ? AND path < ? ORDER BY path"
_PROVIDER_COLUMN = 6
_IS_IN = f"SELECT 1 FROM provider_directory WHERE {_KEY} AND provider = ? AND path = ?"
_NEXT_DIRECTORY = f"SELECT min(path) FROM provider_directory WHERE {_KEY} AND provider = ? AND path > ?"


def index_statements(entries: Sequence[PlannedEntry]) -> Iterator[tuple[str, Rows]]:
    """What writes the changes of the entries' indexes."""
    removed: Rows = []
    added: Rows = []
    counts: Rows = []
    gone: Rows = []
    for key, plan, _ in entries:
        index = plan.index
        removed += [(*key, kind, value, path) for (kind, value), path in index.removed]
        added += [(*key, kind, value, path) for (kind, value), path in index.added]
        for named, change in index.provider_files.items():
            if change:
                counts.append((*key, *named, change))
            if change < 0:
                gone.append((*key, *named))
    yield _TERM_DELETE, removed
    yield _TERM_INSERT, added
    yield _PROVIDER_COUNT, counts
    yield _PROVIDER_GONE, gone


def term_count(cursor: apsw.Cursor, key: WorkspaceKey, term: Term, within: tuple[str, str], at_most: int) -> int:
    """How many files have the term and a path in the range, as far as `at_most`."""
    return int(cursor.execute(_TERM_COUNT, (*key, *term, *within, at_most)).get)


def term_paths(
    cursor: apsw.Cursor, key: WorkspaceKey, term: Term, others: Sequence[Term], within: tuple[str, str], limit: int
) -> list[TermPath]:
    """The next files with `term`, and whether each has all `others`: one seek for each of them."""
    query = _TERM_PATHS.format(others=" AND ".join([_HAS_TERM] * len(others)) or "1")
    flat = [part for other in others for part in other]
    return [TermPath(path, bool(has)) for path, has in cursor.execute(query, (*flat, *key, *term, *within, limit))]


def provider_files(
    cursor: apsw.Cursor, key: WorkspaceKey, provider: str, within: tuple[str, str], look_at_max: int
) -> ProviderFiles:
    """The next files of the provider. Looks at what is directly in directories that hold files of it, and jumps over
    all that is in others."""
    places = _Places(cursor.connection, key, provider)
    found: list[FileRow] = []
    start: str | None = within[0]
    end = within[1]
    path = ""
    looked_at = 0
    while start is not None and start < end:
        jump = False
        for row in cursor.connection.execute(_FILES, (*key, start, end)):
            path = row[0]
            looked_at += 1
            if not places.holds(path[: path.rfind("/") + 1]):
                jump = True
            elif row[_PROVIDER_COLUMN] == provider:
                found.append(file_row(row))
            if jump or looked_at == look_at_max:
                break
        else:
            return ProviderFiles(found, path, is_complete=True)
        if looked_at == look_at_max:
            return ProviderFiles(found, path, is_complete=False)
        start = places.next_after(path)
    return ProviderFiles(found, path, is_complete=True)


class _Places:
    """The directories that hold files of one provider, as far as they were asked for."""

    def __init__(self, connection: apsw.Connection, key: WorkspaceKey, provider: str) -> None:
        self._connection = connection
        self._bindings = (*key, provider)
        self._known: dict[str, bool] = {}

    def holds(self, directory: str) -> bool:
        """Whether files of the provider are directly in `directory`, which ends with `/`."""
        known = self._known.get(directory)
        if known is None:
            row = self._connection.execute(_IS_IN, (*self._bindings, directory)).fetchone()
            known = self._known[directory] = row is not None
        return known

    def next_after(self, path: str) -> str | None:
        """Where the next file of the provider may be; there is none directly beside `path`."""
        following: str | None = self._connection.execute(_NEXT_DIRECTORY, (*self._bindings, path)).get
        for above in _directories_above(path):
            if self.holds(above):
                # Past the entry of `above` that `path` is in: "0" follows "/".
                beside = path[: path.index("/", len(above))] + "0"
                return beside if following is None else min(beside, following)
        return following


def _directories_above(path: str) -> Iterable[str]:
    """Those above the directory of `path`, the nearest first, each with `/` at its end."""
    end = path.rfind("/")
    while end > 0:
        end = path.rfind("/", 0, end)
        yield path[: end + 1]
