"""The digest of a directory (D9): one number that proves what is below it.

Owns the encoding, which golden vectors pin: other languages and mirrors compute the same. A file's term is SHA-256 of
the length of its path (bytes of UTF-8) as 8 bytes big-endian, the path, and its content hash, read as a big-endian
number; a directory's digest is the sum of its files' terms modulo 2^256, so terms come and go in any order.
"""

from hashlib import sha256
from typing import Final

DIGEST_BYTES: Final = 32
_MASK: Final = (1 << 8 * DIGEST_BYTES) - 1


def file_term(path: str, content_sha256: bytes) -> int:
    """What one file adds to the digest of every directory above it."""
    name = path.encode()
    return int.from_bytes(sha256(len(name).to_bytes(8, "big") + name + content_sha256).digest(), "big")


def add(digest: int, change: int) -> int:
    """The digest after a change, which may be negative: the sum of new terms less the sum of old ones."""
    return (digest + change) & _MASK


def to_bytes(digest: int) -> bytes:
    """As engines keep it and the API tells it: 32 bytes, big-endian."""
    return digest.to_bytes(DIGEST_BYTES, "big")


def from_bytes(data: bytes) -> int:
    """The number of `to_bytes`."""
    return int.from_bytes(data, "big")
