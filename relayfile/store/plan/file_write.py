"""Writing or deleting one file by somebody who is no provider: a pure function of the rows, as `planner.plan` is.

Owns `if_revision` (the table in the API's conventions), what stands in the way, and that the same bytes, type and
semantics change nothing. A file that is written stays bound to its object. Refuses to know who may write and what else
follows.
"""

from hashlib import sha256
from typing import NamedTuple

from relayfile import paths
from relayfile.errors import FileNotFound, InvalidPath, RevisionConflict, TooLarge
from relayfile.model import NO_SEMANTICS, Failure, Origin, Semantics
from relayfile.store.plan.limits import PlanLimits
from relayfile.store.plan.result import Plan
from relayfile.store.plan.rows import FileRow, ObjectKey
from relayfile.store.plan.settle import settle_files
from relayfile.store.plan.slice import Needs, Slice
from relayfile.store.plan.working_tree import WorkingTree

MUST_NOT_EXIST = 0
"""As `if_revision` of a write."""
_OBSTACLES = {"PATH_IS_DIRECTORY": "is a directory", "PATH_UNDER_FILE": "lies below a file"}


class FileWrite(NamedTuple):
    """What is asked for; a `Cause`."""

    path: str
    """Normalised, and one that may be written."""
    content: bytes | None
    """None deletes the file."""
    origin: Origin
    if_revision: int | None = None
    """None: whatever is there. `MUST_NOT_EXIST` only with content."""
    content_type: str = "application/json"
    semantics: Semantics = NO_SEMANTICS
    """None keep those of the file."""
    correlation_id: str = ""
    traceparent: str = ""
    provider: str = ""


class FileWritten(NamedTuple):
    """What became of it."""

    revision: int
    """Of the file; of a delete the one that removed it."""
    modified_us: int
    created: bool = False
    changed: bool = True
    """False: it was like this already."""


def write_needs(write: FileWrite) -> Needs:
    """What `plan_write` reads, as far as the write itself names it."""
    above = paths.ancestors(write.path)
    return Needs(files={write.path, *(path for path in above if path != paths.ROOT)}, directories={write.path, *above})


def more_write_needs(write: FileWrite, loaded: Slice) -> Needs:
    """What follows from what was loaded: the object of a file that is to be deleted."""
    there = loaded.files.get(write.path)
    if write.content is None and there is not None and there.object_key:
        return Needs(objects={ObjectKey(there.provider, there.object_key)})
    return Needs()


def plan_write(
    workspace_id: str, write: FileWrite, loaded: Slice, *, now_us: int, limits: PlanLimits
) -> tuple[Plan | None, FileWritten]:
    """The effect of `write` on the rows in `loaded`, whose workspace exists; no plan where nothing changes.

    `RevisionConflict`, `FileNotFound`, `InvalidPath`, `TooLarge`. `loaded` is not changed.
    """
    assert loaded.workspace is not None, "nothing is written in a workspace that does not exist"
    assert write.content is not None or write.if_revision != MUST_NOT_EXIST, "checked at the edge"
    there = loaded.files.get(write.path)
    tree = WorkingTree(loaded, limits)
    new = None if write.content is None else _new_file(tree, write, write.content, there)
    if new is not None and there is not None and _same(there, new):
        return None, FileWritten(there.revision, there.modified_us, changed=False)
    _check_revision(write, there)
    if new is not None and there is None and (failure := tree.obstacle(write.path, None)) is not None:
        raise InvalidPath(path=write.path, why=_why(write.path, failure))
    tree.set_file(write.path, new, write)
    if new is None and there is not None and there.object_key:
        subject = tree.object(ObjectKey(there.provider, there.object_key))
        subject.path, subject.changed = None, True
    plan = Plan(workspace_id, loaded.workspace)
    settle_files(tree, plan, now_us)
    assert plan.workspace is not None, "it existed"
    return plan, FileWritten(plan.workspace.revision, now_us, created=there is None)


def _new_file(tree: WorkingTree, write: FileWrite, content: bytes, there: FileRow | None) -> FileRow:
    if len(content) > tree.limits.content_bytes_max:
        raise TooLarge(what="content", size=len(content), limit=tree.limits.content_bytes_max)
    content_sha256 = sha256(content).digest()
    if there is not None and there.content_sha256 == content_sha256:
        content_id = there.content_id
    else:
        content_id = tree.add_content(content)
    row = FileRow(
        write.path, 0, content_id, content_sha256, len(content), write.content_type, "", "", 0, write.origin,
        write.semantics,
    )  # fmt: skip
    if there is None:
        return row
    return row._replace(
        provider=there.provider,
        object_key=there.object_key,
        semantics=write.semantics or there.semantics,
        stale_since_us=there.stale_since_us,
    )


def _same(there: FileRow, new: FileRow) -> bool:
    return (
        there.content_sha256 == new.content_sha256
        and there.content_type == new.content_type
        and there.semantics == new.semantics
    )


def _check_revision(write: FileWrite, there: FileRow | None) -> None:
    expected = write.if_revision
    if there is None:
        if write.content is None or expected not in (None, MUST_NOT_EXIST):
            raise FileNotFound(path=write.path)
    elif expected is not None and expected != there.revision:
        raise RevisionConflict(expected=expected, current=there.revision)


def _why(path: str, failure: Failure) -> str:
    return _OBSTACLES.get(failure.reason) or paths.check_write_path(path) or failure.message
