import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.errors import PageTokenInvalid
from relayfile.page_token import SealedTokens, seal, unseal

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(TEXT, max_size=4), TEXT)
def test_a_token_gives_its_position_back(binding: list[str], position: str) -> None:
    assert unseal(binding, seal(binding, position)) == position


def test_an_empty_token_is_the_start() -> None:
    assert unseal(("ListTree", "w"), "") == ""


@given(st.integers(min_value=0), st.characters(codec="ascii"))
def test_a_changed_token_is_refused(at: int, character: str) -> None:
    token = seal(("ListTree", "w", "/a"), "/a/b.json")
    index = at % len(token)
    changed = token[:index] + character + token[index + 1 :]
    if changed == token:
        return
    with pytest.raises(PageTokenInvalid):
        unseal(("ListTree", "w", "/a"), changed)


@pytest.mark.parametrize(
    "binding", [("ListTree", "w", "/b"), ("ListTree", "w/", "a"), ("ListFiles", "w", "/a"), ("ListTree", "w", "/a", "")]
)
def test_a_token_of_another_request_is_refused(binding: tuple[str, ...]) -> None:
    token = seal(("ListTree", "w", "/a"), "/a/b.json")
    with pytest.raises(PageTokenInvalid, match="other arguments"):
        unseal(binding, token)


@pytest.mark.parametrize("token", ["!", "AAAA", "a" * 9, "ÄÖ", "\N{BOM}", "A" * 64])
def test_what_was_never_a_token_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        unseal(("ListTree",), token)


class TestSealed:
    """Tokens whose position their holder must not read."""

    def test_what_is_sealed_is_read_again_also_after_a_restart_and_by_nobody_else(self) -> None:
        key = bytes(range(32))
        token = SealedTokens(key).seal(("List", "w"), "/hidden/é.md")
        assert SealedTokens(key).unseal(("List", "w"), token) == "/hidden/é.md"
        assert SealedTokens(key).unseal(("List", "w"), "") == ""
        raw = base64.urlsafe_b64decode(token + "==")
        assert b"hidden" not in raw
        with pytest.raises(PageTokenInvalid):
            SealedTokens().unseal(("List", "w"), token)
        with pytest.raises(PageTokenInvalid):
            SealedTokens(key).unseal(("List", "other"), token)

    def test_its_length_tells_little(self) -> None:
        tokens = SealedTokens()
        assert len({len(tokens.seal(("x",), "/" + "a" * n)) for n in range(60)}) == 1

    @given(st.text(max_size=80))
    def test_anything_else_is_refused_clearly(self, text: str) -> None:
        with pytest.raises(PageTokenInvalid):
            SealedTokens().unseal(("x",), text or "x")
