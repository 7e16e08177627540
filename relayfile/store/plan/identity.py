"""Objects and their paths: drafts of object rows, and where an object without a path goes.

Owns which file belongs to which object. The provider's object id is authoritative: a path is bound to at most one
object, and an object touches a path only while it is bound to it.
"""

import re
from hashlib import sha256

from relayfile.store.plan.rows import NO_WATERMARK, FileRow, ObjectKey, ObjectRow, made
from relayfile.store.plan.verdict import Verdict
from relayfile.store.plan.writeback.rows import HeldChange

_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")
_ID_CHARACTERS_MAX = 128
_HASH_CHARACTERS = 12


class ObjectDraft:
    """An object while an entry is planned."""

    __slots__ = (
        "answered",
        "changed",
        "deleted",
        "displaced_from",
        "effects",
        "held",
        "key",
        "path",
        "provider",
        "received",
        "received_by",
        "row",
        "signalled",
        "undecided",
    )

    def __init__(self, key: ObjectKey, row: ObjectRow | None) -> None:
        self.key = key
        self.row = row
        self.effects: list[Verdict] = []
        """Members that had an effect, in order."""
        self.undecided = False
        """A content that was not sent decides what its members do."""
        self.signalled = False
        """A signal came that no later upsert has answered."""
        self.answered = False
        """Its newest content came: what would have fetched it is needless."""
        self.held: HeldChange | None = None
        """What the entry holds until the object's edits have ended, in the place of what was held before."""
        self.changed = False
        if row is None:
            self.path: str | None = None
            self.deleted = False
            self.displaced_from: str | None = None
            self.provider = NO_WATERMARK
            self.received = NO_WATERMARK
            self.received_by = ""
        else:
            _, self.path, self.deleted, self.displaced_from, self.provider, self.received, self.received_by = row

    def owns(self, file: FileRow | None) -> bool:
        """Whether `file` is bound to this object."""
        return file is not None and file.object_key == self.key.key and file.provider == self.key.provider

    def settled(self) -> ObjectRow:
        """The row to write."""
        return made(
            ObjectRow,
            (self.key, self.path, self.deleted, self.displaced_from, self.provider, self.received, self.received_by),
        )

    def copy(self) -> "ObjectDraft":
        """A draft that can be put back with `restore`."""
        kept = ObjectDraft(self.key, self.settled())
        kept.row, kept.changed, kept.signalled, kept.effects = self.row, self.changed, self.signalled, self.effects[:]
        kept.answered, kept.held = self.answered, self.held
        return kept

    def restore(self, kept: "ObjectDraft") -> None:
        """Become what `kept` was when it was copied."""
        for name in self.__slots__:
            setattr(self, name, getattr(kept, name))


def default_path(provider: str, object_id: str) -> str:
    """`/<provider>/<sanitised id>.json`: where an object goes that has no path and was given none.

    `issue/42` becomes `issue_42`. Different ids never meet: an id that does not survive sanitising, or is long, has a
    part of its hash appended.
    """
    name = _UNSAFE.sub("_", object_id)
    if "_" in object_id or name != object_id.replace("/", "_", 1) or len(name) > _ID_CHARACTERS_MAX:
        name = f"{name[:_ID_CHARACTERS_MAX]}_{sha256(object_id.encode()).hexdigest()[:_HASH_CHARACTERS]}"
    return f"/{provider}/{name}.json"
