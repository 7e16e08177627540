"""What a directory's row must say, counted anew from its direct entries: files, and directories by their own rows.

Pure. Every directory is compared with its own entries only; where all of them agree, the root agrees with all files.
"""

from hashlib import sha256
from typing import Final, NamedTuple

from relayfile.store.plan import digest
from relayfile.store.plan.rows import DirectoryRow

BUCKETS: Final = 256


class Bucket(NamedTuple):
    """What is below the entries of one bucket."""

    file_count: int
    total_bytes: int
    digest: int


NO_BUCKET: Final = Bucket(0, 0, 0)


def bucket_of(name: str) -> int:
    """The bucket of an entry with this name (D9): the first byte of its SHA-256."""
    return sha256(name.encode()).digest()[0]


class Recount:
    """Sums over the entries of one directory."""

    __slots__ = ("buckets", "digest", "entry_count", "file_count", "rule_count", "total_bytes")

    def __init__(self, *, with_buckets: bool = False) -> None:
        self.file_count = 0
        self.total_bytes = 0
        self.rule_count = 0
        self.digest = 0
        self.entry_count = 0
        self.buckets: dict[int, Bucket] | None = {} if with_buckets else None

    def add_file(self, path: str, size_bytes: int, content_sha256: bytes, rule_count: int) -> None:
        """A file directly in it."""
        self._add(path, 1, size_bytes, rule_count, digest.file_term(path, content_sha256))

    def add_directory(self, row: DirectoryRow) -> None:
        """A directory directly in it."""
        self._add(row.path, row.file_count, row.total_bytes, row.rule_count, row.digest)

    def differences(self, row: DirectoryRow) -> list[tuple[str, str]]:
        """(reason, what is and what should be) of each column of `row` that is another than was counted."""
        columns = (
            ("DIGEST_MISMATCH", "digest", row.digest, digest.add(self.digest, 0)),
            ("FILE_COUNT_MISMATCH", "file_count", row.file_count, self.file_count),
            ("TOTAL_BYTES_MISMATCH", "total_bytes", row.total_bytes, self.total_bytes),
            ("RULE_COUNT_MISMATCH", "rule_count", row.rule_count, self.rule_count),
            ("ENTRY_COUNT_MISMATCH", "entry_count", row.entry_count, self.entry_count),
        )
        return [
            (reason, f"{name} is {_shown(name, kept)}; its entries add up to {_shown(name, counted)}")
            for reason, name, kept, counted in columns
            if kept != counted
        ]

    def wrong_buckets(self, kept: dict[int, Bucket]) -> list[int]:
        """Numbers of the buckets that are others than was counted."""
        assert self.buckets is not None, "counted with buckets"
        counted = self.buckets
        return [number for number in range(BUCKETS) if kept.get(number, NO_BUCKET) != counted.get(number, NO_BUCKET)]

    def _add(self, path: str, files: int, size_bytes: int, rules: int, term: int) -> None:
        self.entry_count += 1
        self.file_count += files
        self.total_bytes += size_bytes
        self.rule_count += rules
        self.digest += term
        if self.buckets is not None:
            number = bucket_of(path[path.rfind("/") + 1 :])
            old = self.buckets.get(number, NO_BUCKET)
            summed = digest.add(old.digest, term)
            self.buckets[number] = Bucket(old.file_count + files, old.total_bytes + size_bytes, summed)


def _shown(name: str, value: int) -> str:
    return f"{digest.to_bytes(value).hex()[:16]}..." if name == "digest" else str(value)
