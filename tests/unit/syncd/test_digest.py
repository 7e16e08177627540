import hashlib

from relayfile.syncd.digest import EMPTY, element

HASH = hashlib.sha256(b"content").digest()


def test_the_element_is_pinned() -> None:
    assert element("/aéb", HASH) == int.from_bytes(
        hashlib.sha256(len("/aéb".encode()).to_bytes(8, "big") + "/aéb".encode() + HASH).digest(), "big"
    )
    assert element("/ab", HASH).to_bytes(32, "big").hex() == (hashlib.sha256(bytes(7) + b"\x03/ab" + HASH).hexdigest())


def test_a_sum_does_not_depend_on_order() -> None:
    one = EMPTY.with_file("/a", HASH, 7).with_file("/b", HASH, 5)
    two = EMPTY.with_file("/b", HASH, 5).with_file("/a", HASH, 7)
    assert one == two
    assert (one.file_count, one.total_bytes) == (2, 12)
    assert EMPTY.digest_bytes() == bytes(32)
