"""The digest of a tree (D9), as syncd sums it. Pure.

The digest is the sum modulo 2^256 of SHA-256(len(path) as 8 bytes big-endian, path as UTF-8, content hash) over all
files: independent of order, and changed by one file in constant time. Golden vectors hold it to the store's.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

MODULUS: Final = 1 << 256
_sha256 = hashlib.sha256


def element(path: str, content_hash: bytes) -> int:
    """What one file adds to the digest of every directory above it. ``path`` is absolute."""
    raw = path.encode()
    return int.from_bytes(_sha256(len(raw).to_bytes(8, "big") + raw + content_hash).digest(), "big")


@dataclass(frozen=True, slots=True)
class TreeSum:
    """Files, bytes and digest of a tree; also the difference of two, whose members may be negative."""

    file_count: int = 0
    total_bytes: int = 0
    digest: int = 0

    def __add__(self, other: "TreeSum") -> "TreeSum":
        return TreeSum(
            self.file_count + other.file_count,
            self.total_bytes + other.total_bytes,
            (self.digest + other.digest) % MODULUS,
        )

    def with_file(self, path: str, content_hash: bytes, size: int) -> "TreeSum":
        """This tree and one file more."""
        return TreeSum(
            self.file_count + 1, self.total_bytes + size, (self.digest + element(path, content_hash)) % MODULUS
        )

    def digest_bytes(self) -> bytes:
        """32 bytes, big-endian, as on the wire."""
        return (self.digest % MODULUS).to_bytes(32, "big")


EMPTY: Final = TreeSum()
