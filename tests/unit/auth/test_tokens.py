import base64
import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from relayfile.auth import KeyStore, ServiceCredentials, TokenSigner, TokenVerifier
from relayfile.auth.keys import read_public_keys
from relayfile.auth.tokens import _REGISTRY, RELOAD_INTERVAL_S
from relayfile.clock import ManualClock
from relayfile.errors import StartRefused, Unauthenticated, Unavailable

NOW_S = 1_800_000_000
GOOD = {"aud": "relayfile", "sub": "agent-1", "wks": "acme", "exp": NOW_S + 60}


class House:
    """A key store, its verifier and a clock; ``sign`` makes any token with the store's key."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(now_us=NOW_S * 1_000_000)
        self.store = KeyStore(directory)
        self.key = self.store.signing_key()
        self.signer = TokenSigner(self.key, self.clock)
        self.verifier = TokenVerifier(self.store.public_file, self.clock)

    def sign(self, claims: dict[str, Any], header: dict[str, Any] | None = None) -> str:
        return jwt.encode(header or {"alg": "EdDSA", "kid": self.key.kid}, claims, self.key, registry=_REGISTRY)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path / "keys")


def test_a_minted_token_is_its_principal(house: House) -> None:
    token = house.signer.mint("agent-1", workspaces=("a", "b"), ttl_s=60, scopes=("fs:read", "relayfile:fs:write:/x/*"))
    principal = house.verifier.verify(token)
    assert (principal.subject, principal.workspaces) == ("agent-1", frozenset({"a", "b"}))
    assert principal.scopes == ("fs:read", "relayfile:fs:write:/x/*")
    assert principal.expires_at_us == (NOW_S + 60) * 1_000_000
    assert not principal.is_service
    assert not principal.is_cluster
    assert principal.may_use("a")
    assert not principal.may_use("c")


@pytest.mark.parametrize("prefix", ["relay_pa_", "relay_ws_", "relay_id_", "relay_ag_"])
def test_known_prefixes_are_dropped(house: House, prefix: str) -> None:
    assert house.verifier.verify(prefix + house.sign(GOOD)).subject == "agent-1"
    with pytest.raises(Unauthenticated):
        house.verifier.verify("relay_xx_" + house.sign(GOOD))


@pytest.mark.parametrize(
    ("claims", "workspaces", "scopes"),
    [
        ({**GOOD, "scope": "fs:read  fs:write"}, {"acme"}, ("fs:read", "fs:write")),
        ({**GOOD, "wks": ["a", 7, "b"], "scopes": ["x", None]}, {"a", "b"}, ("x",)),
        ({**GOOD, "wks": None, "workspace_id": "w"}, {"w"}, ()),
        ({**GOOD, "wks": "*"}, {"*"}, ()),
        ({**GOOD, "wks": None}, set(), ()),
        ({**GOOD, "sub": "", "agent_name": "n", "aud": ["x", "relayfile"]}, {"acme"}, ()),
    ],
)
def test_the_forms_of_claims(
    house: House, claims: dict[str, Any], workspaces: set[str], scopes: tuple[str, ...]
) -> None:
    principal = house.verifier.verify(house.sign(claims))
    assert principal.workspaces == workspaces
    assert principal.scopes == scopes


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({**GOOD, "exp": NOW_S}, "expired"),
        ({**GOOD, "exp": None}, "no usable expiry"),
        ({**GOOD, "exp": "1900000000"}, "no usable expiry"),
        ({**GOOD, "exp": True}, "no usable expiry"),
        ({**GOOD, "exp": 1e300}, "no usable expiry"),
        ({**GOOD, "aud": "other"}, "audience"),
        ({**GOOD, "aud": ["other"]}, "audience"),
        ({**GOOD, "aud": None}, "audience"),
        ({**GOOD, "sub": None}, "subject"),
        ({**GOOD, "sub": 7}, "subject"),
        ({**GOOD, "nbf": NOW_S + 3600}, "not valid yet"),
    ],
)
def test_tokens_that_are_refused(house: House, claims: dict[str, Any], why: str) -> None:
    with pytest.raises(Unauthenticated, match=why):
        house.verifier.verify(house.sign(claims))


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x" * 64) -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def test_forgeries_are_refused(house: House) -> None:
    kid = house.key.kid or ""
    other = OKPKey.generate_key("Ed25519", {"kid": kid})
    public = OctKey.import_key(json.dumps(house.key.as_dict(private=False)).encode().ljust(64, b" "))
    head, body, _ = house.sign(GOOD).split(".")
    for token in [
        "",
        "abc",
        "a.b.c",
        "." * 5,
        "x" * 20_000,
        "\ud800",
        forged({"alg": "none", "kid": kid}, GOOD, b""),
        forged({"alg": "EdDSA", "kid": kid}, GOOD),
        forged({"alg": "EdDSA"}, GOOD),
        forged({"alg": "EdDSA", "kid": 7}, GOOD),
        forged({"alg": "EdDSA", "kid": "unknown"}, GOOD),
        forged({"alg": "RS256", "kid": kid}, GOOD),
        forged({"alg": "EdDSA", "kid": kid, "crit": ["x"], "x": 1}, GOOD),
        jwt.encode({"alg": "EdDSA", "kid": kid}, GOOD, other, registry=_REGISTRY),
        jwt.encode({"alg": "HS256", "kid": kid}, GOOD, public),
        f"{head}.{body}.",
        f"{head}.{body}",
    ]:
        with pytest.raises(Unauthenticated) as caught:
            house.verifier.verify(token)
        assert len(token) < 8 or token not in str(caught.value)


def test_a_remembered_token_still_expires(house: House) -> None:
    token = house.sign(GOOD)
    assert house.verifier.verify(token) is house.verifier.verify(token)
    house.clock.advance(60)
    with pytest.raises(Unauthenticated, match="expired"):
        house.verifier.verify(token)


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSAKey.generate_key(2048), "RS256"), (ECKey.generate_key("P-256"), "ES256")]
)
def test_foreign_keys_in_a_jwks_file(tmp_path: Path, key: RSAKey | ECKey, algorithm: str) -> None:
    private = key.as_dict(private=True) | {"kid": "k1", "use": "sig"}
    signing = type(key).import_key(private)
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [signing.as_dict(private=False)]}))
    verifier = TokenVerifier(file, ManualClock(now_us=NOW_S * 1_000_000))
    assert verifier.verify(jwt.encode({"alg": algorithm, "kid": "k1"}, GOOD, signing)).subject == "agent-1"


def test_a_new_key_in_the_file_is_found(tmp_path: Path) -> None:
    old, new = House(tmp_path / "old"), House(tmp_path / "new")
    keys = [each.store.public_file.read_text() for each in (old, new)]
    old.store.public_file.write_text(json.dumps({"keys": [json.loads(text)["keys"][0] for text in keys]}))
    token = new.sign(GOOD)
    with pytest.raises(Unauthenticated, match="not known"):
        old.verifier.verify(token)
    old.clock.advance(RELOAD_INTERVAL_S)
    assert old.verifier.verify(token).subject == "agent-1"


def test_a_key_that_is_taken_out_of_the_file_is_no_longer_trusted(tmp_path: Path) -> None:
    revoked, other = House(tmp_path / "revoked"), House(tmp_path / "other")
    token = revoked.sign(GOOD)
    assert revoked.verifier.verify(token).subject == "agent-1"
    revoked.store.public_file.write_text(other.store.public_file.read_text())
    revoked.clock.advance(RELOAD_INTERVAL_S - 1)
    assert revoked.verifier.verify(token).subject == "agent-1", "looked at the file for each token"
    revoked.clock.advance(1)
    for each in (token, revoked.sign({**GOOD, "sub": "agent-2"})):
        with pytest.raises(Unauthenticated, match="not known"):
            revoked.verifier.verify(each)
    assert revoked.verifier.verify(other.sign(GOOD)).subject == "agent-1"


def test_a_file_that_is_away_for_a_while_is_read_when_it_is_back(tmp_path: Path) -> None:
    revoked, other = House(tmp_path / "revoked"), House(tmp_path / "other")
    token = revoked.sign(GOOD)
    revoked.store.public_file.unlink()
    revoked.clock.advance(RELOAD_INTERVAL_S)
    assert revoked.verifier.verify(token).subject == "agent-1"
    revoked.store.public_file.write_text(other.store.public_file.read_text())
    revoked.clock.advance(RELOAD_INTERVAL_S)
    with pytest.raises(Unauthenticated, match="not known"):
        revoked.verifier.verify(token)


def test_a_broken_file_leaves_the_known_keys_in_force(house: House) -> None:
    house.store.public_file.write_text("{")
    house.clock.advance(RELOAD_INTERVAL_S)
    with pytest.raises(Unauthenticated, match="not known"):
        house.verifier.verify(forged({"alg": "EdDSA", "kid": "new"}, GOOD))
    assert house.verifier.verify(house.sign(GOOD)).subject == "agent-1"


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "k": "AAAA", "kid": "x"}]}',
        '{"keys": [{}]}',
        '{"keys": [1]}',
    ],
)
def test_a_key_file_that_cannot_verify_stops_the_start(tmp_path: Path, content: str) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(content)
    with pytest.raises(StartRefused, match=r"jwks\.json"):
        read_public_keys(file)
    with pytest.raises(StartRefused, match="missing"):
        read_public_keys(tmp_path / "missing")


def test_the_key_is_made_once_and_private(tmp_path: Path) -> None:
    first, second = House(tmp_path / "keys"), House(tmp_path / "keys")
    assert second.verifier.verify(first.sign(GOOD)).subject == "agent-1"
    assert (tmp_path / "keys" / "signing.jwk").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["jwks.json", "signing.jwk"]
    public = KeySet.import_key_set(json.loads(first.store.public_file.read_text()))
    assert not any(key.is_private for key in public.keys)


def test_of_two_processes_that_make_the_key_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = KeyStore(tmp_path).signing_key()
    (tmp_path / "jwks.json").unlink()
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    assert KeyStore(tmp_path).signing_key().kid == other.kid


def test_a_damaged_signing_key_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "signing.jwk").write_text("{}")
    with pytest.raises(StartRefused, match=r"signing\.jwk"):
        KeyStore(tmp_path).signing_key()


def test_a_process_renews_its_own_token(house: House) -> None:
    credentials = ServiceCredentials("ingest", house.clock, signer=house.signer)
    first = credentials.token()
    assert credentials.token() == first
    assert house.verifier.verify(first).is_service
    house.clock.advance(1800)
    assert credentials.token() != first
    house.clock.advance(1799)
    [(name, value)] = credentials.metadata()
    assert name == "authorization"
    assert house.verifier.verify(value.removeprefix("Bearer ")).service == "ingest"


def test_a_process_reads_its_token_file_again(house: House, tmp_path: Path) -> None:
    file = tmp_path / "token"
    credentials = ServiceCredentials("ingest", house.clock, file=file)
    with pytest.raises(Unavailable, match="service token"):
        credentials.token()
    file.write_text("one\n")
    assert credentials.token() == "one"
    file.write_text("two")
    house.clock.advance(RELOAD_INTERVAL_S)
    assert credentials.token() == "two"
    with pytest.raises(StartRefused):
        ServiceCredentials("ingest", house.clock)
