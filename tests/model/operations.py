"""What should become of agents' edits below a provider's directory: the operations of each object, as plain values.

Written from the documented rules alone. Operations are in the order in which they are made, which is the order of the
ids that the store chooses.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256

from tests.model.operation import (
    ATTEMPTS_MAX,
    CANCELED,
    CLAIMED,
    DEAD,
    DELETE,
    DELETES_MAX,
    DELETES_US,
    DIRECTORY,
    DONE,
    EVENTS,
    FETCH,
    PENDING,
    QUARANTINED,
    REPLACED,
    SECOND_US,
    UNCLAIMED,
    UNFINISHED,
    Operation,
)
from tests.model.workspace import SYSTEM, Edit, File, Workspace


@dataclass(slots=True)
class Operations:
    """All operations of a workspace."""

    workspace: Workspace
    now_us: Callable[[], int]
    made: list[Operation] = field(default_factory=list)
    let_go: Callable[[Collection[str], int | None], None] = lambda keys, answered_us: None
    """What waits for the end of edits of these objects becomes files, before the ends are told; what is older than the
    provider's answer does not."""
    _ends: list[Operation] = field(default_factory=list)
    _edited: list[str] = field(default_factory=list)
    """Objects of the edits that were taken last."""

    # --- agents

    def take_edits(self) -> None:
        """What the edits of one commit make."""
        old = list(self.made)
        for edit in self.workspace.edits:
            for kind, key, path, moved_from, base_revision in _wanted(edit):
                self._queue(edit, kind, key, path, moved_from, base_revision)
                self._edited.append(key)
        self.workspace.edits.clear()
        self._quarantine(old)
        self.settle()

    def free_taken_back(self) -> None:
        """What waited for edits that were taken back, or set aside, waits no longer."""
        self.let_go(tuple(self._edited), None)
        self._edited.clear()

    # --- signals

    def signal(self, key: str, path: str, revision: int) -> None:
        """The object's content is to be fetched."""
        waiting = self.waiting_fetch(key)
        if waiting is not None:
            waiting.path, waiting.folded = path, waiting.folded + 1
        else:
            self._make(Operation(key, FETCH, path, revision, 0, self._not_before_us(key)))
        self.settle()

    def waiting_fetch(self, key: str) -> Operation | None:
        """The fetch of an object that nobody has begun."""
        return next((each for each in self._of(key) if each.kind == FETCH and each.state == PENDING), None)

    def cancel_fetch(self, key: str) -> None:
        """It is needless."""
        waiting = self.waiting_fetch(key)
        if waiting is not None:
            self._cancel(waiting)
            self.settle()

    # --- workers

    def claimable(self) -> list[Operation]:
        """What a worker that takes everything gets, in no particular order where more is claimable than it may have."""
        now_us = self.now_us()
        return [
            each for each in self.made if each.state == PENDING and not each.is_blocked and each.claimable_us <= now_us
        ]

    def claimed(self) -> list[Operation]:
        """What workers have."""
        return [each for each in self.made if each.state == CLAIMED]

    def claim(self, row: Operation, lease_us: int) -> None:
        """A worker has it."""
        row.state, row.claimed_us, row.expire_us = CLAIMED, self.now_us(), self.now_us() + lease_us
        row.claim_number += 1
        row.attempts += 1

    def holds(self, row: Operation, number: int) -> bool:
        """Whether the claim lasts."""
        return row.state == CLAIMED and row.claim_number == number and row.expire_us > self.now_us()

    def late(self, row: Operation, number: int) -> bool:
        """A success whose claim has ended; True: it is a repeat, and was taken."""
        is_repeat = row.state == DONE and row.claim_number == number
        if not is_repeat and row.kind != FETCH:
            self._remember(row)
        self.settle()
        return is_repeat

    def succeed(self, row: Operation, answered_us: int | None, *, is_placed: bool = True) -> None:
        """The provider did it. `is_placed`: what it made of it could become the file."""
        if row.kind == FETCH and not is_placed:
            self._end(row, DEAD)
            self.settle()
            return
        self._end(row, DONE)
        if row.is_owed:
            self._again(row)
        self.let_go((row.key,), answered_us)
        self.settle()

    def follow(self, draft: str, key: str, draft_path: str, path: str) -> None:
        """The provider has named a draft: what is on its way of it is the object's now."""
        for row in self._unfinished(draft):
            row.key = key
            if row.path == draft_path:
                row.path = path
        waiting = [each for each in self._unfinished(key) if each.state in UNCLAIMED and each.kind != FETCH]
        for older in waiting[:-1]:
            newest = waiting[-1]
            newest.folded += older.folded
            newest.base_revision = older.base_revision
            newest.claimable_us = max(newest.claimable_us, older.claimable_us)
            self._end(older, REPLACED)

    def fail(self, row: Operation, number: int, retry_after_us: int | None) -> bool:
        """It did not; None: it never will."""
        if not self.holds(row, number):
            return False
        if retry_after_us is None or row.attempts >= ATTEMPTS_MAX:
            self._end(row, DEAD)
        else:
            self._put_back(row, self.now_us() + retry_after_us)
        row.is_faulted = True
        self.let_go((row.key,), None)
        self.settle()
        return True

    def release(self, row: Operation, number: int, delay_us: int) -> bool:
        """It is given back untried."""
        if not self.holds(row, number):
            return False
        self._put_back(row, self.now_us() + delay_us)
        row.attempts -= 1
        self.let_go((row.key,), None)
        self.settle()
        return True

    def renew(self, row: Operation, number: int, lease_us: int) -> bool:
        """It lasts longer."""
        if not self.holds(row, number):
            return False
        row.expire_us = max(row.expire_us, self.now_us() + lease_us)
        return True

    def expire(self) -> None:
        """Claims whose time is over."""
        late = [row for row in self.claimed() if row.expire_us <= self.now_us()]
        for row in late:
            if row.attempts >= ATTEMPTS_MAX:
                self._end(row, DEAD)
                row.is_faulted = True
            else:
                self._put_back(row, self.now_us())
        self.let_go({row.key for row in late}, None)
        self.settle()

    # --- people

    def cancel(self, row: Operation) -> str:
        """What `CancelOperations` counts it as."""
        if row.state == CLAIMED:
            return "claimed"
        if row.state not in UNCLAIMED:
            return "skipped"
        self._cancel(row)
        self.let_go((row.key,), None)
        self.settle()
        return "canceled"

    def replay(self, row: Operation) -> bool:
        """Whether it was dead-lettered."""
        if row.state != DEAD:
            return False
        waiting = self.waiting_fetch(row.key) if row.kind == FETCH else self._unclaimed(row.key)
        if waiting is not None:
            self._end(row, REPLACED)
        else:
            later = [each for each in self._edits(row.key) if self.made.index(each) > self.made.index(row)]
            if later and row.kind != FETCH:
                self._refresh(row, self._file_of(row))
            row.state, row.attempts, row.claimable_us = PENDING, 0, self._not_before_us(row.key)
            row.ended_us = None
        self.settle()
        return True

    def approve(self, row: Operation) -> bool:
        """Whether it was quarantined."""
        if row.state != QUARANTINED:
            return False
        row.state, row.claimable_us = PENDING, self._not_before_us(row.key)
        self.settle()
        return True

    # ---

    def settle(self) -> None:
        """The events of what has ended, and which operation of each object may be claimed."""
        for row in self._ends:
            content = row.content or b""
            digest = b"" if row.content is None else sha256(content).digest()
            self.workspace.tell(
                EVENTS[row.state], row.path, SYSTEM, content_sha256=digest, size_bytes=len(content)
            )  # fmt: skip
        self._ends.clear()
        for key in dict.fromkeys(each.key for each in self.made):
            for place, row in enumerate(self._unfinished(key)):
                if row.is_blocked and not place:
                    row.claimable_us = max(row.claimable_us, self._not_before_us(key))
                row.is_blocked = place > 0

    def _queue(self, edit: Edit, kind: str, key: str, path: str, moved_from: str, base_revision: int) -> None:
        is_draft = key.startswith("p:")
        if is_draft and kind == "move" and self._unfinished("p:" + path):
            # Another draft was there, and is still on its way: the two stay two.
            self._queue(edit, "delete", key, moved_from, "", base_revision)
            kind, key, moved_from, base_revision = "write", "p:" + path, "", 0
        if is_draft and kind == "move":
            for row in self._unfinished(key):
                row.key = "p:" + path
            key = "p:" + path
        older = self._unclaimed(key)
        if kind == "delete" and is_draft:
            is_needless = not any(row.state == CLAIMED for row in self._unfinished(key))
        else:
            is_needless = kind == older_kind(older) == "move" and older is not None and older.moved_from == path
        if is_needless:
            if older is not None:
                self._cancel(older)
            return
        kind, moved_from = _folded(older, kind, path, moved_from, is_draft=is_draft)
        start_us = self._not_before_us(key)
        if older is not None and older.is_faulted:
            start_us = max(start_us, older.claimable_us)
        if kind == "delete":
            start_us = max(start_us, self.now_us() + 10 * SECOND_US)
        content = None if kind == "delete" or edit.after is None else edit.after.content
        row = Operation(key, kind, path, edit.revision, base_revision, start_us, moved_from, content)
        if older is not None:
            row.folded, row.base_revision = older.folded + 1, older.base_revision
            self._end(older, REPLACED)
        self._make(row)

    def _quarantine(self, old: list[Operation]) -> None:
        """Hold back all unclaimed deletes when there are too many, not counting those that were approved."""
        deletes = [each for each in self.made if each.kind == DELETE]
        new = [each for each in deletes if each not in old and each.state == PENDING]
        after_us = self.now_us() - DELETES_US
        recent = [
            each
            for each in deletes
            if each in old and each.made_us > after_us and (each.state == QUARANTINED or not each.was_quarantined)
        ]
        if new and len(new) + len(recent) > DELETES_MAX:
            for each in deletes:
                if each.state == PENDING:
                    each.state, each.was_quarantined = QUARANTINED, True

    def _put_back(self, row: Operation, claimable_us: int) -> None:
        """A claim has ended without success: what was edited since is folded with it."""
        newer = self.waiting_fetch(row.key) if row.kind == FETCH else self._unclaimed(row.key)
        row.state, row.claimable_us = PENDING, claimable_us
        if newer is None:
            return
        if row.kind == FETCH:
            self._cancel(newer)
            row.folded += newer.folded
            return
        if newer.kind == "delete" and newer.is_draft:
            self._cancel(row)
            self._cancel(newer)
            return
        moved_from = "" if newer.kind == "delete" else row.moved_from or newer.moved_from
        if newer.kind != "delete" and not (newer.kind == row.kind == "move" and moved_from != newer.path):
            newer.kind = "write"
        newer.moved_from = "" if moved_from == newer.path else moved_from
        newer.base_revision = row.base_revision
        newer.folded += row.folded
        newer.claimable_us = max(newer.claimable_us, claimable_us)
        self._end(row, REPLACED)

    def _remember(self, row: Operation) -> None:
        later = [
            each
            for each in self._edits(row.key)
            if (each.revision, self.made.index(each)) > (row.revision, self.made.index(row))
        ]
        if any(each.state == DONE for each in later):
            self._again(row)
            return
        for each in later:
            if each.state == CLAIMED:
                each.is_owed = True

    def _again(self, row: Operation) -> None:
        file = self._file_of(row)
        if self._unclaimed(row.key) is not None or (file is None and row.is_draft):
            return
        again = Operation(row.key, row.kind, row.path, row.revision, row.revision, self._not_before_us(row.key))
        self._refresh(again, file)
        self._make(again)

    def _make(self, row: Operation) -> None:
        row.made_us = self.now_us()
        self.made.append(row)

    def _refresh(self, row: Operation, file: File | None) -> None:
        row.moved_from = ""
        if file is None:
            row.kind, row.content = "delete", None
        else:
            row.kind, row.content, row.revision = "write", file.content, max(file.revision, row.revision)
            if not row.is_draft:
                row.path = next(path for path, each in self.workspace.files.items() if each is file)

    def _file_of(self, row: Operation) -> File | None:
        if row.is_draft:
            return self.workspace.files.get(row.path)
        return next((each for each in self.workspace.files.values() if each.object_id == row.key[2:]), None)

    def _end(self, row: Operation, state: str) -> None:
        row.state, row.is_blocked, row.ended_us = state, False, self.now_us()
        self._ends.append(row)

    def _cancel(self, row: Operation) -> None:
        row.state, row.is_blocked, row.ended_us = CANCELED, False, self.now_us()

    def _edits(self, key: str) -> list[Operation]:
        return [each for each in self._of(key) if each.kind != FETCH]

    def _of(self, key: str) -> list[Operation]:
        return [each for each in self.made if each.key == key]

    def _unfinished(self, key: str) -> list[Operation]:
        """In the order in which they are to be done."""
        found = [each for each in self._of(key) if each.state in UNFINISHED]
        return sorted(found, key=lambda each: (each.state != CLAIMED, each.revision, self.made.index(each)))

    def _unclaimed(self, key: str) -> Operation | None:
        found = [each for each in self._edits(key) if each.state in UNCLAIMED]
        assert len(found) <= 1, "the model folds"
        return found[0] if found else None

    def _not_before_us(self, key: str) -> int:
        claims = [each.claimed_us for each in self._of(key) if each.claimed_us is not None]
        return max([self.now_us(), *(at_us + SECOND_US for at_us in claims)])


def older_kind(row: Operation | None) -> str:
    """Of what waits; empty: nothing does."""
    return "" if row is None else row.kind


def _wanted(edit: Edit) -> list[tuple[str, str, str, str, int]]:
    """(kind, object, path, path before, revision before) of what a provider is to hear."""
    base_revision = 0 if edit.before is None else edit.before.revision
    file = edit.after or edit.before
    assert file is not None
    if file.object_id:
        return [(edit.kind, "o:" + file.object_id, edit.path, edit.moved_from, base_revision)]
    inside = edit.path.startswith(f"/{DIRECTORY}/")
    if edit.kind != "move":
        return [(edit.kind, "p:" + edit.path, edit.path, "", base_revision)] if inside else []
    was_inside = edit.moved_from.startswith(f"/{DIRECTORY}/")
    if inside and was_inside:
        return [("move", "p:" + edit.moved_from, edit.path, edit.moved_from, base_revision)]
    if was_inside:
        return [("delete", "p:" + edit.moved_from, edit.moved_from, "", base_revision)]
    return [("write", "p:" + edit.path, edit.path, "", 0)] if inside else []


def _folded(older: Operation | None, kind: str, path: str, moved_from: str, *, is_draft: bool) -> tuple[str, str]:
    """(kind, path before) of an edit together with what waits."""
    if kind == "delete":
        return kind, ""
    before = older.moved_from if older is not None and older.kind != "delete" else ""
    moved_from = "" if is_draft else before or moved_from
    if moved_from == path:
        moved_from = ""
    only_moved = kind == "move" and not is_draft and (older is None or older.kind == "move")
    return ("move" if only_moved else "write"), moved_from
