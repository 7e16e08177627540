"""The schema of a node's file: numbered SQL files in dbmate's form, and what the file says about its node.

Owns which migrations a file has, and the facts that are fixed when it is made: shard count, node index, node count.
Refuses files of a newer release, and files of another node.
"""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import apsw

from relayfile.errors import SettingError, StartRefused

_UP = "-- migrate:up"
_DOWN = "-- migrate:down"


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a file is made for: other values never open it."""

    shard_count: int
    node_index: int
    node_count: int
    cluster_id: str = ""
    """Recorded when the file is made, and kept whatever is said later: it only names the cluster."""


def migrate(connection: apsw.Connection, path: Path) -> None:
    """Bring the file to this release's schema, each migration in its own transaction."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_migrations (version TEXT NOT NULL PRIMARY KEY) WITHOUT ROWID")
    done = {str(row[0]) for row in connection.execute("SELECT version FROM schema_migrations")}
    known = dict(_migrations())
    if newer := sorted(done - known.keys()):
        raise StartRefused(
            why=f"{path} has schema version {newer[-1]}, this release knows up to {max(known)}; start a newer one"
        )
    missing = sorted(known.keys() - done)
    for version in missing:
        with connection:
            connection.execute(known[version])
            connection.execute("INSERT INTO schema_migrations VALUES (?)", (version,))
    if missing:
        # A log once as long as that stays so long.
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def check_identity(connection: apsw.Connection, path: Path, identity: NodeIdentity) -> str:
    """Record what the file is made for, or compare with what was recorded: `SettingError` names both values.

    Returns the cluster's id.
    """
    recorded = {str(name): str(value) for name, value in connection.execute("SELECT name, value FROM meta")}
    facts = (
        ("shard_count", "RELAYFILE_SHARD_COUNT", identity.shard_count),
        ("node_index", "RELAYFILE_NODE_INDEX", identity.node_index),
        ("node_count", "RELAYFILE_NODES", identity.node_count),
    )
    for name, variable, value in facts:
        if name in recorded and recorded[name] != str(value):
            what = "names a node count of" if name == "node_count" else "is"
            raise SettingError(
                variable=variable,
                problem=f"{what} {value}, but {path} was made with {recorded[name]}",
                way_out=f"set it to {recorded[name]} again, or start with an empty data directory",
            )
    with connection:
        for name, text in (*((name, str(value)) for name, _, value in facts), ("cluster_id", identity.cluster_id)):
            connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (name, text))
    return recorded.get("cluster_id", identity.cluster_id)


def page_key(connection: apsw.Connection) -> bytes:
    """The node's secret for page tokens, 32 bytes, made the first time."""
    with connection:
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('page_key', ?)", (secrets.token_hex(32),))
    return bytes.fromhex(str(connection.execute("SELECT value FROM meta WHERE name = 'page_key'").get))


def newest_version() -> str:
    """The schema of this release."""
    return max(version for version, _ in _migrations())


def _migrations() -> Iterator[tuple[str, str]]:
    folder = resources.files("relayfile.store.sqlite") / "migrations"
    for file in folder.iterdir():
        if file.name.endswith(".sql"):
            up = file.read_text(encoding="utf-8").split(_UP, 1)[1].split(_DOWN, 1)[0]
            yield file.name.split("_", 1)[0], up
