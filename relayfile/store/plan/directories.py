"""The directories that a plan touches: what is in the way of a file, and totals that are written once per plan.

Owns live file counts (which decide whether a path is a directory now, in the middle of a plan) and the sums that
become rows at its end. Five hundred changes below the same directories touch each row once: a change adds its sums to
the directory that holds it, and they travel up when the plan is settled.
"""

from collections.abc import Mapping

from relayfile.paths import ROOT, name
from relayfile.store.plan import digest
from relayfile.store.plan.buckets import NOTHING, BucketChanges, BucketSum, after_change, bucket_of, is_counted
from relayfile.store.plan.rows import DirectoryRow


class Directory:
    """One directory in the making: what it was, and what changes."""

    __slots__ = (
        "buckets",
        "bytes_change",
        "digest_change",
        "entries_change",
        "files",
        "parent",
        "path",
        "revision",
        "row",
        "rules_change",
    )

    def __init__(self, path: str, row: DirectoryRow | None, parent: "Directory | None") -> None:
        self.path = path
        self.row = row
        self.parent = parent
        self.files = 0 if row is None else row.file_count
        """Files below it now, at any depth."""
        self.bytes_change = 0
        self.digest_change = 0
        self.entries_change = 0
        self.rules_change = 0
        self.revision = 0
        """The last revision of the plan below it; 0 while there is none."""
        self.buckets: dict[int, BucketSum] | None = None if row is None or row.buckets_to is None else {}
        """What changes of those that are counted already; None: it has none."""

    def count_entry(self, entry_path: str, files: int, size: int, terms: int) -> None:
        """Of a directory with buckets: one of its entries, with what is below it, became more or less."""
        assert self.buckets is not None
        assert self.row is not None
        entry_name = name(entry_path)
        if is_counted(self.row.buckets_to, entry_name):
            bucket = bucket_of(entry_name)
            before = self.buckets.get(bucket, NOTHING)
            self.buckets[bucket] = BucketSum(
                before.file_count + files, before.total_bytes + size, before.digest + terms
            )


class Directories:
    """The directories of one plan."""

    def __init__(self, rows: Mapping[str, DirectoryRow]) -> None:
        self._rows = rows
        self._touched: dict[str, Directory] = {}

    def holding(self, path: str) -> Directory:
        """The directory that holds the file `path`, whether or not it exists already."""
        parent = path[: path.rfind("/")] or ROOT
        return self._touched.get(parent) or self._touch(parent)

    def is_directory(self, path: str, without: int = 0) -> bool:
        """Whether there are more than `without` files below `path` now."""
        touched = self._touched.get(path)
        if touched is not None:
            return touched.files > without
        row = self._rows.get(path)
        return row is not None and row.file_count > without

    def count(self, holder: Directory, files: int) -> None:
        """A file came into being in `holder` (1) or went (-1)."""
        above: Directory | None = holder
        while above is not None:
            above.files += files
            above = above.parent

    def settle(self, buckets: BucketChanges) -> tuple[dict[str, DirectoryRow], set[str]]:
        """(rows to write, directories that are gone), and what changes of their buckets. Called once, after the sums of
        all files were added."""
        written: dict[str, DirectoryRow] = {}
        gone: set[str] = set()
        # A directory's path is longer than that of any above it, so that sums are complete when they are passed on.
        for directory in sorted(self._touched.values(), key=_depth_first):
            if not directory.revision:
                continue
            row, parent = directory.row, directory.parent
            if parent is not None:
                _pass_on(directory, parent)
            if directory.files == 0 and parent is not None:
                if row is not None:
                    gone.add(directory.path)
                    if row.buckets_to is not None:
                        buckets.dropped.append(directory.path)
                continue
            written[directory.path] = after = _row_after(directory, row)
            if directory.buckets is not None or after.buckets_to is not None:
                _settle_buckets(directory, after, buckets)
        return written, gone

    def _touch(self, path: str) -> Directory:
        # Not by recursion: a path may have two thousand segments.
        missing = [path]
        while missing[-1] != ROOT and (above := missing[-1][: missing[-1].rfind("/")] or ROOT) not in self._touched:
            missing.append(above)
        top = missing[-1]
        directory = None if top == ROOT else self._touched[top[: top.rfind("/")] or ROOT]
        for each in reversed(missing):
            directory = Directory(each, self._rows.get(each), directory)
            self._touched[each] = directory
        assert directory is not None
        return directory


def _depth_first(directory: Directory) -> int:
    return -len(directory.path)


def _pass_on(directory: Directory, parent: Directory) -> None:
    parent.bytes_change += directory.bytes_change
    parent.digest_change += directory.digest_change
    parent.rules_change += directory.rules_change
    parent.revision = max(parent.revision, directory.revision)
    existed = directory.row is not None
    exists = directory.files > 0
    parent.entries_change += exists - existed
    if parent.buckets is not None:
        files = directory.files - (0 if directory.row is None else directory.row.file_count)
        parent.count_entry(directory.path, files, directory.bytes_change, directory.digest_change)


def _settle_buckets(directory: Directory, after: DirectoryRow, changes: BucketChanges) -> None:
    if directory.buckets is None:
        changes.wanted.append(directory.path)
    elif after.buckets_to is None:
        changes.dropped.append(directory.path)
    else:
        changes.sums.update({(directory.path, bucket): change for bucket, change in directory.buckets.items()})


def _row_after(directory: Directory, row: DirectoryRow | None) -> DirectoryRow:
    old = row or DirectoryRow(directory.path, 0, 0, 0, 0, 0, 0)
    entry_count = old.entry_count + directory.entries_change
    return DirectoryRow(
        directory.path,
        directory.files,
        old.total_bytes + directory.bytes_change,
        old.rule_count + directory.rules_change,
        digest.add(old.digest, directory.digest_change),
        entry_count,
        directory.revision,
        after_change(row, entry_count),
    )
