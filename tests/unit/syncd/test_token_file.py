"""A mirror's own token."""

import os
import pathlib

import pytest

from relayfile.auth import KeyStore, TokenSigner
from relayfile.clock import SystemClock
from relayfile.errors import Unavailable
from relayfile.syncd.token_file import TokenFile, expire_time_us


def test_it_is_read_again_when_it_changes(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "token"
    file = TokenFile(path)
    with pytest.raises(Unavailable, match="token in "):
        file.metadata()
    path.write_text("first\n")
    assert file.metadata() == (("authorization", "Bearer first"),)
    (tmp_path / "next").write_text("other\n")
    (tmp_path / "next").rename(path)
    assert file.token() == "other"
    path.write_text("third\n")  # as long as the one before
    os.utime(path, (1, 1))
    assert file.token() == "third"
    path.write_bytes(b"\xff")
    with pytest.raises(Unavailable):
        file.token()


def test_its_end_is_shown(tmp_path: pathlib.Path) -> None:
    clock = SystemClock()
    token = TokenSigner(KeyStore(tmp_path / "keys").signing_key(), clock).mint("me", workspaces=("acme",), ttl_s=3600)
    (tmp_path / "token").write_text(token)
    left_s = TokenFile(tmp_path / "token").expire_time_us() / 1e6 - clock.now_us() / 1e6
    assert 3590 < left_s <= 3601
    assert TokenFile(tmp_path / "none").expire_time_us() == 0


@pytest.mark.parametrize("token", ["", "opaque", "a.b.c", "a.W10.c", "a.eyJleHAiOiJzb29uIn0.c", "a.eyJleHAiOi0xfQ.c"])
def test_what_says_no_end_shows_none(token: str) -> None:
    assert expire_time_us(token) == 0
