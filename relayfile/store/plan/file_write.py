"""Writing, deleting and moving files by somebody who is no provider: a pure function of the rows, like `planner.plan`.

Owns `if_revision` (the table in the API's conventions), what stands in the way, the quota, and that the same bytes,
type and semantics change nothing. Mutations are planned in order, each on the result of the one before and with
revisions of its own; one that is refused leaves no trace. Together they do what they would do one by one; only rows
that do not outlive the entry are never written. A file that is written or moved stays bound to its object.
Refuses to know who may write and what else follows.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple, NoReturn, TypeAlias

from relayfile import media_types, paths
from relayfile.errors import (
    FileNotFound,
    InvalidPath,
    PermissionDenied,
    PreconditionRequired,
    RelayfileError,
    RevisionConflict,
    TooLarge,
)
from relayfile.model import NO_SEMANTICS, EventType, Failure, Origin, Semantics
from relayfile.store.plan.agent_edits import AgentEdit, EditKind
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import FilePut, Plan
from relayfile.store.plan.rows import EventRow, FileRow, ObjectKey
from relayfile.store.plan.rules import carried, carried_by_half, ruled_anew
from relayfile.store.plan.settle import access_event, account, same_file, stored_content
from relayfile.store.plan.slice import Needs, Slice
from relayfile.store.plan.working_tree import WorkingTree

MUST_NOT_EXIST = 0
"""As `if_revision` of a write."""
_OBSTACLES = {"PATH_IS_DIRECTORY": "is a directory", "PATH_UNDER_FILE": "lies below a file"}


class Author(NamedTuple):
    """Who mutates; a `Cause`."""

    origin: Origin
    actor: str = ""
    """The subject of the caller's token."""
    correlation_id: str = ""
    traceparent: str = ""
    provider: str = ""
    may_manage: bool = True
    """Whether the access rules of the file may be changed."""
    refusal: RelayfileError | None = None
    """Why this mutation was refused before it came here; it has its place among the results."""


class FileWrite(NamedTuple):
    """Create or replace a file."""

    path: str
    """Normalised, and one that may be written; so in every mutation."""
    content: bytes
    by: Author
    if_revision: int | None = None
    """None is refused unless `force`. `MUST_NOT_EXIST` only here."""
    force: bool = False
    """Whatever is there."""
    content_type: str = ""
    """Empty keeps that of the file, or is guessed from its name."""
    semantics: Semantics | None = None
    """None keep those of the file."""
    content_sha256: bytes = b""
    """When it is known already."""


class FileDelete(NamedTuple):
    """Delete a file."""

    path: str
    by: Author
    if_revision: int | None = None
    force: bool = False


class FileMove(NamedTuple):
    """Move a file to a path where none is."""

    path: str
    to_path: str
    by: Author
    if_revision: int | None = None
    force: bool = False


FileMutation: TypeAlias = FileWrite | FileDelete | FileMove


class FileResult(NamedTuple):
    """What became of a mutation that was not refused."""

    file: FileRow | None
    """As it is now, but for `content_id`; None after a delete."""
    revision: int
    """Of the file; of a delete the one that removed it."""
    changed: bool = True
    """False: it was like this already."""
    created: bool = False
    operation_id: str = ""
    """Of the write-back operation that carries it to the provider."""


class InTheWay(NamedTuple):
    """The file that a refused mutation met at another revision, for the preview in its refusal."""

    file: FileRow
    content: bytes | None
    """Of a file that this plan wrote; otherwise `file.content_id` is stored."""


class MutationsPlan(NamedTuple):
    """What an entry of mutations does."""

    plan: Plan | None
    """None: nothing changes."""
    results: list[FileResult | RelayfileError]
    """One for each mutation, in order."""
    edits: list[AgentEdit]
    """What agents changed, in order."""
    edit_places: list[int]
    """The place of each edit's mutation."""
    in_the_way: dict[int, InTheWay]
    """Place of a mutation that ended as `RevisionConflict` -> what it met."""


def write_needs(mutations: Iterable[FileMutation]) -> Needs:
    """What `plan_mutations` reads, as far as the mutations themselves name it."""
    needs = Needs()
    for mutation in mutations:
        for path in _paths_of(mutation):
            needs.files.add(path)
            needs.directories.add(path)
            needs.directories.update(paths.ancestors(path))
    return needs


def more_write_needs(mutations: Iterable[FileMutation], loaded: Slice) -> Needs:
    """What follows from what was loaded: the objects of files that go elsewhere, and what may lie above new ones."""
    needs = Needs()
    for mutation in mutations:
        for path in _paths_of(mutation):
            there = loaded.files.get(path)
            if there is None:
                needs.files.update(
                    above
                    for above in paths.ancestors(path)
                    if above != paths.ROOT and above not in loaded.directories and above not in loaded.files
                )
            elif there.object_key and not isinstance(mutation, FileWrite):
                needs.objects.add(ObjectKey(there.provider, there.object_key))
    return needs


def plan_mutations(
    workspace_id: str, mutations: Sequence[FileMutation], loaded: Slice, *, now_us: int, limits: PlanLimits
) -> MutationsPlan:
    """The effect of `mutations` on the rows in `loaded`, whose workspace exists. `loaded` is not changed.

    Refusals: `FileNotFound`, `InvalidPath`, `PermissionDenied`, `PreconditionRequired`, `QuotaExceeded`,
    `RevisionConflict`, `TooLarge`.
    """
    planner = MutationPlanner(workspace_id, loaded, now_us=now_us, limits=limits)
    planner.plan_next(mutations)
    return planner.finished()


def _paths_of(mutation: FileMutation) -> tuple[str, ...]:
    return (mutation.path, mutation.to_path) if isinstance(mutation, FileMove) else (mutation.path,)


class MutationPlanner:
    """Goes through the mutations of an entry, all at once or some at a time."""

    def __init__(self, workspace_id: str, loaded: Slice, *, now_us: int, limits: PlanLimits) -> None:
        assert loaded.workspace is not None, "nothing is written in a workspace that does not exist"
        self._tree = WorkingTree(loaded, limits)
        self._plan = Plan(workspace_id, loaded.workspace)
        self._results: list[FileResult | RelayfileError] = []
        self._edits: list[AgentEdit] = []
        self._edit_places: list[int] = []
        self._in_the_way: dict[int, InTheWay] = {}
        self._revision = loaded.workspace.revision
        self._now_us = now_us

    def plan_next(self, mutations: Iterable[FileMutation]) -> None:
        """Plan some more."""
        for mutation in mutations:
            try:
                self._results.append(self._mutate(mutation))
            except RelayfileError as refusal:
                # A value from here on: its traceback leads to this entry, which leads to its results.
                self._results.append(refusal.with_traceback(None))

    def finished(self) -> MutationsPlan:
        """The whole of it. Called once, after the last ones."""
        plan = self._settled() if self._plan.events else None
        return MutationsPlan(plan, self._results, self._edits, self._edit_places, self._in_the_way)

    def _mutate(self, mutation: FileMutation) -> FileResult:
        """One mutation, whole or not at all."""
        if mutation.by.refusal is not None:
            raise mutation.by.refusal
        if isinstance(mutation, FileWrite):
            return self._write(mutation)
        if isinstance(mutation, FileDelete):
            return self._delete(mutation)
        return self._move(mutation)

    def _settled(self) -> Plan:
        """The rows that outlive the entry."""
        tree, plan = self._tree, self._plan
        loaded = tree.loaded.files
        final = [(path, loaded.get(path), tree.files[path]) for path in tree.touched]
        carried = {new.content_id for _, _, new in final if new is not None and new.content_id >= 0}
        for path, old, new in final:
            plan.index.replace(path, old, new)
            if new is not None:
                content_id, content = stored_content(tree, old, new, carried)
                plan.files_put[path] = FilePut(new._replace(content_id=content_id), content)
            elif old is not None:
                plan.files_deleted.add(path)
        plan.contents_released = [
            old.content_id for _, old, _ in final if old is not None and old.content_id not in carried
        ]
        assert plan.workspace is not None, "it existed"
        plan.workspace = plan.workspace._replace(revision=self._revision)
        plan.workspace_changed = True
        plan.directories_put, plan.directories_deleted = tree.directories.settle(plan.buckets)
        plan.objects_put = [subject.settled() for subject in tree.objects.values() if subject.changed]
        return plan

    def _write(self, write: FileWrite) -> FileResult:
        tree, path, size = self._tree, write.path, len(write.content)
        there = tree.file(path)
        if size > tree.limits.content_bytes_max:
            raise TooLarge(what="content", size=size, limit=tree.limits.content_bytes_max)
        new = _written(write, there)
        if there is not None and same_file(there, new):
            return FileResult(there, there.revision, changed=False)
        self._require(write, there)
        old_rules = () if there is None else there.semantics.permissions
        if new.semantics.permissions != old_rules and not write.by.may_manage:
            raise PermissionDenied(why=f"changing the permissions of {path[:256]!r} needs fs:manage on its directory")
        if there is None:
            self._require_free(path, "path")
            tree.require_room(1, size)
        else:
            tree.require_room(0, size - there.size_bytes)
        if there is not None and there.content_sha256 == new.content_sha256:
            content_id = there.content_id
        else:
            content_id = tree.add_content(write.content)
        row = self._put(new._replace(content_id=content_id), there, write.by)
        self._note(write, EditKind.WRITE, there, row)
        return FileResult(row, row.revision, created=there is None)

    def _delete(self, delete: FileDelete) -> FileResult:
        there = self._tree.file(delete.path)
        self._require(delete, there)
        assert there is not None, "required"
        revision = self._remove(there, delete.by)
        if there.object_key:
            subject = self._tree.object(ObjectKey(there.provider, there.object_key))
            subject.path, subject.changed = None, True
        self._note(delete, EditKind.DELETE, there, None, revision)
        return FileResult(None, revision)

    def _move(self, move: FileMove) -> FileResult:
        tree, to_path = self._tree, move.to_path
        there = tree.file(move.path)
        self._require(move, there)
        assert there is not None, "required"
        over = tree.file(to_path)
        if over is not None:
            self._conflict(over, MUST_NOT_EXIST)
        self._require_free(to_path, "to_path", leaving=move.path)
        if there.object_key:
            subject = tree.object(ObjectKey(there.provider, there.object_key))
            subject.path, subject.changed = to_path, True
        self._remove(there, move.by, moved_to=to_path)
        row = self._put(there._replace(path=to_path, origin=move.by.origin), None, move.by, moved_from=move.path)
        self._note(move, EditKind.MOVE, there, row)
        return FileResult(row, row.revision, created=True)

    def _put(self, row: FileRow, old: FileRow | None, by: Author, moved_from: str = "") -> FileRow:
        """`row` with its revision, where it stands from now on."""
        self._tell_of_rules(row.path, old, row, by)
        self._revision += 1
        new = row._replace(revision=self._revision, modified_us=self._now_us)
        account(self._tree, new.path, old, new, self._revision)
        self._tree.set_file(new.path, new, by)
        kind = EventType.FILE_CREATED if old is None else EventType.FILE_UPDATED
        self._tell(kind, new, by, new.content_sha256, new.size_bytes, moved_from=moved_from)
        return new

    def _remove(self, there: FileRow, by: Author, moved_to: str = "") -> int:
        self._tell_of_rules(there.path, there, None, by)
        self._revision += 1
        account(self._tree, there.path, there, None, self._revision)
        self._tree.set_file(there.path, None, by)
        self._tell(EventType.FILE_DELETED, there, by, b"", 0, moved_to=moved_to)
        return self._revision

    def _tell_of_rules(self, path: str, old: FileRow | None, new: FileRow | None, by: Author) -> None:
        if (ruled := ruled_anew(path, old, new)) is not None:
            self._revision += 1
            self._plan.events.append(access_event(ruled, self._revision, by, self._now_us))

    def _tell(
        self,
        kind: EventType,
        file: FileRow,
        by: Author,
        sha256: bytes,
        size: int,
        moved_to: str = "",
        moved_from: str = "",
    ) -> None:
        rules, other = carried(file.path, file.semantics), moved_to or moved_from
        if other:  # the same file, with the same rules of its own
            rules = carried_by_half(rules, carried(other, file.semantics))
        self._plan.events.append(EventRow(
            self._revision, kind, file.path, moved_to, moved_from, sha256, size, by.origin, by.provider,
            by.correlation_id, by.traceparent, self._now_us, "", rules,
        ))  # fmt: skip

    def _note(
        self, mutation: FileMutation, kind: EditKind, before: FileRow | None, after: FileRow | None, revision: int = 0
    ) -> None:
        by = mutation.by
        if by.origin is not Origin.AGENT:
            return
        file = after or before
        assert file is not None
        if after is not None and after.content_id < 0:
            after = after._replace(content_id=0)
        self._edits.append(AgentEdit(
            kind, file.path, mutation.path if kind is EditKind.MOVE else "", file.provider, file.object_key,
            revision or file.revision, 0 if before is None else before.revision, before, after,
            by.actor, by.correlation_id, by.traceparent,
        ))  # fmt: skip
        self._edit_places.append(len(self._results))

    def _require(self, mutation: FileMutation, there: FileRow | None) -> None:
        """The precondition."""
        expected = None if mutation.force else mutation.if_revision
        if expected is None and not mutation.force:
            raise PreconditionRequired(path=mutation.path)
        if there is None:
            if not isinstance(mutation, FileWrite) or expected not in (None, MUST_NOT_EXIST):
                raise FileNotFound(path=mutation.path)
        elif expected is not None and expected != there.revision:
            self._conflict(there, expected)

    def _conflict(self, there: FileRow, expected: int) -> NoReturn:
        content = self._tree.content(there.content_id) if there.content_id < 0 else None
        self._in_the_way[len(self._results)] = InTheWay(there, content)
        raise RevisionConflict(expected=expected, current=there.revision)

    def _require_free(self, path: str, field: str, leaving: str | None = None) -> None:
        failure = self._tree.obstacle(path, leaving)
        if failure is not None:
            raise InvalidPath(path=path, why=_why(path, failure), field=field)


def _written(write: FileWrite, there: FileRow | None) -> FileRow:
    """The file as `write` wants it; revision, time and content id come later."""
    digest = write.content_sha256 or sha256(write.content).digest()
    if there is None:
        content_type = write.content_type or media_types.of_path(write.path)
        semantics = write.semantics or NO_SEMANTICS
        return FileRow(
            write.path, 0, 0, digest, len(write.content), content_type, "", "", 0, write.by.origin, semantics
        )
    return there._replace(
        content_sha256=digest,
        size_bytes=len(write.content),
        content_type=write.content_type or there.content_type,
        origin=write.by.origin,
        semantics=there.semantics if write.semantics is None else write.semantics or NO_SEMANTICS,
    )


def _why(path: str, failure: Failure) -> str:
    return _OBSTACLES.get(failure.reason) or paths.check_write_path(path) or failure.message
