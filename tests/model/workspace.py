"""What a workspace should hold, as plain dictionaries and lists: files, and the events that tell of them.

Written from the documented rules alone and knows nothing of the store's planner. A mutation either changes the model or
is refused with the reason that the API tells.
"""

from dataclasses import dataclass, field, replace
from hashlib import sha256

MARKER = ".relayfile.acl"
CREATED, UPDATED, DELETED, ACCESS = "file_created", "file_updated", "file_deleted", "access_changed"
SUCCEEDED, FAILED, SUPERSEDED = "writeback_succeeded", "writeback_failed", "writeback_superseded"
AGENT, PROVIDER_ORIGIN, SYSTEM = "agent", "provider", "system"
MEDIA_TYPES = {"json": "application/json", "txt": "text/plain", "md": "text/markdown"}


@dataclass(frozen=True, slots=True)
class Tags:
    """A file's semantics in their canonical form."""

    properties: tuple[tuple[str, str], ...] = ()
    relations: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.properties or self.relations or self.permissions or self.comments)


NO_TAGS = Tags()


@dataclass(frozen=True, slots=True)
class File:
    """A file as it should be."""

    content: bytes
    content_type: str
    tags: Tags = NO_TAGS
    revision: int = 0
    origin: str = AGENT
    object_id: str = ""
    """Empty: bound to none."""
    is_stale: bool = False
    """A signal has told of newer content."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it should be told."""

    revision: int
    type: str
    path: str
    origin: str
    moved_to: str = ""
    moved_from: str = ""
    content_sha256: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Edit:
    """What an agent has changed: for whatever follows from it."""

    kind: str
    path: str
    before: File | None
    after: File | None
    revision: int
    moved_from: str = ""


class RefusedError(Exception):
    """The API answers with this reason, and nothing changes."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Write:
    """`WriteFile`, or an item of `WriteFiles`."""

    path: str
    content: bytes
    if_revision: int | None = None
    force: bool = False
    content_type: str = ""
    tags: Tags | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """`DeleteFile`, or an item of `WriteFiles`."""

    path: str
    if_revision: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """`MoveFile`, or an item of `WriteFiles`."""

    path: str
    to_path: str
    if_revision: int | None = None
    force: bool = False


Mutation = Write | Delete | Move


@dataclass(slots=True)
class Workspace:
    """The model."""

    files: dict[str, File] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    """Of agents, which nobody has looked at."""

    @property
    def revision(self) -> int:
        """Of the newest event."""
        return len(self.events)

    def tried(self, mutation: Mutation) -> tuple[int, bool, str]:
        """As `mutate`, with the reason of a refusal; empty: it was done."""
        try:
            return *self.mutate(mutation), ""
        except RefusedError as refusal:
            return 0, False, refusal.reason

    def mutate(self, mutation: Mutation) -> tuple[int, bool]:
        """(revision of the file, or of its removal; whether that changed anything). Raises `RefusedError`."""
        if isinstance(mutation, Write):
            return self._write(mutation)
        if isinstance(mutation, Delete):
            return self._delete(mutation)
        return self._move(mutation)

    def obstacle(self, path: str, leaving: str = "") -> bool:
        """Whether a directory is where the file would be, or a file where a directory of it would."""
        others = [each for each in self.files if each != leaving]
        return any(each.startswith(path + "/") or path.startswith(each + "/") for each in others)

    def put(self, path: str, file: File, origin: str, moved_from: str = "") -> File:
        """A file with the next revision, and its events."""
        old = self.files.get(path)
        self._tell_of_rules(path, old, file, origin)
        digest = sha256(file.content).digest()
        kind = CREATED if old is None else UPDATED
        self.tell(kind, path, origin, moved_from=moved_from, content_sha256=digest, size_bytes=len(file.content))
        new = replace(file, revision=self.revision, origin=origin)
        self.files[path] = new
        return new

    def remove(self, path: str, origin: str, moved_to: str = "") -> int:
        """The revision without the file at `path`."""
        self._tell_of_rules(path, self.files[path], None, origin)
        del self.files[path]
        self.tell(DELETED, path, origin, moved_to=moved_to)
        return self.revision

    def tell(
        self,
        kind: str,
        path: str,
        origin: str,
        *,
        moved_to: str = "",
        moved_from: str = "",
        content_sha256: bytes = b"",
        size_bytes: int = 0,
    ) -> None:
        """The next event."""
        revision = self.revision + 1
        self.events.append(Event(revision, kind, path, origin, moved_to, moved_from, content_sha256, size_bytes))

    def _write(self, write: Write) -> tuple[int, bool]:
        there = self.files.get(write.path)
        if there is None:
            given = write.content_type or media_type(write.path)
            new = File(write.content, given, write.tags or NO_TAGS)
        else:
            tags = there.tags if write.tags is None else write.tags
            new = replace(
                there, content=write.content, content_type=write.content_type or there.content_type, tags=tags
            )
            if new == there:
                return there.revision, False
        self._require(write, there)
        if there is None and self.obstacle(write.path):
            raise RefusedError("INVALID_PATH")
        file = self.put(write.path, new, AGENT)
        self.edits.append(Edit("write", write.path, there, file, file.revision))
        return file.revision, True

    def _delete(self, delete: Delete) -> tuple[int, bool]:
        there = self.files.get(delete.path)
        self._require(delete, there)
        revision = self.remove(delete.path, AGENT)
        self.edits.append(Edit("delete", delete.path, there, None, revision))
        return revision, True

    def _move(self, move: Move) -> tuple[int, bool]:
        there = self.files.get(move.path)
        self._require(move, there)
        assert there is not None, "required"
        if move.to_path in self.files:
            raise RefusedError("REVISION_CONFLICT")
        if self.obstacle(move.to_path, leaving=move.path):
            raise RefusedError("INVALID_PATH")
        self.remove(move.path, AGENT, moved_to=move.to_path)
        file = self.put(move.to_path, there, AGENT, moved_from=move.path)
        self.edits.append(Edit("move", move.to_path, there, file, file.revision, move.path))
        return file.revision, True

    def _require(self, mutation: Mutation, there: File | None) -> None:
        if mutation.force:
            if there is None and not isinstance(mutation, Write):
                raise RefusedError("FILE_NOT_FOUND")
            return
        if mutation.if_revision is None:
            raise RefusedError("PRECONDITION_REQUIRED")
        if there is None:
            if not (isinstance(mutation, Write) and mutation.if_revision == 0):
                raise RefusedError("FILE_NOT_FOUND")
        elif mutation.if_revision != there.revision:
            raise RefusedError("REVISION_CONFLICT")

    def _tell_of_rules(self, path: str, old: File | None, new: File | None, origin: str) -> None:
        before = set() if old is None else set(old.tags.permissions)
        after = set() if new is None else set(new.tags.permissions)
        directory, _, name = path.rpartition("/")
        if before == after:
            return
        if name == MARKER:
            self.tell(ACCESS, directory or "/", origin)
        elif old is not None and new is not None:
            self.tell(ACCESS, path, origin)


def media_type(path: str) -> str:
    """Of a file that came without one."""
    return MEDIA_TYPES.get(path.rpartition("/")[2].rpartition(".")[2], "application/octet-stream")


def tree_digest(files: dict[str, File], directory: str = "/") -> tuple[int, int, bytes]:
    """(files, bytes, digest) below a directory, as the API defines them."""
    prefix = directory.rstrip("/") + "/"
    below = {path: file for path, file in files.items() if path.startswith(prefix)}
    total = 0
    for path, file in below.items():
        name = path.encode()
        total += int.from_bytes(sha256(len(name).to_bytes(8) + name + sha256(file.content).digest()).digest())
    return len(below), sum(len(file.content) for file in below.values()), (total % 2**256).to_bytes(32)
