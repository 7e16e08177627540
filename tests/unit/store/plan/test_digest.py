"""Golden vectors: another result here is a breaking change for every mirror and every other language."""

from hashlib import sha256

import pytest

from relayfile.store.plan import digest

VECTORS = [
    ("/a", b"", "ba87bb02dc34f3e9fbd4a0be71b3167e00cc43b93dc8c9cd6c67c549a1d96d83"),
    (
        "/github/repos/octo/hello/issues/1.json",
        b'{"n":1}',
        "4086985ddf42d38c245e1a6961f8d68f72bfe9031e7527c9b7ea09fc96749f01",
    ),
    ("/notizen/übersicht 😀.md", b"# hi\n", "954dae788f34996f9508cc52dff300a2ef20d69a894951daf45728ef3f69bc90"),
]


@pytest.mark.parametrize(("path", "content", "term"), VECTORS)
def test_a_files_term(path: str, content: bytes, term: str) -> None:
    assert digest.to_bytes(digest.file_term(path, sha256(content).digest())).hex() == term


def test_the_length_counts_bytes_of_utf8() -> None:
    name = "/ü".encode()
    content_hash = sha256(b"x").digest()
    expected = sha256(b"\x00\x00\x00\x00\x00\x00\x00\x03" + name + content_hash).digest()
    assert digest.to_bytes(digest.file_term("/ü", content_hash)) == expected


def test_a_sum_wraps_and_does_not_depend_on_order() -> None:
    terms = [digest.file_term(path, sha256(content).digest()) for path, content, _ in VECTORS]
    forward = digest.add(digest.add(digest.add(0, terms[0]), terms[1]), terms[2])
    assert digest.to_bytes(forward).hex() == "905c01d94aac60e5b53b877ab39eedb062ad0356e587437218a8f83577b7c914"
    assert digest.add(0, sum(reversed(terms))) == forward
    assert digest.add(forward, -sum(terms)) == 0
    assert digest.add(2**256 - 1, 2) == 1
    assert digest.from_bytes(digest.to_bytes(forward)) == forward
