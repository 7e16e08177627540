"""Which contents the caller of an export has already: a compact set of SHA-256 prefixes.

Owns the set's memory: 8 bytes for each of at most 1,000,000 hashes. 64 bits of a hash make an accidental match
impossible in practice; a match that somebody made on purpose costs only its maker a second read, because clients verify
what they say they have. Pure.
"""

import sys
from array import array
from bisect import bisect_left

HASH_BYTES = 32
HASHES_MAX = 1_000_000
_PREFIX_BYTES = 8
_WORDS_PER_HASH = HASH_BYTES // _PREFIX_BYTES
_BUCKETS = 256


class HaveSet:
    """Buckets by the hash's first byte, each ordered when it is first asked: no step takes longer than a message."""

    def __init__(self) -> None:
        self._buckets = tuple(array("Q") for _ in range(_BUCKETS))
        self._ordered = bytearray(_BUCKETS)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, hashes: bytes) -> None:
        """Whole hashes, one after the other; the caller checks the length and `HASHES_MAX`."""
        assert len(hashes) % HASH_BYTES == 0, len(hashes)
        prefixes = array("Q", hashes)[::_WORDS_PER_HASH]
        buckets = self._buckets
        for prefix in prefixes:
            buckets[prefix % _BUCKETS].append(prefix)
        self._count += len(prefixes)
        self._ordered = bytearray(_BUCKETS)

    def __contains__(self, content_sha256: bytes) -> bool:
        prefix = int.from_bytes(content_sha256[:_PREFIX_BYTES], sys.byteorder)
        index = prefix % _BUCKETS
        bucket = self._buckets[index]
        if not self._ordered[index]:
            bucket[:] = array("Q", sorted(bucket))
            self._ordered[index] = 1
        at = bisect_left(bucket, prefix)
        return at < len(bucket) and bucket[at] == prefix
