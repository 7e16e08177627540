import hashlib

from relayfile.syncd.digest import EMPTY, element

HASH = hashlib.sha256(b"content").digest()


def test_the_element_is_pinned() -> None:
    want = hashlib.sha256(b"\x00\x00\x00\x00\x00\x00\x00\x05" + "/aé".encode() + b"b" + HASH).digest()
    assert element("/aéb", HASH) == int.from_bytes(
        hashlib.sha256(len("/aéb".encode()).to_bytes(8, "big") + "/aéb".encode() + HASH).digest(), "big"
    )
    assert element("/ab", HASH).to_bytes(32, "big").hex() == (hashlib.sha256(bytes(7) + b"\x03/ab" + HASH).hexdigest())
    assert want  # the construction above is what any language would write


def test_a_sum_does_not_depend_on_order_and_can_be_undone() -> None:
    one = EMPTY.with_file("/a", HASH, 7).with_file("/b", HASH, 5)
    two = EMPTY.with_file("/b", HASH, 5).with_file("/a", HASH, 7)
    assert one == two
    assert one.without_file("/a", HASH, 7).without_file("/b", HASH, 5) == EMPTY
    assert EMPTY.digest_bytes() == bytes(32)
