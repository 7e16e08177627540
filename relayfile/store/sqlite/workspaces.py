"""The workspaces of a node by name: each shard's in order of the key, merged."""

import heapq
from collections.abc import Iterable, Iterator
from itertools import islice
from operator import attrgetter

import apsw

from relayfile.store.engine import ListedWorkspace, WorkspaceFilter, WorkspaceKey
from relayfile.store.sqlite.rows import DIRECTORY_COLUMNS, WORKSPACE_COLUMNS, directory_row, workspace_row

_LAST = "\x7f"
"""After every character of a name."""
_WORKSPACES = (
    f"SELECT workspace_id, {WORKSPACE_COLUMNS} FROM workspace WHERE shard_id = ?1 AND workspace_id > ?2"
    " AND workspace_id >= ?3 AND workspace_id < ?4 AND (?5 OR deleted_us IS NULL)"
    " AND (?6 OR substr(workspace_id, 1, 1) <> '_') ORDER BY workspace_id"
)
_ROOT = f"SELECT {DIRECTORY_COLUMNS} FROM directory WHERE shard_id = ? AND workspace_id = ? AND path = '/'"
_OLDEST_EVENT = "SELECT min(revision) FROM event WHERE shard_id = ? AND workspace_id = ?"


def list_workspaces(
    connection: apsw.Connection, shard_ids: Iterable[int], chosen: WorkspaceFilter, after: str, limit: int
) -> list[ListedWorkspace]:
    """The next `limit`. Of each shard one more than is taken is read."""
    bindings = (after, chosen.prefix, chosen.prefix + _LAST, chosen.deleted, chosen.system)
    by_shard = [_of_shard(connection, shard_id, bindings) for shard_id in shard_ids]
    return list(islice(heapq.merge(*by_shard, key=attrgetter("key.workspace_id")), limit))


def _of_shard(
    connection: apsw.Connection, shard_id: int, bindings: tuple[str, str, str, bool, bool]
) -> Iterator[ListedWorkspace]:
    for name, *columns in connection.execute(_WORKSPACES, (shard_id, *bindings)):
        key = WorkspaceKey(shard_id, name)
        root = connection.execute(_ROOT, key).fetchone()
        oldest: int | None = connection.execute(_OLDEST_EVENT, key).get
        yield ListedWorkspace(key, workspace_row(tuple(columns)), None if root is None else directory_row(root), oldest)
