"""Whether each file has its content, its event and its object, and each object its file."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import partial
from hashlib import sha256

import apsw

from relayfile.store.engine import WorkspaceKey
from relayfile.store.integrity.finding import Check, Finding, Place, Tally
from relayfile.store.sqlite.audit.step import ROWS_PER_TURN, Look

FILES_PER_STEP = 1_000
CONTENT_BYTES_PER_STEP = 8 << 20

_WORKSPACE = "SELECT revision FROM workspace WHERE shard_id = ? AND workspace_id = ?"
_OLDEST = "SELECT min(revision) FROM event WHERE shard_id = ? AND workspace_id = ?"
_FILES = (
    "SELECT f.path, f.revision, f.content_id, f.content_sha256, f.size_bytes, f.provider, f.object_key,"
    " length(c.data), o.path, e.path, e.content_sha256"
    " FROM file AS f LEFT JOIN content AS c ON c.content_id = f.content_id"
    " LEFT JOIN object AS o ON o.shard_id = f.shard_id AND o.workspace_id = f.workspace_id"
    " AND o.provider = f.provider AND o.object_key = f.object_key"
    " LEFT JOIN event AS e ON e.shard_id = f.shard_id AND e.workspace_id = f.workspace_id AND e.revision = f.revision"
    " WHERE f.shard_id = ? AND f.workspace_id = ? AND f.path > ? ORDER BY f.path LIMIT ?"
)
_OBJECTS = (
    "SELECT o.provider, o.object_key, o.path, o.deleted, f.provider, f.object_key FROM object AS o"
    " LEFT JOIN file AS f ON f.shard_id = o.shard_id AND f.workspace_id = o.workspace_id AND f.path = o.path"
    " WHERE o.shard_id = ? AND o.workspace_id = ? AND (o.provider, o.object_key) > (?, ?)"
    " ORDER BY o.provider, o.object_key LIMIT ?"
)
_CONTENTS = (
    "SELECT f.path, f.content_sha256, c.data FROM file AS f JOIN content AS c ON c.content_id = f.content_id"
    " WHERE f.shard_id = ? AND f.workspace_id = ? AND f.path > ? ORDER BY f.path"
)


def check_files(
    cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, checks: AbstractSet[Check], after: str = ""
) -> Look:
    """References, revisions and bindings of the files after the path `after`."""
    newest: int = cursor.execute(_WORKSPACE, key).get
    oldest: int | None = cursor.execute(_OLDEST, key).get
    path = ""
    count = 0
    for row in cursor.execute(_FILES, (*key, after, FILES_PER_STEP)):
        path = row[0]
        for check, reason, message in _of_file(row, newest, newest + 1 if oldest is None else oldest):
            if check in checks:
                yield Finding(check, *key, path, reason, message)
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    if Check.DIGESTS not in checks:
        tally.file_count += count  # else they are counted where directories are
    return partial(check_files, key=key, checks=checks, after=path) if count == FILES_PER_STEP else None


def _of_file(
    row: tuple[str, int, int, bytes, int, str, str, int | None, str | None, str | None, bytes | None],
    newest: int,
    oldest: int,
) -> Iterator[tuple[Check, str, str]]:
    path, revision, content_id, content_sha256, size_bytes, provider, object_key, kept_bytes, object_path = row[:9]
    event_path, event_sha256 = row[9:]
    if kept_bytes is None:
        yield Check.REFERENCES, "CONTENT_MISSING", f"content {content_id} is not there"
    elif kept_bytes != size_bytes:
        message = f"the file has {size_bytes} bytes, and its content {content_id} {kept_bytes}"
        yield Check.REFERENCES, "CONTENT_SIZE_MISMATCH", message
    if revision > newest:
        yield Check.REVISIONS, "REVISION_AHEAD", f"the file is at {revision}, and its workspace at {newest}"
    elif revision >= oldest and (event_path != path or event_sha256 != content_sha256):
        message = f"the event {revision} is not there" if event_path is None else f"the event is of {event_path!r}"
        yield Check.REVISIONS, "EVENT_MISMATCH", f"the file is at {revision}; {message}, or of another content"
    if object_key and object_path != path:
        message = f"the file is of {provider} {object_key!r}, and that is at {object_path!r}"
        yield Check.INDEXES, "OBJECT_BINDING_MISMATCH", message


def check_objects(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: tuple[str, str] = ("", "")) -> Look:
    """Whether what an object's row says of its path is so."""
    count = 0
    for provider, object_key, path, deleted, file_provider, file_key in cursor.execute(
        _OBJECTS, (*key, *after, FILES_PER_STEP)
    ):
        after = (provider, object_key)
        problem = ""
        if path is not None and deleted:
            problem = "it is deleted"
        elif path is not None and file_key is None:
            problem = "there is no file"
        elif path is not None and (file_provider, file_key) != after:
            problem = f"the file there is of {file_provider} {file_key!r}"
        if problem:
            subject, message = f"{provider} {object_key}", f"the object is at {path!r}, and {problem}"
            yield Finding(Check.INDEXES, *key, subject, "OBJECT_PATH_MISMATCH", message)
        count += 1
        if not count % ROWS_PER_TURN:
            yield None
    return partial(check_objects, key=key, after=after) if count == FILES_PER_STEP else None


def check_contents(cursor: apsw.Cursor, tally: Tally, key: WorkspaceKey, after: str = "") -> Look:
    """Whether the bytes of the files after `after` have their hash: about 8 MiB in one step."""
    size_bytes = 0
    contents = cursor.execute(_CONTENTS, (*key, after))
    for count, (after, content_sha256, data) in enumerate(contents, 1):
        if sha256(data).digest() != content_sha256:
            message = f"its content has the hash {sha256(data).hexdigest()}, not {content_sha256.hex()}"
            yield Finding(Check.CONTENT, *key, after, "HASH_MISMATCH", message)
        size_bytes += len(data)
        tally.content_count += 1
        tally.content_bytes += len(data)
        tally.place = Place(*key, after)
        yield None
        if size_bytes >= CONTENT_BYTES_PER_STEP or count >= FILES_PER_STEP:
            return partial(check_contents, key=key, after=after)
    return None
