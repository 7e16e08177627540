"""What the machines draw from: few values, so that they meet."""

from hypothesis import strategies as st

from tests.model.wire import TAGS
from tests.model.workspace import Delete, Move, Write

PATHS = (
    "/a", "/a/1", "/a/1/x.txt", "/b/c/d.md", "/b/c", "/a/.relayfile.acl", "/.relayfile.acl", "/é/日.json",
    "/linear/_new/draft.json", "/linear/_new/other.json", "/linear/two.json", "/linear/issue_1.json",
)  # fmt: skip
"""Files where directories are, rules, and files that a provider hears of."""
BAD_PATHS = (
    "",
    "/",
    "/a//b",
    "/a/../b",
    "/a\\b",
    "/nul\0",
    "/" + "x" * 1025,
    "/a/./b",
    "/tab\t",
    "/" + "y/" * 2048 + "y",
)
CONTENTS = (b"", b"one", b"two", b'{"k":1}', b'{"k":2,"l":{"m":3}}', b"\n" * 3)
CONDITIONS = ("absent", "force", "right", "ahead", "zero", "negative")
REQUEST_IDS = ("", "", "", "r1", "r2", "r3")

paths = st.sampled_from(PATHS)
contents = st.sampled_from(CONTENTS)
tags = st.sampled_from(TAGS)
conditions = st.sampled_from(CONDITIONS)
request_ids = st.sampled_from(REQUEST_IDS)
content_types = st.sampled_from(("", "", "text/plain", "application/json"))
items = st.one_of(
    st.builds(Write, path=paths, content=contents, content_type=content_types, tags=tags),
    st.builds(Delete, path=paths),
    st.builds(Move, path=paths, to_path=paths),
)
