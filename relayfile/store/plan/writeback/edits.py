"""What agents' edits and providers' signals make of an object's operations.

Owns folding: what was not claimed yet goes with the next edit as one operation, under a new id; the older one ends as
`superseded`. And when a new operation may be claimed: the first of a quiet object at once, a delete late enough to be
taken back. Pure.
"""

from collections.abc import Sequence
from typing import NamedTuple

from relayfile.model import NO_SEMANTICS, Semantics
from relayfile.store.plan.rows import FileRow, ObjectKey
from relayfile.store.plan.writeback import lifecycle
from relayfile.store.plan.writeback.queue import OperationQueue, is_edit
from relayfile.store.plan.writeback.rows import (
    CONTENT_OF_FILE,
    UNFINISHED,
    OperationKind,
    OperationRow,
    OperationState,
    ProviderKnown,
)

_WRITE, _DELETE, _MOVE, _FETCH = OperationKind.WRITE, OperationKind.DELETE, OperationKind.MOVE, OperationKind.FETCH


class Edit(NamedTuple):
    """One edit of a file below a provider's directory, as the plan of its revision knows it."""

    kind: OperationKind
    key: ObjectKey
    """The object; of a file without one `p:<path>`, of a move with the path before."""
    path: str
    """Of a move the new one."""
    revision: int
    base_revision: int
    """The file's before the edit; 0 for a new one."""
    actor: str
    is_draft: bool = False
    """The file has no object."""
    moved_from: str = ""
    content_sha256: bytes = b""
    size_bytes: int = 0
    content_type: str = ""
    semantics: Semantics = NO_SEMANTICS
    known: ProviderKnown | None = None
    """What the file was before, where that came from the provider."""
    correlation_id: str = ""
    traceparent: str = ""


def queue_edit(queue: OperationQueue, edit: Edit) -> OperationRow | None:
    """Make the operation of an edit, with what waits of its object; None: the provider need not hear of it."""
    if _meets_another(queue, edit):
        # What is on its way of either draft ends as its own: the one left is deleted, the other one gets its content.
        left = edit._replace(kind=_DELETE, path=edit.moved_from, moved_from="", content_sha256=b"", size_bytes=0)
        queue_edit(queue, left._replace(content_type="", semantics=NO_SEMANTICS))
        there = ObjectKey(edit.key.provider, "p:" + edit.path)
        edit = edit._replace(kind=_WRITE, key=there, moved_from="", base_revision=0, known=None)
    key = _follow_draft(queue, edit)
    older = queue.unclaimed_edit(key)
    if _is_needless(queue, key, older, edit):
        if older is not None:
            queue.put(lifecycle.canceled(older, queue.now_us))
        return None
    kind, moved_from = _folded(older, edit)
    base = edit if older is None else older
    known = edit.known or _known_of_others(queue.of(key)) if older is None else older.known
    row = OperationRow(
        operation_id=queue.new_id(),
        provider=key.provider,
        object_key=key.key,
        kind=kind,
        state=OperationState.PENDING,
        path=edit.path,
        revision=edit.revision,
        actor=edit.actor,
        created_us=queue.now_us,
        claimable_us=_claimable_us(queue, key, older, kind),
        moved_from=moved_from,
        is_draft=edit.is_draft,
        base_revision=base.base_revision,
        folded_count=1 if older is None else older.folded_count + 1,
        content_id=0 if kind is _DELETE else CONTENT_OF_FILE,
        content_sha256=edit.content_sha256,
        size_bytes=edit.size_bytes,
        content_type=edit.content_type,
        semantics=edit.semantics,
        known=known,
        correlation_id=edit.correlation_id,
        traceparent=edit.traceparent,
    )
    if older is not None:
        queue.put(lifecycle.superseded(older, row.operation_id, queue.now_us))
    queue.put(row)
    return row


def queue_again(queue: OperationQueue, row: OperationRow, file: FileRow | None) -> None:
    """Bring the current content to the provider of `row` once more; needless where an edit waits that will."""
    if queue.unclaimed_edit(row.key) is not None or (file is None and row.is_draft):
        return
    again = refreshed(row, file)._replace(
        operation_id=queue.new_id(),
        state=OperationState.PENDING,
        created_us=queue.now_us,
        claimable_us=queue.not_before_us(row.key),
        base_revision=row.revision,
        folded_count=1,
        claim_number=0,
        claimed_by="",
        claimed_us=None,
        claim_expire_us=None,
        claim_request="",
        attempt_count=0,
        is_blocked=False,
        fault=None,
        superseded_by="",
        quarantine_id="",
        result=b"",
        result_sha256=b"",
        is_owed=False,
        ended_us=None,
        version=0,
    )
    queue.put(again)


def refreshed(row: OperationRow, file: FileRow | None) -> OperationRow:
    """The operation with what the file is now; None: it is gone."""
    if file is None:
        return row._replace(
            kind=_DELETE, moved_from="", content_id=0, content_sha256=b"", size_bytes=0, content_type="",
            semantics=NO_SEMANTICS,
        )  # fmt: skip
    return row._replace(
        kind=_WRITE,
        path=file.path,
        moved_from="",
        revision=max(file.revision, row.revision),
        content_id=CONTENT_OF_FILE,
        content_sha256=file.content_sha256,
        size_bytes=file.size_bytes,
        content_type=file.content_type,
        semantics=file.semantics,
    )


def put_back(queue: OperationQueue, row: OperationRow) -> None:
    """A claim has ended without success, and `row` is what that makes of it.

    Where it is pending again and the object was edited since, the two fold.
    """
    newer = queue.unclaimed_edit(row.key) if row.kind is not _FETCH else queue.unclaimed_fetch(row.key)
    queue.put(row)
    if row.state is not OperationState.PENDING or newer is None:
        return
    if row.kind is _FETCH:
        queue.put(lifecycle.canceled(newer, queue.now_us))
        queue.put(row._replace(folded_count=row.folded_count + newer.folded_count))
    elif newer.kind is _DELETE and newer.is_draft:
        # Nobody knows an object that could be deleted.
        queue.put(lifecycle.canceled(row, queue.now_us))
        queue.put(lifecycle.canceled(newer, queue.now_us))
    else:
        moved_from = "" if newer.kind is _DELETE else row.moved_from or newer.moved_from
        is_move = newer.kind is _MOVE and row.kind is _MOVE and moved_from != newer.path
        queue.put(lifecycle.superseded(row, newer.operation_id, queue.now_us))
        queue.put(
            newer._replace(
                kind=newer.kind if newer.kind is _DELETE or is_move else _WRITE,
                moved_from="" if moved_from == newer.path else moved_from,
                base_revision=row.base_revision,
                folded_count=row.folded_count + newer.folded_count,
                known=row.known,
                claimable_us=max(row.claimable_us, newer.claimable_us),
            )
        )


def queue_fetch(queue: OperationQueue, row: OperationRow) -> None:
    """Make a fetch, or count it in the one that waits already."""
    waiting = queue.unclaimed_fetch(row.key)
    if waiting is None:
        queue.put(row._replace(claimable_us=queue.not_before_us(row.key)))
    else:
        queue.put(
            waiting._replace(
                path=row.path,
                folded_count=waiting.folded_count + 1,
                correlation_id=row.correlation_id,
                traceparent=row.traceparent,
            )
        )


def new_fetch(operation_id: str, key: ObjectKey, path: str, revision: int, now_us: int) -> OperationRow:
    """Brings an object's content from its provider."""
    return OperationRow(
        operation_id,
        key.provider,
        key.key,
        _FETCH,
        OperationState.PENDING,
        path,
        revision,
        key.provider,
        now_us,
        now_us,
    )


def cancel_fetch(queue: OperationQueue, key: ObjectKey) -> None:
    """Newer content of the provider makes a fetch needless that nobody has begun."""
    waiting = queue.unclaimed_fetch(key)
    if waiting is not None:
        queue.put(lifecycle.canceled(waiting, queue.now_us))


def fold_followers(queue: OperationQueue, key: ObjectKey) -> None:
    """Edits of a draft have joined those of its object: of what nobody has claimed the newest stands for all."""
    waiting = [row for row in queue.unfinished(key) if is_edit(row) and row.state is not OperationState.CLAIMED]
    for older in waiting[:-1]:
        newest = queue.get(waiting[-1].operation_id) or waiting[-1]
        queue.put(lifecycle.superseded(older, newest.operation_id, queue.now_us))
        queue.put(
            newest._replace(
                base_revision=older.base_revision,
                folded_count=newest.folded_count + older.folded_count,
                claimable_us=max(newest.claimable_us, older.claimable_us),
            )
        )


def _meets_another(queue: OperationQueue, edit: Edit) -> bool:
    """Whether a draft goes where another one was whose operations have not ended: two drafts are not one object."""
    if not (edit.is_draft and edit.moved_from):
        return False
    return bool(queue.unfinished(ObjectKey(edit.key.provider, "p:" + edit.path)))


def _follow_draft(queue: OperationQueue, edit: Edit) -> ObjectKey:
    """The object of the edit. The operations of a file without one are known by its path, and go where it goes."""
    if not (edit.is_draft and edit.moved_from):
        return edit.key
    key = ObjectKey(edit.key.provider, "p:" + edit.path)
    for row in queue.unfinished(edit.key):
        queue.put(row._replace(object_key=key.key))
    return key


def _is_needless(queue: OperationQueue, key: ObjectKey, older: OperationRow | None, edit: Edit) -> bool:
    """Whether the provider need not hear of the edit: what it takes back was never told."""
    if edit.kind is _DELETE and edit.is_draft:
        return not any(row.state is OperationState.CLAIMED for row in queue.unfinished(key))
    return (
        edit.kind is _MOVE and older is not None and older.kind is _MOVE and older.moved_from == edit.path
        # What is folded in the older one is moves alone: a write would have made it a write.
    )  # fmt: skip


def _folded(older: OperationRow | None, edit: Edit) -> tuple[OperationKind, str]:
    """(kind, path before) of an edit together with the one that waits. A write that was moved stays a write."""
    if edit.kind is _DELETE:
        return _DELETE, ""
    moved_from = edit.moved_from if edit.kind is _MOVE else ""
    if older is not None and older.kind is not _DELETE:
        moved_from = older.moved_from or moved_from
    if edit.is_draft or moved_from == edit.path:
        moved_from = ""
    if edit.kind is _MOVE and not edit.is_draft and (older is None or older.kind is _MOVE):
        return _MOVE, moved_from
    return _WRITE, moved_from


def _known_of_others(rows: Sequence[OperationRow]) -> ProviderKnown | None:
    """What the provider has, as far as the object's earlier operations tell."""
    for row in reversed(rows):
        if row.state is OperationState.SUCCEEDED and row.kind is not _FETCH:
            deleted = row.kind is _DELETE
            return ProviderKnown(row.content_sha256, row.size_bytes, row.content_type, deleted)
        if row.state in UNFINISHED and row.known is not None:
            return row.known
    return None


def _claimable_us(queue: OperationQueue, key: ObjectKey, older: OperationRow | None, kind: OperationKind) -> int:
    start_us = queue.not_before_us(key)
    if older is not None and older.fault is not None:
        start_us = max(start_us, older.claimable_us)  # the provider asked for patience, and still does
    if kind is _DELETE:
        start_us = max(start_us, queue.now_us + queue.limits.delete_delay_us)
    return start_us
