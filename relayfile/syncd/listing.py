"""Learning the whole tree anew: when the cursor is of no use (expired, another history), or a digest differs.

A listing tells what is there; that something is *not* there is believed only when the listing is proved complete: same
history, one revision from the first page to the last, and count and digest of what was received equal the directory's
own at that revision. Without the proof nothing is deleted.
"""

from dataclasses import dataclass
from typing import Final

from relayfile.errors import DataCorrupted, PermissionDenied, ServedLater
from relayfile.paths import contains
from relayfile.syncd.digest import EMPTY, TreeSum
from relayfile.syncd.open_mirror import OpenMirror
from relayfile.syncd.progress import Progress
from relayfile.syncd.rows import Cursor, RemoteFile

_PROOF_ATTEMPTS: Final = 3
_GONE_ROWS: Final = 5_000


@dataclass(frozen=True, slots=True)
class Listed:
    """What a listing came to."""

    at: Cursor
    """Of its first page: what happened later is told by the events after it."""
    total: TreeSum
    one_revision: bool
    changed_count: int


async def learn_all(mirror: OpenMirror, progress: Progress) -> bool:
    """Bring the journal's remote side up to the store by listing; True when every root was proved complete.

    The cursor then stands where the first listing began. Deletes are learned for proved roots only.
    """
    begun: Cursor | None = None
    proved = True
    for root in mirror.remote_paths:
        listed, complete = await _learn_root(mirror, root, progress)
        begun = begun or listed.at
        proved = proved and complete
    assert begun is not None, "a mirror has a remote path"
    mirror.journal.move_cursor(begun)
    return proved


async def _learn_root(mirror: OpenMirror, root: str, progress: Progress) -> tuple[Listed, bool]:
    first: Listed | None = None
    for _ in range(_PROOF_ATTEMPTS):
        listed = await _list(mirror, root, progress)
        first = first or listed
        try:
            held = await mirror.feed.held(root)
        except (ServedLater, PermissionDenied):
            return first, False  # nothing to prove it by
        if listed.one_revision and held.at == listed.at and held.total == listed.total:
            while gone := mirror.journal.listing.unnamed(root, _GONE_ROWS):
                mirror.journal.learn([RemoteFile(path, listed.at.revision, None) for path in gone], None)
            return first, True
    assert first is not None, "there was an attempt"
    return first, False


async def _list(mirror: OpenMirror, root: str, progress: Progress) -> Listed:
    journal = mirror.journal
    journal.listing.start()
    first: Cursor | None = None
    one_revision = True
    total = EMPTY
    changed = 0
    last = ""
    async for page in mirror.feed.list_tree(root):
        progress.wire_bytes += page.ByteSize()
        at = Cursor(page.revision, page.history_id)
        first = first or at
        one_revision = one_revision and at == first
        if at.history_id != first.history_id:
            raise DataCorrupted(what="the store changed its history in the middle of a listing")
        metas = [entry.file for entry in page.entries]
        for meta in metas:
            if meta.path <= last or not contains(root, meta.path):
                raise DataCorrupted(what=f"the store lists {meta.path!r} after {last!r}, below {root!r}")
            last = meta.path
            total = total.with_file(meta.path, meta.content_sha256, meta.size_bytes)
        known = journal.load([meta.path for meta in metas])
        changes = [
            RemoteFile(meta.path, meta.revision, meta.content_sha256, meta.size_bytes)
            for meta in metas
            if (row := known.get(meta.path)) is None
            or (row.remote_hash, row.revision) != (meta.content_sha256, meta.revision)
        ]
        journal.listing.named([meta.path for meta in metas])
        journal.learn(changes, None)
        changed += len(changes)
        progress.total = (progress.total[0] + len(metas), progress.total[1] + sum(meta.size_bytes for meta in metas))
    if first is None:
        raise DataCorrupted(what="the store answered a listing without a page")
    return Listed(first, total, one_revision, changed)
