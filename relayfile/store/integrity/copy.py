"""Copies of a node's data: what is told while one is made, and what a finished one says of itself. Pure values."""

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

MANIFEST_NAME: Final = "backup.json"
FORMAT: Final = 1


class CopyProgress(NamedTuple):
    """How far a copy is."""

    step: str
    done_bytes: int
    total_bytes: int


class CopiedWorkspace(NamedTuple):
    """A workspace whose digest was recounted in the copy."""

    workspace_id: str
    revision: int
    history_id: str
    file_count: int
    total_bytes: int
    digest: bytes


class Manifest(msgspec.Struct, frozen=True):
    """What stands beside a copy, in `backup.json`. Fields are only ever added."""

    backup_id: str
    node_index: int
    node_count: int
    cluster_id: str
    version: str
    """The release that made it."""
    snapshot_us: int
    file_name: str
    size_bytes: int
    sha256: str
    """Of the file, in hexadecimal."""
    workspace_count: int
    format: int = FORMAT


Copied: TypeAlias = CopyProgress | CopiedWorkspace | Manifest
"""Progress; verified workspaces; last and once, what the copy is."""


class Copier(Protocol):
    """Copies one node's data while it runs."""

    def copy(self, target: Path, backup_id: str) -> AsyncGenerator[Copied, None]:
        """Make `target`, a directory that does not exist, with a verified copy in it. When it fails, or is ended early,
        nothing is left. `DataCorrupted` when the copy does not agree with itself."""
        ...
