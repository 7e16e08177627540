"""Whatever is sent as a token is a principal or ``Unauthenticated``, and nothing else."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relayfile.auth import KeyStore, TokenVerifier
from relayfile.clock import ManualClock
from relayfile.errors import Unauthenticated

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={"alg": st.sampled_from(["EdDSA", "none", "HS256", "RS256", 7]), "kid": JSON, "crit": JSON, "b64": JSON},
)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> TokenVerifier:
    store = KeyStore(Path(tmp_path_factory.mktemp("keys")))
    store.signing_key()
    return TokenVerifier(store.public_file, ManualClock())


@given(token=st.text(max_size=60) | st.builds(lambda *parts: ".".join(parts), st.text(), st.text(), st.text()))
def test_any_text(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(token)


@given(header=HEADERS | JSON, claims=JSON, signature=st.binary(max_size=64))
def test_any_structure(verifier: TokenVerifier, header: object, claims: object, signature: bytes) -> None:
    with pytest.raises(Unauthenticated):
        verifier.verify(f"{part(header)}.{part(claims)}.{base64.urlsafe_b64encode(signature).decode()}")
