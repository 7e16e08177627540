"""What agents changed in an entry, told to whatever follows from it (write-back operations).

Owns the value and the seam. Refuses to know what follows: `relayfile.store.writes` calls the one function it was given,
after planning and before the commit, so that what it adds to the plan is durable with the edits.
"""

from enum import Enum
from typing import NamedTuple

from relayfile.store.plan.rows import FileRow


class EditKind(Enum):
    """What an agent did."""

    WRITE = "write"
    DELETE = "delete"
    MOVE = "move"


class AgentEdit(NamedTuple):
    """One change of one file by an agent; several of one path in an entry come in order."""

    kind: EditKind
    path: str
    """Of a move the new one."""
    moved_from: str
    """Of a move the old path; else empty."""
    provider: str
    """Of the object; empty when the file is bound to none, as `object_key`."""
    object_key: str
    revision: int
    """Of the file after it; of a delete the one that removed it."""
    base_revision: int
    """The file's before; 0: there was none."""
    before: FileRow | None
    """None: a new file."""
    after: FileRow | None
    """None: it is gone. `content_id` is 0 while the plan brings the content, as in `FilePut`."""
    actor: str
    """The subject of the caller's token."""
    correlation_id: str
    traceparent: str
