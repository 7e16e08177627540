"""How much is open of each provider of a workspace: entries of two partial indexes, counted up to a bound.

Owns the bound. Refuses to keep a counter: what is counted are the rows themselves.
"""

from typing import Final

import apsw

from relayfile.store.engine import ProviderWork, WorkspaceKey
from relayfile.store.sqlite.operation_rows import NEVER_US

COUNTED_MAX: Final = 10_000
"""Of each kind and provider; about a millisecond."""

_STALE: Final = "file INDEXED BY file_stale WHERE shard_id = ?1 AND workspace_id = ?2 AND stale_since_us IS NOT NULL"
_UNFINISHED: Final = (
    f"operation INDEXED BY operation_unfinished WHERE shard_id = ?1 AND workspace_id = ?2 AND ended_us = {NEVER_US}"
)


def provider_work(connection: apsw.Connection, key: WorkspaceKey) -> dict[str, ProviderWork]:
    """Of providers of which anything is open."""
    stale, unfinished = _counts(connection, key, _STALE), _counts(connection, key, _UNFINISHED)
    return {
        provider: ProviderWork(stale.get(provider, 0), unfinished.get(provider, 0))
        for provider in sorted(stale.keys() | unfinished.keys())
    }


def _counts(connection: apsw.Connection, key: WorkspaceKey, entries: str) -> dict[str, int]:
    """A seek for each provider, however much it has."""
    found: dict[str, int] = {}
    after = ""
    while True:
        provider: str | None = connection.execute(
            f"SELECT min(provider) FROM {entries} AND provider > ?3", (*key, after)
        ).get
        if provider is None:
            return found
        counted = f"SELECT count(*) FROM (SELECT 1 FROM {entries} AND provider = ?3 LIMIT ?4)"
        found[provider] = connection.execute(counted, (*key, provider, COUNTED_MAX)).get
        after = provider
