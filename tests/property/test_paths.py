"""The rules of paths hold for any text, and text order is byte order."""

from hypothesis import given
from hypothesis import strategies as st

from relayfile import paths

TEXT = st.text(alphabet=st.sampled_from("ab/.0\\ -ä\x00\n\U0001f600"), max_size=12)
SEGMENT = st.text(alphabet=st.sampled_from("ab0. -~ä\uffff\U0001f600"), min_size=1, max_size=4).filter(
    lambda segment: segment not in {".", ".."}
)
WRITABLE = st.lists(SEGMENT, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def allowed_by_the_letter(path: str) -> bool:
    """The rule of segments, said slowly."""
    parts = path.split("/")[1:]
    return (
        path.startswith("/")
        and path != "/"
        and not any(character in path for character in "\x00\n\\")
        and not any(part in {"", ".", ".."} for part in parts)
    )


@given(TEXT)
def test_the_fast_check_agrees_with_the_rule(raw: str) -> None:
    path = paths.normalise(raw)
    assert (paths.check_write_path(path) is None) == allowed_by_the_letter(path)


@given(WRITABLE)
def test_a_writable_path_is_rebuilt_from_its_parts(path: str) -> None:
    assert paths.normalise(path) == path
    assert paths.join(paths.parent(path), paths.name(path)) == path
    assert "/" + "/".join(paths.segments(path)) == path
    assert all(paths.contains(above, path) and above != path for above in paths.ancestors(path))


@given(WRITABLE, WRITABLE)
def test_the_range_is_the_subtree_in_utf8_order(base: str, path: str) -> None:
    for at in (base, "/"):
        low, high = (edge.encode() for edge in paths.prefix_range(at))
        assert (low <= path.encode() < high) == (paths.contains(at, path) and path != at)
    assert (base < path) == (base.encode() < path.encode())
