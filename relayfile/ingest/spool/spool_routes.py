"""The tables of the spool's file that keep the routes of apps, so that they are known while the store is away.

Owns their SQL. An update is one part of a transaction: routes, and the position in the app's history up to which they
are known. Refuses to know when an update is written.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import apsw

SCHEMA = """
CREATE TABLE IF NOT EXISTS app_route (
    app TEXT NOT NULL,
    tenant TEXT NOT NULL,
    workspace_id TEXT NOT NULL,
    PRIMARY KEY (app, tenant)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS app_routes_at (
    app TEXT PRIMARY KEY,
    revision INTEGER NOT NULL,
    history_id TEXT NOT NULL
) WITHOUT ROWID;
"""


class RoutesAt(NamedTuple):
    """A position in the history of an app's routes."""

    revision: int
    history_id: str


@dataclass(frozen=True, slots=True)
class RouteUpdate:
    """What changed of one app's routes."""

    app: str
    puts: Sequence[tuple[str, str]]
    """Tenant and workspace."""
    drops: Sequence[str]
    at: RoutesAt | None
    """What is known after it; None: a part of them only, more follows."""


class SavedRoutes(NamedTuple):
    """What is kept of one app."""

    routes: dict[str, str]
    at: RoutesAt | None
    """None: they were not complete when they were written last."""


def write_routes(connection: apsw.Connection, updates: Sequence[RouteUpdate]) -> None:
    """Inside the caller's transaction."""
    for update in updates:
        if update.drops:
            drops = [(update.app, tenant) for tenant in update.drops]
            connection.executemany("DELETE FROM app_route WHERE app = ? AND tenant = ?", drops)
        if update.puts:
            puts = [(update.app, tenant, workspace) for tenant, workspace in update.puts]
            connection.executemany("INSERT OR REPLACE INTO app_route VALUES (?,?,?)", puts)
        if update.at is None:
            connection.execute("DELETE FROM app_routes_at WHERE app = ?", (update.app,))
        else:
            connection.execute("INSERT OR REPLACE INTO app_routes_at VALUES (?,?,?)", (update.app, *update.at))


def read_routes(connection: apsw.Connection, app: str) -> SavedRoutes:
    """All routes of an app."""
    at = connection.execute("SELECT revision, history_id FROM app_routes_at WHERE app = ?", (app,)).fetchone()
    rows: Iterator[tuple[str, str]] = connection.execute(
        "SELECT tenant, workspace_id FROM app_route WHERE app = ?", (app,)
    )
    return SavedRoutes(dict(rows), None if at is None else RoutesAt(*at))
