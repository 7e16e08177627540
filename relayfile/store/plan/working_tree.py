"""The workspace in the middle of a plan: what was loaded, and what the members so far made of it.

Owns the drafts. Rows that were loaded are never changed: a file that was touched has a new row here, an object a draft.
`begin` and `undo` take back everything since a fold began, for a fold that cannot be decided.
"""

from typing import Final

from relayfile import paths
from relayfile.model import Failure
from relayfile.store.plan.directories import Directories
from relayfile.store.plan.identity import ObjectDraft
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.room import Room
from relayfile.store.plan.rows import NO_FILE, FileRow, ObjectKey
from relayfile.store.plan.slice import Slice
from relayfile.store.plan.verdict import Cause

ELIDED: Final = -1
"""Content id of a content that was not sent. Contents that the plan brings have ids below it, stored ones from 0."""
_FIRST_NEW: Final = -2
_SHOWN_CHARACTERS_MAX: Final = 200


class WorkingTree:
    """Files, directories and objects of one workspace while one entry is planned."""

    __slots__ = (
        "_contents", "_known", "_saved", "_undo", "directories", "files", "is_signalled", "limits", "loaded", "now_us",
        "objects", "renamed", "room", "touched",
    )  # fmt: skip

    def __init__(self, loaded: Slice, limits: PlanLimits, now_us: int = 0) -> None:
        """`now_us` is needed only where there are operations."""
        self.loaded = loaded
        self.limits = limits
        self.now_us = now_us
        self.is_signalled = False
        """Perhaps something is to be fetched."""
        self.renamed: dict[str, str] = {}
        """New path -> old path of files that were moved while they were bound to no object."""
        self.directories = Directories(loaded.directories)
        self.room = Room(loaded.workspace, loaded.directories.get(paths.ROOT), limits)
        self.files: dict[str, FileRow | None] = {}
        """What stands at each touched path now; revisions and new content ids are given when the plan is settled."""
        self.touched: dict[str, Cause] = {}
        """Path -> what touched it last, in order of the last touch: an order in which nothing is ever
        created below a file or over a directory."""
        self.objects: dict[ObjectKey, ObjectDraft] = {}
        self._contents: list[bytes] = []
        self._known: dict[int, bytes] = {}
        self._undo: list[tuple[str, FileRow | None, Cause | None]] | None = None
        self._saved: list[tuple[ObjectDraft, ObjectDraft]] = []

    # --- objects

    def object(self, key: ObjectKey) -> ObjectDraft:
        """The draft of an object, known or not."""
        draft = self.objects.get(key)
        if draft is None:
            draft = self.objects[key] = ObjectDraft(key, self.loaded.objects.get(key))
        return draft

    def own_file(self, subject: ObjectDraft) -> FileRow | None:
        """The file that is bound to `subject`."""
        if subject.path is None:
            return None
        file = self.file(subject.path)
        return file if subject.owns(file) else None

    def displace(self, holder: ObjectDraft) -> None:
        """Another object takes the path of `holder`, which keeps its identity."""
        if self._undo is not None:
            self._saved.append((holder, holder.copy()))
        holder.displaced_from, holder.path, holder.changed = holder.path, None, True
        holder.signalled = False

    # --- files

    def file(self, path: str) -> FileRow | None:
        """What stands at `path` now."""
        file = self.files.get(path, NO_FILE)
        return self.loaded.files.get(path) if file is NO_FILE else file

    def set_file(self, path: str, file: FileRow | None, cause: Cause | None) -> None:
        """Put `file` (None: nothing) at `path`, where nothing is in the way."""
        before = self.file(path)
        if self._undo is not None:
            self._undo.append((path, before, self.touched.get(path)))
        if (before is None) is not (file is None):
            number = -1 if file is None else 1
            self.directories.count(self.directories.holding(path), number)
            self.room.files += number
        self.room.bytes += (0 if file is None else file.size_bytes) - (0 if before is None else before.size_bytes)
        self.files[path] = file
        self.touched.pop(path, None)
        if cause is not None:
            self.touched[path] = cause

    def require_room(self, files: int, size_bytes: int) -> None:
        """`QuotaExceeded` when the workspace may not grow by as much. What shrinks is welcome however full it is."""
        failure = self.room.lacks(files, size_bytes)
        if failure is not None:
            raise failure

    def obstacle(self, path: str, leaving: str | None) -> Failure | None:
        """Why no file can stand at `path`, or None. A file at `leaving` is on its way there, and not in the way."""
        why = paths.check_write_path(path)
        if why is not None:
            return Failure("INVALID_PATH", f"The path {_shown(path)} {why}.")
        below = leaving is not None and leaving.startswith(path + "/")
        if self.directories.is_directory(path, 1 if below else 0):
            return Failure("PATH_IS_DIRECTORY", f"There are files below {_shown(path)}.")
        if self.directories.holding(path).files:
            return None  # something lives beside it, so that everything above is a directory
        for above in paths.ancestors(path):
            if above != leaving and above != paths.ROOT and self.file(above) is not None:
                return Failure("PATH_UNDER_FILE", f"{_shown(above)} is a file.")
        return None

    # --- contents

    def add_content(self, content: bytes) -> int:
        """The id by which a row of this plan refers to a new content."""
        self._contents.append(content)
        return _FIRST_NEW - len(self._contents) + 1

    def know_content(self, content_id: int, content: bytes) -> None:
        """A change brought what is stored already: a patch that follows need not load it."""
        if content_id >= 0:
            self._known[content_id] = content

    def content(self, content_id: int) -> bytes:
        """A content that was loaded, known or added."""
        if content_id < 0:
            return self._contents[_FIRST_NEW - content_id]
        known = self._known.get(content_id)
        return self.loaded.contents[content_id] if known is None else known

    # --- folds that cannot be decided

    def begin(self, subject: ObjectDraft) -> None:
        """Remember everything from here on."""
        self._undo = []
        self._saved = [(subject, subject.copy())]

    def undo(self) -> None:
        """Take back everything since `begin`."""
        steps, self._undo = self._undo or [], None
        for path, file, cause in reversed(steps):
            self.set_file(path, file, cause)
        for draft, kept in reversed(self._saved):
            draft.restore(kept)

    def keep(self) -> None:
        """What happened since `begin` stands."""
        self._undo = None


def _shown(path: str) -> str:
    return repr(path if len(path) <= _SHOWN_CHARACTERS_MAX else path[:_SHOWN_CHARACTERS_MAX] + "...")
