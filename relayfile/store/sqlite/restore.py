"""Makes a node's data directory of a copy: verified first, and with a new history for every workspace.

What readers followed since the copy was made is not in it: with new histories their cursors are refused, and they
compare what they have instead of going on with revisions that mean something else.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import apsw
import msgspec

from relayfile.data_directory import sync_directory
from relayfile.errors import DataCorrupted, StartRefused
from relayfile.store.integrity.copy import FORMAT, MANIFEST_NAME, Manifest
from relayfile.store.sqlite.engine import DATABASE_NAME

COPIED_AT_ONCE = 1 << 20


class Restored(NamedTuple):
    """What a directory was made of."""

    manifest: Manifest
    workspace_count: int
    """Tombstones included."""


def read_manifest(copy: Path) -> Manifest:
    """What a copy says of itself. `StartRefused` when it is none, or a newer release's."""
    try:
        manifest = msgspec.json.decode((copy / MANIFEST_NAME).read_bytes(), type=Manifest)
    except FileNotFoundError:
        raise StartRefused(why=f"{copy} holds no {MANIFEST_NAME}: it is not a copy of a store node") from None
    except msgspec.DecodeError as error:
        raise StartRefused(why=f"{copy / MANIFEST_NAME} cannot be read ({error})") from None
    if manifest.format > FORMAT:
        raise StartRefused(why=f"{copy} was made by release {manifest.version}; restore it with that one")
    return manifest


def require_empty(directory: Path) -> None:
    """`StartRefused` when there is anything in it."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise StartRefused(why=f"{directory} is not empty; name a directory that is empty or not there")


def restore(copy: Path, directory: Path, new_id: Callable[[], str]) -> Restored:
    """Make `directory`, which is empty or not there. `DataCorrupted` when the copy is not what its manifest says."""
    manifest = read_manifest(copy)
    require_empty(directory)
    directory.mkdir(parents=True, exist_ok=True)
    making = directory / (DATABASE_NAME + ".restoring")
    try:
        _copy_verified(copy / manifest.file_name, making, manifest)
        count = _renew(making, new_id)
        making.rename(directory / DATABASE_NAME)
        sync_directory(directory)
    except BaseException:
        for leftover in directory.glob(making.name + "*"):
            leftover.unlink()
        raise
    return Restored(manifest, count)


def _copy_verified(source: Path, target: Path, manifest: Manifest) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as read, target.open("wb") as written:
        while data := read.read(COPIED_AT_ONCE):
            digest.update(data)
            written.write(data)
        written.flush()
        os.fsync(written.fileno())
    if digest.hexdigest() != manifest.sha256:
        raise DataCorrupted(what=f"{source} has the hash {digest.hexdigest()}, and its copy had {manifest.sha256}")
    shutil.copymode(source, target)


def _renew(path: Path, new_id: Callable[[], str]) -> int:
    connection = apsw.Connection(str(path))
    try:
        with connection:
            keys: list[tuple[int, str]] = list(connection.execute("SELECT shard_id, workspace_id FROM workspace"))
            connection.executemany(
                "UPDATE workspace SET history_id = ? WHERE shard_id = ? AND workspace_id = ?",
                [(new_id(), *key) for key in keys],
            )
    except apsw.Error as error:
        raise DataCorrupted(what=f"{path}: {error}") from error
    finally:
        connection.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return len(keys)
