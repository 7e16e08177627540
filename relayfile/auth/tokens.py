"""Tokens: making them with the system's own key, and verifying anybody's into a ``Principal``.

A token is a JWT signed with RS256, ES256 or EdDSA by a key of the JWKS, named by ``kid``. Required: audience
``relayfile``, ``exp``, a subject (``sub`` or ``agent_name``). Workspaces: ``wks`` or ``workspace_id``, one, a list, or
``*``. Scopes: ``scopes`` or ``scope``, a list or separated by spaces. A leading ``relay_pa_``, ``relay_ws_``,
``relay_id_`` or ``relay_ag_`` is dropped. Refuses to decide what a principal may do.
"""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from joserfc import jwt
from joserfc.errors import BadSignatureError
from joserfc.jwk import KeySet, OKPKey
from joserfc.jws import JWSRegistry

from relayfile.auth.fetched_keys import FetchedKeys
from relayfile.auth.keys import ALGORITHM, read_public_keys
from relayfile.auth.principal import ALL, Principal
from relayfile.clock import Clock
from relayfile.errors import StartRefused, Unauthenticated, Unavailable

AUDIENCE = "relayfile"
ALGORITHMS = ("RS256", "ES256", "EdDSA", "Ed25519")
PREFIXES = ("relay_pa_", "relay_ws_", "relay_id_", "relay_ag_")
TOKEN_BYTES_MAX = 16_384
CACHED_TOKENS_MAX = 10_000
RELOAD_INTERVAL_S = 5.0
NOT_BEFORE_LEEWAY_S = 60
TTL_MAX_S = 10 * 365 * 86_400
EVERY_SCOPE = "relayfile:*:*"
"""Grants everything that the workspaces of a token allow."""


class UnknownKey(Unauthenticated):
    """The caller is not known: {why}."""


class _Registry(JWSRegistry):
    """Our algorithms. EdDSA stays one of them although RFC 9864 prefers its new name: every issuer still writes it."""

    def get_alg(self, name: str) -> Any:
        if name in ALGORITHMS:
            return self.algorithms[name]
        return super().get_alg(name)


_REGISTRY = _Registry(algorithms=ALGORITHMS, strict_check_header=False)


class TokenSigner:
    """Makes tokens with the system's own key."""

    def __init__(self, key: OKPKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def mint(
        self,
        subject: str,
        *,
        workspaces: str | tuple[str, ...],
        ttl_s: float,
        scopes: tuple[str, ...] = (),
        service: str = "",
    ) -> str:
        """A token for ``subject``; ``workspaces`` is ``*`` or ids; ``service`` makes it a service identity."""
        assert 0 < ttl_s <= TTL_MAX_S, ttl_s
        now = self._clock.now_us() // 1_000_000
        claims: dict[str, Any] = {
            "aud": AUDIENCE,
            "sub": subject,
            "wks": workspaces if isinstance(workspaces, str) else list(workspaces),
            "iat": now,
            "exp": now + math.ceil(ttl_s),
        }
        if scopes:
            claims["scopes"] = list(scopes)
        if service:
            claims["svc"] = service
        header = {"alg": ALGORITHM, "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, registry=_REGISTRY)


class TokenVerifier:
    """Token to principal. Verified tokens are remembered until they expire or the file of public keys changes.

    A key that is added to the file, or taken out of it, counts ``RELOAD_INTERVAL_S`` later at the latest. ``fetched``
    are more keys, from a URL; a name that both have is the file's.
    """

    def __init__(self, jwks_file: Path, clock: Clock, fetched: FetchedKeys | None = None) -> None:
        self._jwks_file = jwks_file
        self._clock = clock
        # Before it is read: what is written in between is seen as a change.
        self._version = _version(jwks_file)
        self._keys: KeySet = read_public_keys(jwks_file)
        self._looked_at = clock.monotonic()
        self._verified: dict[bytes, Principal] = {}
        self._fetched = fetched
        self._fetched_version = 0

    async def run(self) -> None:
        """Keep keys of a URL fresh, until cancelled; returns at once without one."""
        if self._fetched is not None:
            await self._fetched.run()

    async def identify(self, token: str) -> Principal:
        """As ``verify``; a key that nobody knows is looked for once more at the URL before the token is refused."""
        try:
            return self.verify(token)
        except UnknownKey:
            if self._fetched is None:
                raise
            await self._fetched.look_again()
            return self.verify(token)

    def verify(self, token: str) -> Principal:
        """The principal of ``token``. ``Unauthenticated`` says why there is none; never echoes the token."""
        self._look_for_changed_keys()
        fingerprint = hashlib.sha256(token.encode(errors="replace")).digest()
        principal = self._verified.get(fingerprint)
        if principal is None:
            principal = self._principal(self._claims(token))
        if principal.expires_at_us <= self._clock.now_us():
            self._verified.pop(fingerprint, None)
            raise Unauthenticated(why="the token has expired")
        if fingerprint not in self._verified:
            if len(self._verified) >= CACHED_TOKENS_MAX:
                del self._verified[next(iter(self._verified))]
            self._verified[fingerprint] = principal
        return principal

    def _claims(self, token: str) -> Mapping[str, object]:
        if len(token) > TOKEN_BYTES_MAX:
            raise Unauthenticated(why="the token is too long")
        bare = next((token[len(prefix) :] for prefix in PREFIXES if token.startswith(prefix)), token)
        try:
            return jwt.decode(bare, self._key_for, registry=_REGISTRY).claims
        except (Unauthenticated, Unavailable):
            raise
        except BadSignatureError:
            raise Unauthenticated(why="the token's signature is wrong") from None
        except Exception as error:  # noqa: BLE001 - on hostile headers joserfc also raises TypeError and the like
            raise Unauthenticated(why=f"the token cannot be read ({type(error).__name__})") from None

    def _key_for(self, guest: Any) -> Any:
        kid = guest.headers().get("kid")
        if not isinstance(kid, str) or not kid:
            raise Unauthenticated(why="the token names no key (kid)")
        key = next((key for key in self._keys.keys if key.kid == kid), None)
        if key is None and self._fetched is not None:
            key = self._fetched.find(kid)
        if key is None:
            raise UnknownKey(why="the token is signed with a key that is not known here")
        return key

    def _look_for_changed_keys(self) -> None:
        if self._fetched is not None and self._fetched.version != self._fetched_version:
            self._fetched_version = self._fetched.version
            self._verified.clear()
        now = self._clock.monotonic()
        if now - self._looked_at < RELOAD_INTERVAL_S:
            return
        self._looked_at = now
        version = _version(self._jwks_file)
        if version == self._version:
            return
        try:
            self._keys = read_public_keys(self._jwks_file)
        except StartRefused:
            # A file that is being replaced: the keys at hand stay valid, and the next look asks again.
            return
        self._version = version
        # Some may be signed with a key that is no longer in the file.
        self._verified.clear()

    def _principal(self, claims: Mapping[str, object]) -> Principal:
        audience = claims.get("aud")
        if AUDIENCE not in (audience if isinstance(audience, list) else [audience]):
            raise Unauthenticated(why=f"the token is not meant for the audience {AUDIENCE}")
        expires = _seconds(claims.get("exp"))
        if expires is None:
            raise Unauthenticated(why="the token has no usable expiry (exp)")
        not_before = _seconds(claims.get("nbf"))
        if not_before is not None and (not_before - NOT_BEFORE_LEEWAY_S) * 1_000_000 > self._clock.now_us():
            raise Unauthenticated(why="the token is not valid yet")
        subject = claims.get("sub") or claims.get("agent_name")
        if not isinstance(subject, str):
            raise Unauthenticated(why="the token names no subject (sub or agent_name)")
        service = claims.get("svc")
        return Principal(
            subject=subject,
            workspaces=frozenset(_texts(claims.get("wks") or claims.get("workspace_id"), separated=False)),
            scopes=_texts(claims.get("scopes") or claims.get("scope"), separated=True),
            service=service if isinstance(service, str) else "",
            expires_at_us=int(expires * 1_000_000),
        )


class ServiceCredentials:
    """The token that this process shows to others: its own, renewed at half its life, or the one in a file.

    ``by_certificate``: none, because the certificate of its connections says who it is.
    """

    _TTL_S = 3600.0

    def __init__(
        self,
        name: str,
        clock: Clock,
        *,
        signer: TokenSigner | None = None,
        file: Path | None = None,
        by_certificate: bool = False,
    ) -> None:
        if [signer is not None, file is not None, by_certificate].count(True) != 1:
            raise StartRefused(why="a process needs either a signing key or RELAYFILE_SERVICE_TOKEN_FILE")
        self._name = name
        self._clock = clock
        self._signer = signer
        self._file = file
        self._by_certificate = by_certificate
        self._token = ""
        self._renew_at = 0.0

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What to pass as ``metadata=`` to a call."""
        return () if self._by_certificate else (("authorization", f"Bearer {self.token()}"),)

    def token(self) -> str:
        """A token that is still valid for a while."""
        now = self._clock.monotonic()
        if not self._token or now >= self._renew_at:
            self._token = self._renewed()
            self._renew_at = now + (self._TTL_S / 2 if self._signer is not None else RELOAD_INTERVAL_S)
        return self._token

    def _renewed(self) -> str:
        if self._signer is not None:
            return self._signer.mint(
                self._name, workspaces=ALL, ttl_s=self._TTL_S, scopes=(EVERY_SCOPE,), service=self._name
            )
        assert self._file is not None
        try:
            return self._file.read_text().strip()
        except OSError as error:
            raise Unavailable(what=f"service token in {self._file} ({error.strerror})") from error


def _version(file: Path) -> tuple[int, ...]:
    """Differs when the file was written or replaced; empty while there is none."""
    try:
        state = file.stat()
    except OSError:
        return ()
    return (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def _seconds(claim: object) -> float | None:
    if isinstance(claim, bool) or not isinstance(claim, int | float) or not 0 < claim < 1e11:
        return None
    return claim


def _texts(claim: object, *, separated: bool) -> tuple[str, ...]:
    if isinstance(claim, str):
        return tuple(claim.split()) if separated else (claim,)
    if isinstance(claim, list):
        return tuple(each for each in cast("list[object]", claim) if isinstance(each, str))
    return ()
