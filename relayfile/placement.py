"""Where a workspace lives: workspace to shard, shard to node (D6, D11), and what a workspace may be called.

Pure, and computable in any language: the golden tests pin the results, and a change of any of them is a new cluster.
Refuses to know who owns a shard *now*; that is the store's ownership table, of which this is the static part.
"""

import hashlib
import re
from functools import lru_cache
from typing import Final, NewType

from relayfile.model import ShardId

NodeIndex = NewType("NodeIndex", int)

SHARD_COUNT_DEFAULT: Final = 256
WORKSPACE_ID_BYTES_MAX: Final = 128
APP_PREFIX: Final = "_app/"
"""Leads the ids of system workspaces, one for each app; no user's workspace can have such an id."""

_REMEMBERED_MAX = 16_384
"""Shards of workspaces: each call asks several times, and the hash costs as much as checking its request."""
_NAME = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,127}\Z")
_NAME_RULE = "must have 1 to 128 characters of A-Z a-z 0-9 . _ - and not start with . or _"


@lru_cache(maxsize=_REMEMBERED_MAX)
def shard_of(workspace: str, shard_count: int = SHARD_COUNT_DEFAULT) -> ShardId:
    """The shard that holds ``workspace``: the first 8 bytes of the SHA-256 of its id, big-endian, modulo the count."""
    digest = hashlib.sha256(workspace.encode()).digest()
    return ShardId(int.from_bytes(digest[:8], "big") % shard_count)


def node_of(shard: int, node_count: int) -> NodeIndex:
    """The index of the node that holds ``shard`` while nodes are a fixed list (SQLite mode)."""
    return NodeIndex(shard % node_count)


def shards_of_node(node_index: int, node_count: int, shard_count: int = SHARD_COUNT_DEFAULT) -> tuple[ShardId, ...]:
    """Every shard that ``node_of`` gives to this node, ascending."""
    return tuple(ShardId(shard) for shard in range(node_index, shard_count, node_count))


def check_workspace_id(raw: str) -> str | None:
    """Why ``raw`` cannot name a user's workspace, or None when it can."""
    return None if _NAME.match(raw) else _NAME_RULE


def app_workspace(app: str) -> str:
    """The id of an app's system workspace."""
    return APP_PREFIX + app


def app_of(workspace: str) -> str:
    """The app whose system workspace this is; empty for a user's workspace."""
    return workspace[len(APP_PREFIX) :] if workspace.startswith(APP_PREFIX) else ""


def check_any_workspace_id(raw: str) -> str | None:
    """As ``check_workspace_id``, and ``_app/<app>``, a system workspace, is accepted too (128 characters in all)."""
    if not raw.startswith(APP_PREFIX):
        return check_workspace_id(raw)
    if len(raw) > WORKSPACE_ID_BYTES_MAX or not _NAME.match(raw[len(APP_PREFIX) :]):
        return "the app " + _NAME_RULE
    return None
