"""Buckets of wide directories (D9): 256 sums by which two large directories are compared without their entries. Pure.

Owns which directories have them, and what a plan changes of them. An entry is in the bucket of the first byte of
SHA-256 of its name, with everything below it. A directory that grows beyond `ENTRIES_BUILT_ABOVE` gets them step by
step, in order of the names: `DirectoryRow.buckets_to` is the name up to which entries are counted, and a plan carries
on what is counted already. So a directory may change as fast as it likes while its buckets are built.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, NamedTuple

from relayfile.paths import name
from relayfile.store.plan import digest
from relayfile.store.plan.digest import file_term
from relayfile.store.plan.rows import DirectoryRow, FileRow

BUCKETS: Final = 256
ENTRIES_BUILT_ABOVE: Final = 4_096
ENTRIES_DROPPED_BELOW: Final = 2_048
BUILT: Final = "/"
"""As `buckets_to`: all are counted. No name is that."""
STARTED: Final = ""
"""As `buckets_to`: none is counted yet."""


class BucketRow(NamedTuple):
    """What a bucket holds. A directory has no rows of buckets that never held anything."""

    bucket: int
    file_count: int
    total_bytes: int
    digest: int


class BucketSum(NamedTuple):
    """What is added to a bucket."""

    file_count: int
    total_bytes: int
    digest: int
    """Not reduced: negative where more went than came."""


NOTHING: Final = BucketSum(0, 0, 0)


@dataclass(slots=True)
class BucketChanges:
    """What one plan changes of the buckets."""

    sums: dict[tuple[str, int], BucketSum] = field(default_factory=dict)
    """(directory, bucket) -> what to add."""
    wanted: list[str] = field(default_factory=list)
    """Directories that shall have buckets."""
    finished: list[str] = field(default_factory=list)
    """Directories of which nothing is left to build."""
    dropped: list[str] = field(default_factory=list)
    """Directories that no longer have any."""

    def add(self, directory: str, bucket: int, change: BucketSum) -> None:
        """Sums of one bucket add up."""
        files, size, terms = self.sums.get((directory, bucket), NOTHING)
        self.sums[directory, bucket] = BucketSum(
            files + change.file_count, size + change.total_bytes, terms + change.digest
        )


def bucket_of(entry_name: str) -> int:
    """The bucket of an entry in its directory."""
    return sha256(entry_name.encode()).digest()[0]


def is_counted(buckets_to: str | None, entry_name: str) -> bool:
    """Whether the buckets of a directory hold the entry already."""
    return buckets_to is not None and (buckets_to == BUILT or entry_name <= buckets_to)


def after_change(row: DirectoryRow | None, entry_count: int) -> str | None:
    """`buckets_to` of a directory that was `row` and has `entry_count` entries from now on."""
    before = None if row is None else row.buckets_to
    if before is None:
        return STARTED if entry_count > ENTRIES_BUILT_ABOVE else None
    return None if entry_count < ENTRIES_DROPPED_BELOW else before


def next_step(row: DirectoryRow, entries: Iterable[FileRow | DirectoryRow], at_end: bool) -> tuple[str, BucketChanges]:
    """(the new `buckets_to`, what is added): the next entries of a directory whose buckets are being built."""
    changes = BucketChanges()
    last = row.buckets_to or STARTED
    for entry in entries:
        last = name(entry.path)
        if isinstance(entry, FileRow):
            change = BucketSum(1, entry.size_bytes, file_term(entry.path, entry.content_sha256))
        else:
            change = BucketSum(entry.file_count, entry.total_bytes, entry.digest)
        changes.add(row.path, bucket_of(last), change)
    if at_end:
        changes.finished.append(row.path)
    return BUILT if at_end else last, changes


def stored_sum(change: BucketSum) -> tuple[int, int, bytes]:
    """As engines add it."""
    return change.file_count, change.total_bytes, digest.to_bytes(digest.add(0, change.digest))
