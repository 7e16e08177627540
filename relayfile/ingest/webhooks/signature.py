"""Proof that a request comes from who it says: one scheme, a value, for all providers' ways of signing.

Owns building the signed text, comparing in constant time with every live secret, and the time window. Refuses to know
where secrets are kept, and never names a secret, a signature or a body in a message.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, NamedTuple
from urllib.parse import quote

from relayfile.pinned_json import JsonValue

Algorithm = Literal["sha256", "sha1"]
Encoding = Literal["hex", "base64"]
KeyForm = Literal["text", "whsec"]
Part = Literal["body", "timestamp", "id", "method", "url"]

TOLERANCE_DEFAULT_S: Final = 300.0
SECRETS_MAX: Final = 16
"""Live secrets that are tried for one sender."""
SIGNATURES_MAX: Final = 16
"""Signatures of one request that are looked at."""
KEYS_CACHED_MAX: Final = 4096
_HEADER_CHARACTERS_MAX: Final = 4096
_TIMESTAMP = re.compile(r"[0-9]{1,15}\Z")
_TIMESTAMP_END: Final = 10**15
_WHSEC: Final = "whsec_"
_DIGEST_BYTES: Final[Mapping[Algorithm, int]] = {"sha256": 32, "sha1": 20}


class SignatureRefused(Exception):
    """The request is not proven to come from its sender. ``reason`` is for the log of refused requests."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class SignedRequest(NamedTuple):
    """What signatures are made of. Header names are in lower case."""

    headers: Mapping[str, str]
    body: bytes
    method: str = "POST"
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a provider signs. Header names are in lower case; empty: the scheme has none."""

    header: str
    """Carries the signature, or with ``is_token`` the secret itself."""
    is_token: bool = False
    algorithm: Algorithm = "sha256"
    encoding: Encoding = "hex"
    prefix: str = ""
    """Stands before each signature (`sha256=`); entries without it are skipped."""
    separator: str = ""
    """Between several signatures of one header."""
    timestamp_prefix: str = ""
    """The time is the entry of ``header`` with this prefix (Stripe's `t=`)."""
    timestamp_header: str = ""
    timestamp_unit_s: float = 1.0
    id_header: str = ""
    signed: tuple[bytes | Part, ...] = ("body",)
    """What is signed, in order: named parts of the request, and bytes between them."""
    key_form: KeyForm = "text"
    """`whsec`: base64 after an optional `whsec_`, as Standard Webhooks writes keys."""
    tolerance_s: float | None = None
    """How old or early a signed time may be; None: as the caller of `verify` says."""
    repeats_for_s: float = 0.0
    """The sender repeats an unanswered request as it was, signed time included, for so long: older ones still count."""
    body_time: Callable[[JsonValue], JsonValue] | None = None
    """Finds the time of sending in the signed body, in units of ``timestamp_unit_s``: see `check_body_time`."""
    url_decoded: str = ""
    """Characters that the sender signs as they are where the URL has them percent-encoded."""

    @property
    def is_timed(self) -> bool:
        """Whether a time is part of what is signed."""
        return bool(self.timestamp_header or self.timestamp_prefix)


def verify(
    scheme: Scheme,
    request: SignedRequest,
    secrets: Sequence[str],
    now_us: int,
    tolerance_s: float = TOLERANCE_DEFAULT_S,
) -> None:
    """Return when one of ``secrets`` signed ``request`` in time; else raise `SignatureRefused`.

    ``tolerance_s`` is how old or early a signed time may be; a provider's own window counts where it is tighter.

    Reasons: `SECRET_MISSING` (none is configured), `SIGNATURE_MISSING`, `SIGNATURE_MALFORMED`, `SIGNATURE_MISMATCH`,
    `TIMESTAMP_MISSING`, `TIMESTAMP_MALFORMED`, `TIMESTAMP_STALE`.
    """
    if not secrets:
        raise SignatureRefused("SECRET_MISSING")
    header = request.headers.get(scheme.header, "")
    if not header:
        raise SignatureRefused("SIGNATURE_MISSING")
    if len(header) > _HEADER_CHARACTERS_MAX:
        raise SignatureRefused("SIGNATURE_MALFORMED")
    if scheme.is_token:
        _require_match([header.encode()], [secret.encode() for secret in secrets[:SECRETS_MAX]])
        return
    entries = [entry.strip() for entry in header.split(scheme.separator)] if scheme.separator else [header]
    timestamp = _timestamp(scheme, request, entries)
    given = list(_signatures(scheme, entries))
    if not given:
        raise SignatureRefused("SIGNATURE_MALFORMED")
    signed = _signed_bytes(scheme, request, timestamp)
    _require_match(
        given,
        [hmac.digest(_key(scheme.key_form, secret), signed, scheme.algorithm) for secret in secrets[:SECRETS_MAX]],
    )
    if scheme.is_timed:
        _require_recent(scheme, int(timestamp), now_us, tolerance_s)


def check_body_time(scheme: Scheme, document: JsonValue, now_us: int, tolerance_s: float = TOLERANCE_DEFAULT_S) -> None:
    """Return when the time that ``scheme`` finds in a verified body is near enough, or it looks for none.

    `SignatureRefused` else, with the `TIMESTAMP_` reasons of `verify`.
    """
    if scheme.body_time is None:
        return
    value = scheme.body_time(document)
    if value is None:
        raise SignatureRefused("TIMESTAMP_MISSING")
    if type(value) is not int or not 0 <= value < _TIMESTAMP_END:
        raise SignatureRefused("TIMESTAMP_MALFORMED")
    _require_recent(scheme, value, now_us, tolerance_s)


def _require_recent(scheme: Scheme, timestamp: int, now_us: int, tolerance_s: float) -> None:
    window_s = tolerance_s if scheme.tolerance_s is None else min(tolerance_s, scheme.tolerance_s)
    age_s = now_us / 1_000_000 - timestamp * scheme.timestamp_unit_s
    if not -window_s <= age_s <= window_s + scheme.repeats_for_s:
        raise SignatureRefused("TIMESTAMP_STALE")


def sign(scheme: Scheme, request: SignedRequest, secret: str, timestamp: str = "") -> str:
    """The header's value with which ``request`` verifies: for tests, the demo and load."""
    if scheme.is_token:
        return secret
    digest = hmac.digest(_key(scheme.key_form, secret), _signed_bytes(scheme, request, timestamp), scheme.algorithm)
    text = digest.hex() if scheme.encoding == "hex" else base64.b64encode(digest).decode()
    before = f"{scheme.timestamp_prefix}{timestamp}{scheme.separator}" if scheme.timestamp_prefix else ""
    return f"{before}{scheme.prefix}{text}"


def _require_match(given: Iterable[bytes], expected: Sequence[bytes]) -> None:
    """Compares every pair, so that the time taken says nothing about which secret was near."""
    matches = 0
    for one in given:
        for other in expected:
            matches |= hmac.compare_digest(one, other)
    if not matches:
        raise SignatureRefused("SIGNATURE_MISMATCH")


def _timestamp(scheme: Scheme, request: SignedRequest, entries: Sequence[str]) -> str:
    if not scheme.is_timed:
        return ""
    if scheme.timestamp_header:
        text = request.headers.get(scheme.timestamp_header, "")
    else:
        prefix = scheme.timestamp_prefix
        text = next((entry[len(prefix) :] for entry in entries if entry.startswith(prefix)), "")
    if not text:
        raise SignatureRefused("TIMESTAMP_MISSING")
    if _TIMESTAMP.match(text) is None:
        raise SignatureRefused("TIMESTAMP_MALFORMED")
    return text


def _signatures(scheme: Scheme, entries: Sequence[str]) -> Iterable[bytes]:
    length = _DIGEST_BYTES[scheme.algorithm]
    for entry in entries[:SIGNATURES_MAX]:
        if not entry.startswith(scheme.prefix):
            continue
        text = entry[len(scheme.prefix) :]
        try:
            signature = bytes.fromhex(text) if scheme.encoding == "hex" else base64.b64decode(text, validate=True)
        except (ValueError, binascii.Error):
            continue
        if len(signature) == length:
            yield signature


def _signed_bytes(scheme: Scheme, request: SignedRequest, timestamp: str) -> bytes:
    if scheme.signed == ("body",):
        return request.body
    parts: list[bytes] = []
    for part in scheme.signed:
        if isinstance(part, bytes):
            parts.append(part)
        elif part == "body":
            parts.append(request.body)
        elif part == "timestamp":
            parts.append(timestamp.encode())
        elif part == "id":
            parts.append(request.headers.get(scheme.id_header, "").encode())
        elif part == "method":
            parts.append(request.method.encode())
        else:
            parts.append(_signed_url(scheme.url_decoded, request.url).encode())
    return b"".join(parts)


def _signed_url(decoded: str, url: str) -> str:
    for character in decoded:
        encoded = quote(character, safe="")
        url = url.replace(encoded, character).replace(encoded.lower(), character)
    return url


@lru_cache(maxsize=KEYS_CACHED_MAX)
def _key(form: KeyForm, secret: str) -> bytes:
    if form == "text":
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_WHSEC), validate=True)
    except (ValueError, binascii.Error):
        return secret.encode()
