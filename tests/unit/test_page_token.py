import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.errors import PageTokenInvalid
from relayfile.page_token import seal, unseal

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
